//! A plugin that the test plays: what comes in is handed to the test, which answers when and what it likes.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use cache_proto::{
    DeleteRequest, DeleteResponse, FlushRequest, FlushResponse, GetManyRequest, GetManyResponse, GetRequest,
    GetResponse, Hit, PipeRequest, PipeResponse, SetManyRequest, SetManyResponse, SetRequest, SetResponse,
    StatsRequest, StatsResponse,
    cache_server::{Cache, CacheServer},
    get_response::Outcome,
};
use plugin_sdk::host::{Attach, Probe, Supervised, Supervisor};
use tempfile::TempDir;
use tokio::{
    net::UnixListener,
    runtime::{self, Runtime},
    sync::{Semaphore, mpsc},
    time,
};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use super::super::Line;

/// Longer than anything here should take, so that a test that hangs says so.
const LIMIT: Duration = Duration::from_secs(30);

/// More than there are calls at a time.
pub(super) const PERMITS: usize = 1_000;

/// The methods that a plugin has beside Get and Set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Methods {
    Single,
    Many,
    Pipe,
}

/// What arrives at the plugin.
#[derive(Debug)]
pub(super) enum Arrival {
    /// A batch of a stream, of which the sender is the answering end.
    Batch(PipeRequest, Answers),
    /// The host has ended its side of a stream.
    End(Answers),
}

pub(super) type Answers = mpsc::Sender<Result<PipeResponse, Status>>;

/// How often each method was called.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) get: AtomicUsize,
    pub(super) set: AtomicUsize,
    pub(super) get_many: AtomicUsize,
    pub(super) set_many: AtomicUsize,
    pub(super) pipe: AtomicUsize,
}

/// The plugin's end.
pub(in super::super) struct Peer {
    directory: TempDir,
    methods: Methods,
    /// A run time of its own, since its end is the end of all connections.
    runtime: Option<Runtime>,
    pub(super) arrivals: mpsc::UnboundedReceiver<Arrival>,
    pub(super) counts: Arc<Counts>,
    /// What all calls but those of streams fail with.
    pub(super) fault: Arc<Mutex<Option<Status>>>,
    /// Each call but those of streams needs one, for as long as it takes.
    pub(super) permits: Arc<Semaphore>,
    /// Each call of Get and GetMany needs one of these, too.
    pub(super) lookups: Arc<Semaphore>,
}

impl Peer {
    pub(in super::super) fn start(methods: Methods) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (tell, arrivals) = mpsc::unbounded_channel();
        let (counts, fault) = (Arc::default(), Arc::default());
        let permits = Arc::new(Semaphore::new(PERMITS));
        let lookups = Arc::new(Semaphore::new(PERMITS));
        let mut peer = Self { directory, methods, runtime: None, arrivals, counts, fault, permits, lookups };
        peer.serve(tell);
        peer
    }

    /// A line to it.
    pub(super) async fn line(&self, timeout: Duration) -> (Line, Supervised) {
        let plugin = self.supervised().await;
        (Line::new(plugin.channel(), timeout), plugin)
    }

    /// A host of it, which it serves.
    pub(in super::super) async fn supervised(&self) -> Supervised {
        let address = format!("unix:{}", self.directory.path().join("socket").display());
        let attach = Attach::to(address.parse().unwrap(), crate::cache::contract());
        let probe = Probe { interval: Duration::from_millis(20), ..Probe::default() };
        let plugin = Supervisor::attach(attach).probe(probe).start();
        let mut channel = plugin.channel();
        time::timeout(LIMIT, channel.instance_changed(None)).await.unwrap();
        plugin
    }

    /// Dies: all connections break.
    pub(super) fn die(&mut self) {
        self.runtime.take().map(Runtime::shutdown_background).unwrap_or_default();
        let _ = std::fs::remove_file(self.directory.path().join("socket"));
    }

    /// Lives again after it has died.
    pub(super) fn live(&mut self) {
        let (tell, arrivals) = mpsc::unbounded_channel();
        self.arrivals = arrivals;
        self.serve(tell);
    }

    fn serve(&mut self, tell: mpsc::UnboundedSender<Arrival>) {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = {
            let _of_that_runtime = runtime.enter();
            UnixListener::bind(self.directory.path().join("socket")).unwrap()
        };
        let service = CacheServer::new(Served {
            methods: self.methods,
            tell,
            counts: Arc::clone(&self.counts),
            fault: Arc::clone(&self.fault),
            permits: Arc::clone(&self.permits),
            lookups: Arc::clone(&self.lookups),
        });
        runtime.spawn(async move {
            let serving = Server::builder().add_service(service);
            serving.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap();
        });
        self.runtime = Some(runtime);
    }

    pub(super) async fn arrival(&mut self) -> Arrival {
        time::timeout(LIMIT, self.arrivals.recv())
            .await
            .expect("nothing arrives")
            .expect("it is being served")
    }

    /// Answers all that comes, from now on.
    pub(super) async fn work(&mut self) {
        while let Some(arrival) = self.arrivals.recv().await {
            if let Arrival::Batch(batch, answers) = arrival {
                // The host may have given the stream up.
                let _gone = answers.send(Ok(right(&batch))).await;
            }
        }
    }

    /// The next batch.
    pub(super) async fn batch(&mut self) -> (PipeRequest, Answers) {
        match self.arrival().await {
            Arrival::Batch(request, answers) => (request, answers),
            Arrival::End(_) => panic!("the stream has ended"),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.die();
    }
}

