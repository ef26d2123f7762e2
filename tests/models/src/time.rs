//! Time, of which shuttle decides.

use std::future::Future;
use std::time::Duration;

pub use real_tokio::time::Instant;
use shuttle::future;

/// A limit that is reached at any moment, or not at all. Any other is never reached.
pub const ANY_MOMENT: Duration = Duration::ZERO;

/// The limit was reached.
#[derive(Debug)]
pub struct Elapsed;

/// Runs `future` up to the limit.
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    if limit != ANY_MOMENT {
        return Ok(future.await);
    }
    real_tokio::select! {
        biased;
        output = future => Ok(output),
        // Until it is this task's turn again.
        () = future::yield_now() => Err(Elapsed),
    }
}
