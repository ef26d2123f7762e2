//! Connections: who may open one, how long it lives, and how all of them end.
//!
//! The loop is our own because `axum::serve` gives hyper no timer, without which hyper's limit on the time for a
//! request's head does nothing. What bounds a connection at each moment:
//!
//! | moment | bound |
//! |---|---|
//! | before and within the head of a request, and idle between two requests | `header_timeout` (hyper starts it anew when it begins to wait for a head) |
//! | size of the head | `MAX_HEAD_BYTES`, `MAX_HEADERS`: 431 |
//! | body of a request | none is read; see `access_log::handle` |
//! | the answer is being made | `compute_timeout` and the timeout of the cache |
//! | the client does not take the answer | `write_timeout` |
//! | the server is to stop | `drain_timeout`; at once if no head of a request is whole. See [`drain`](super::drain) |
//!
//! A client that closes its sending half counts as gone, and its request is dropped: TCP cannot tell the two apart.

use std::{
    convert::Infallible,
    future::{self, Future},
    io,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinError, JoinSet},
    time::{self, Instant},
};
use tokio_io_timeout::TimeoutWriter;
use tracing::{debug, error, info, warn};

use super::{
    access_log::handle,
    drain::{self, Ended, Phase, Progress},
    front::Front,
};
use crate::config::HttpConfig;

/// Largest head of a request, and with it the buffer of a connection. Proxies and browsers stay below 8 KiB; the
/// longest sensible path of ours has 20 bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Most header lines of a request; hyper's default, stated because more of them are answered with 431.
const MAX_HEADERS: usize = 100;

/// Pause after the operating system has refused a connection for want of something, file descriptors mostly. It
/// does so again at once until some connection ends, and the listen queue keeps those who come meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// Time without such a refusal after which they are over. In between some connections are accepted, one for each that
/// ends, and that is no news.
const CALM: Duration = Duration::from_secs(2);

/// Time without being full after which it is news that all connections are taken.
const NOT_FULL: Duration = Duration::from_secs(60);

/// Time to tell the clients whose requests are not waited for, when `drain_timeout` is over.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How the draining ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Each request that was there has been answered.
    Completely,
    /// Time ran out, and requests were refused, or connections closed with one in flight.
    Cut {
        /// How many.
        connections: usize,
    },
}

/// Serves `front` on `listener` until `shutdown`; then refuses new connections, lets those that are there finish
/// the request they are at, and refuses the rest when `drain_timeout` is over. Dropping the future closes all at once.
pub async fn serve(
    listener: TcpListener,
    front: Front,
    config: &HttpConfig,
    shutdown: impl Future<Output = ()>,
) -> Drained {
    let mut listener = Acceptor { listener, trouble: None };
    let server = Server::new(front, config);
    let (phase, _) = watch::channel(Phase::Serving);
    let mut connections = JoinSet::new();
    let limit = config.max_connections.get();
    let mut last_full = None;
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => report(&ended),
            stream = listener.accept(), if connections.len() < limit => {
                connections.spawn(server.clone().connection(stream, phase.subscribe()));
                if connections.len() == limit {
                    tell_full(&mut last_full, limit, Instant::now());
                }
            }
        }
    }
    drop(listener);
    phase.send_replace(Phase::Draining);
    let mut cut = 0;
    if time::timeout(config.drain_timeout, all_ended(&mut connections, &mut cut)).await.is_err() {
        phase.send_replace(Phase::Cut);
        if time::timeout(LAST_WORDS, all_ended(&mut connections, &mut cut)).await.is_err() {
            cut += connections.len();
            connections.shutdown().await;
        }
    }
    match cut {
        0 => Drained::Completely,
        connections => Drained::Cut { connections },
    }
}

/// Waits until all connections have ended, and counts those that were cut.
async fn all_ended(connections: &mut JoinSet<Ended>, cut: &mut usize) {
    while let Some(ended) = connections.join_next().await {
        report(&ended);
        *cut += usize::from(matches!(ended, Ok(Ended::Cut)));
    }
}

/// Warns that others have to wait, once for a time in which that is so again and again.
fn tell_full(last_full: &mut Option<Instant>, limit: usize, now: Instant) {
    let is_news = last_full.replace(now).is_none_or(|last| last + NOT_FULL <= now);
    if is_news {
        warn!(limit, "as many connections are open as --max-connections allows; others wait until one ends");
    }
}

fn report(ended: &Result<Ended, JoinError>) {
    if let Err(error) = ended {
        error!(%error, "a connection's task has failed");
    }
}