/// The right answer.
pub(super) fn right(request: &PipeRequest) -> PipeResponse {
    let gets = request.gets.iter().map(|key| value_of(key)).collect();
    PipeResponse { batch: request.batch, gets, set_errors: vec![] }
}

/// What it has for each key.
pub(super) fn value_of(key: &str) -> GetResponse {
    let hit = Hit { value: format!("value of {key}").into(), ..Hit::default() };
    GetResponse { outcome: Some(Outcome::Hit(hit)) }
}

struct Served {
    methods: Methods,
    tell: mpsc::UnboundedSender<Arrival>,
    counts: Arc<Counts>,
    fault: Arc<Mutex<Option<Status>>>,
    permits: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
}

impl Served {
    fn called(&self, count: &AtomicUsize, needs: Methods) -> Result<(), Status> {
        count.fetch_add(1, Ordering::SeqCst);
        if self.methods < needs { Err(Status::unimplemented("no such method")) } else { Ok(()) }
    }

    async fn single(&self, count: &AtomicUsize, needs: Methods) -> Result<(), Status> {
        self.called(count, needs)?;
        let _permit = self.permits.acquire().await.unwrap();
        self.fault.lock().unwrap().clone().map_or(Ok(()), Err)
    }
}

#[tonic::async_trait]
impl Cache for Served {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        self.single(&self.counts.get, Methods::Single).await?;
        let _lookup = self.lookups.acquire().await.unwrap();
        Ok(Response::new(value_of(&request.into_inner().key)))
    }

    async fn set(&self, _: Request<SetRequest>) -> Result<Response<SetResponse>, Status> {
        self.single(&self.counts.set, Methods::Single).await?;
        Ok(Response::new(SetResponse {}))
    }

    async fn get_many(&self, request: Request<GetManyRequest>) -> Result<Response<GetManyResponse>, Status> {
        self.single(&self.counts.get_many, Methods::Many).await?;
        let _lookup = self.lookups.acquire().await.unwrap();
        let results = request.into_inner().keys.iter().map(|key| value_of(key)).collect();
        Ok(Response::new(GetManyResponse { results }))
    }

    async fn set_many(&self, _: Request<SetManyRequest>) -> Result<Response<SetManyResponse>, Status> {
        self.single(&self.counts.set_many, Methods::Many).await?;
        Ok(Response::new(SetManyResponse {}))
    }

    type PipeStream = Pin<Box<ReceiverStream<Result<PipeResponse, Status>>>>;

    async fn pipe(
        &self,
        requests: Request<Streaming<PipeRequest>>,
    ) -> Result<Response<Self::PipeStream>, Status> {
        self.called(&self.counts.pipe, Methods::Pipe)?;
        let (answer, answers) = mpsc::channel(100);
        let (tell, mut requests) = (self.tell.clone(), requests.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let _test_is_over = tell.send(Arrival::Batch(request, answer.clone()));
            }
            let _test_is_over = tell.send(Arrival::End(answer));
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn delete(&self, _: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        Err(Status::unimplemented("no such method"))
    }

    async fn flush(&self, _: Request<FlushRequest>) -> Result<Response<FlushResponse>, Status> {
        Err(Status::unimplemented("no such method"))
    }

    async fn stats(&self, _: Request<StatsRequest>) -> Result<Response<StatsResponse>, Status> {
        Err(Status::unimplemented("no such method"))
    }
}
