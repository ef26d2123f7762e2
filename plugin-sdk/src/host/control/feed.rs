//! Streams to those who read a journal: what is kept, and what comes.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;

use crate::control::Reason;
use crate::host::{Follow, Followed};

/// What is sent to a client, one by one.
pub(super) type Feed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Messages that wait for a client to take them. Behind it the journal itself waits, and counts what has to be left out.
const WAITING: usize = 16;

/// How long a client may take for its last message.
const LAST_MESSAGE: Duration = Duration::from_millis(500);

/// What is kept, and no more.
pub(super) fn of_kept<T: Send + 'static>(kept: Vec<T>) -> Feed<T> {
    Box::pin(tokio_stream::iter(kept.into_iter().map(Ok)))
}

/// Sends what comes to one client, from any number of journals, until the client or the host goes.
pub(super) struct Pumps<T> {
    sender: mpsc::Sender<Result<T, Status>>,
    received: mpsc::Receiver<Result<T, Status>>,
    place: Arc<OwnedSemaphorePermit>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl<T: Send + 'static> Pumps<T> {
    pub(super) fn new(place: OwnedSemaphorePermit, tasks: TaskTracker, stop: CancellationToken) -> Self {
        let (sender, received) = mpsc::channel(WAITING);
        Self { sender, received, place: Arc::new(place), tasks, stop }
    }

    /// From one journal. `show` makes a message, or leaves an entry out.
    pub(super) fn add<E: Clone + Send + 'static>(
        &self,
        mut follow: Follow<E>,
        show: impl Fn(Followed<E>) -> Option<T> + Send + Sync + 'static,
    ) {
        let (sender, stop) = (self.sender.clone(), self.stop.clone());
        let place = Arc::clone(&self.place);
        self.tasks.spawn(async move {
            let _place = place;
            let pump = async {
                while let Some(followed) = follow.next().await {
                    if let Some(message) = show(followed)
                        && sender.send(Ok(message)).await.is_err()
                    {
                        return;
                    }
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    let last = sender.send(Err(Reason::HostStopping.status("the host is stopping")));
                    let _taken = tokio::time::timeout(LAST_MESSAGE, last).await;
                }
                () = sender.closed() => {}
                () = pump => {}
            }
        });
    }

    /// The stream: what was kept first.
    pub(super) fn after(self, kept: Vec<T>) -> Feed<T> {
        let kept = tokio_stream::iter(kept.into_iter().map(Ok));
        Box::pin(kept.chain(ReceiverStream::new(self.received)))
    }
}
