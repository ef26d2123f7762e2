//! Tasks of shuttle that are waited for as tokio-util does it.

use std::future::Future;

use real_tokio_util::task;
use shuttle::future;

/// Tasks that can be waited for.
#[derive(Debug)]
pub struct TaskTracker(task::TaskTracker);

impl TaskTracker {
    /// None yet.
    #[allow(clippy::new_without_default, reason = "as tokio-util has it")]
    pub fn new() -> Self {
        Self(task::TaskTracker::new())
    }

    /// Starts one, that runs to its end.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        future::spawn(self.0.track_future(task));
    }

    /// Lets [`wait`](Self::wait) end.
    pub fn close(&self) {
        self.0.close();
    }

    /// Ends once all have ended, if this is closed.
    pub async fn wait(&self) {
        self.0.wait().await;
    }
}