/// A listener that outlives its errors, and warns once while they go on.
struct Acceptor {
    listener: TcpListener,
    trouble: Option<Trouble>,
}

/// A time in which connections are refused for want of something.
struct Trouble {
    since: Instant,
    last: Instant,
}

impl Acceptor {
    /// The next connection. Trouble of a single one is passed over, trouble of ours is waited out. May be dropped and
    /// called again, which tries at once.
    async fn accept(&mut self) -> TcpStream {
        loop {
            let accepted = tokio::select! {
                biased;
                () = calm_after(self.trouble.as_ref()) => {
                    self.recovered();
                    continue;
                }
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => return stream,
                Err(error) if is_of_one_connection(&error) => {
                    debug!(%error, "a connection ended before it was accepted")
                }
                Err(error) => {
                    self.failed(&error);
                    time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn failed(&mut self, error: &io::Error) {
        let now = Instant::now();
        match &mut self.trouble {
            Some(trouble) => trouble.last = now,
            None => {
                warn!(%error, "cannot accept connections, trying again and again");
                self.trouble = Some(Trouble { since: now, last: now });
            }
        }
    }

    fn recovered(&mut self) {
        if let Some(Trouble { since, last }) = self.trouble.take() {
            info!(after = ?(last - since), "connections are accepted again");
        }
    }
}

/// Ends when there has been no trouble for long enough; never if there was none.
async fn calm_after(trouble: Option<&Trouble>) {
    match trouble {
        Some(trouble) => time::sleep_until(trouble.last + CALM).await,
        None => future::pending().await,
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// What connections share.
#[derive(Clone)]
struct Server {
    front: Front,
    http: Arc<http1::Builder>,
    write_timeout: Duration,
}

impl Server {
    fn new(front: Front, config: &HttpConfig) -> Self {
        let mut http = http1::Builder::new();
        // An answer is small: its two parts are sooner copied into one than gathered by the kernel.
        http.writev(false)
            .timer(TokioTimer::new())
            .header_read_timeout(config.header_timeout)
            .max_header_size(MAX_HEAD_BYTES)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD_BYTES);
        Self { front, http: Arc::new(http), write_timeout: config.write_timeout }
    }

    /// One connection from its first byte to its last.
    async fn connection(self, stream: TcpStream, mut phase: watch::Receiver<Phase>) -> Ended {
        // Answers are one small write each: waiting to fill a packet would only delay them.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "cannot set TCP_NODELAY");
        }
        let mut stream = TimeoutWriter::new(stream);
        stream.set_timeout(Some(self.write_timeout));
        let mut stream = Box::pin(stream);
        let progress = Progress::default();
        let end = self.requests(stream.as_mut(), &progress, &mut phase).await;
        if end == End::Ours {
            drain::linger(stream).await;
        }
        progress.ended()
    }

    /// Answers requests until one side has had enough.
    async fn requests(
        &self,
        stream: Pin<&mut TimeoutWriter<TcpStream>>,
        progress: &Progress,
        phase: &mut watch::Receiver<Phase>,
    ) -> End {
        let service = service_fn(|request| {
            let response = handle(&self.front, progress, request);
            async { Ok::<_, Infallible>(response.await) }
        });
        let mut connection = pin!(self.http.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            biased;
            ended = connection.as_mut() => return End::theirs(ended),
            () = drain::reached(phase, Phase::Draining) => {}
        }
        connection.as_mut().graceful_shutdown();
        // It takes in what has arrived, and ends if it is idle.
        tokio::select! {
            biased;
            ended = connection.as_mut() => return End::theirs(ended),
            () = future::ready(()) => {}
        }
        if !progress.has_asked() {
            return End::theirs(Ok(()));
        }
        tokio::select! {
            biased;
            ended = connection.as_mut() => return End::ours(ended),
            () = drain::reached(phase, Phase::Cut) => progress.cut(),
        }
        End::ours(connection.await)
    }
}

/// Whose it is to close a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client has, or cannot expect anything.
    Theirs,
    /// We do, after an answer that is on its way.
    Ours,
}

impl End {
    fn theirs(ended: Result<(), hyper::Error>) -> Self {
        if let Err(error) = ended {
            debug!(%error, "connection ended");
        }
        Self::Theirs
    }

    fn ours(ended: Result<(), hyper::Error>) -> Self {
        match ended {
            Ok(()) => Self::Ours,
            failed => Self::theirs(failed),
        }
    }
}
