//! A stream of batches, as a host has one.

use std::pin::Pin;

use cache_proto::cache_client::CacheClient;
use cache_proto::{PipeRequest, PipeResponse};
use futures_util::{Stream, StreamExt, TryFutureExt};
use plugin_testkit::wait::LIMIT;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

/// A call of Pipe. Dropping it breaks it off.
pub struct Pipe {
    /// `None`: the host's side has ended.
    requests: Option<mpsc::UnboundedSender<PipeRequest>>,
    answers: Pin<Box<dyn Stream<Item = Result<PipeResponse, Status>> + Send>>,
}

impl Pipe {
    /// Begins to open one. The head of the answer may come together with the first batch's, so nobody waits for it.
    pub(crate) fn open(mut client: CacheClient<Channel>) -> Self {
        let (requests, outgoing) = mpsc::unbounded_channel();
        let open = async move { client.pipe(UnboundedReceiverStream::new(outgoing)).await };
        let answers = open.map_ok(tonic::Response::into_inner).try_flatten_stream();
        Self { requests: Some(requests), answers: Box::pin(answers) }
    }

    /// Sends a batch.
    pub fn send(&self, request: PipeRequest) {
        let requests = self.requests.as_ref().expect("a host sends nothing after its end");
        // If the stream has ended, its answers say so.
        let _ended = requests.send(request);
    }

    /// The next answer; `None`: the plugin has ended the stream with OK.
    ///
    /// # Errors
    /// The plugin's.
    ///
    /// # Panics
    /// There is none in time.
    pub async fn answer(&mut self) -> Result<Option<PipeResponse>, Status> {
        let answer = tokio::time::timeout(LIMIT, self.answers.next()).await;
        answer.unwrap_or_else(|_| panic!("no answer on the stream within {LIMIT:?}")).transpose()
    }

    /// Sends a batch while no other is open, and gives the answer to it.
    ///
    /// # Panics
    /// There is none.
    pub async fn ask(&mut self, request: PipeRequest) -> PipeResponse {
        let batch = request.batch;
        self.send(request);
        let answer = self.answer().await.expect("a batch does not break the stream");
        let answer = answer.expect("the host has not ended the stream");
        assert_eq!(answer.batch, batch, "the number of the answer is not that of its batch");
        answer
    }

    /// Ends the host's side, and gives the answers that are left once the plugin has ended its own.
    ///
    /// # Errors
    /// The plugin has ended it with this.
    ///
    /// # Panics
    /// It does not end in time.
    pub async fn rest(mut self) -> Result<Vec<PipeResponse>, Status> {
        self.requests = None;
        let mut answers = Vec::new();
        while let Some(answer) = self.answer().await? {
            answers.push(answer);
        }
        Ok(answers)
    }
}
