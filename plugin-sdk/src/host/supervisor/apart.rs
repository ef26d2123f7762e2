//! Runs what the application has given to a supervisor, so that its mistakes do not end the supervisor.

use std::time::Duration;

use tokio::task::JoinSet;

/// Why there is no outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoOutcome {
    TimedOut,
    Panicked,
}

/// Waits for `work` in a task of its own, for `limit` at most. Ends it when it is dropped.
pub(super) async fn apart<T: Send + 'static>(
    limit: Duration,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, NoOutcome> {
    let mut task = JoinSet::new();
    task.spawn(work);
    match tokio::time::timeout(limit, task.join_next()).await {
        Ok(Some(Ok(outcome))) => Ok(outcome),
        // Nobody else ends it.
        Ok(_) => Err(NoOutcome::Panicked),
        Err(_) => Err(NoOutcome::TimedOut),
    }
}
