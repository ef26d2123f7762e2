//! Waiting for conditions, with a limit: never a sleep that is hoped to be long enough.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take: far more than it does, since test machines are slow now and then.
pub const LIMIT: Duration = Duration::from_secs(30);

/// How long to rest between two looks at a condition.
const INTERVAL: Duration = Duration::from_millis(5);

/// Waits until `condition` holds, without blocking the thread. `what` says it in words.
///
/// The limit is one of the run time's clock: where that is paused, waiting takes no time.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let begun = std::time::Instant::now();
/// plugin_testkit::until("a while has passed", async || begun.elapsed().as_millis() > 10).await;
/// # }
/// ```
///
/// # Panics
/// It does not hold within [`LIMIT`].
pub async fn until(what: &str, condition: impl AsyncFnMut() -> bool) {
    assert!(holds_in_time(condition).await, "not within {LIMIT:?}: {what}");
}

/// Whether `condition` comes to hold within [`LIMIT`].
pub(crate) async fn holds_in_time(mut condition: impl AsyncFnMut() -> bool) -> bool {
    let reached = tokio::time::timeout(LIMIT, async {
        while !condition().await {
            tokio::time::sleep(INTERVAL).await;
        }
    });
    reached.await.is_ok()
}

/// Waits until `condition` holds, in a test without a run time. `what` completes "waited in vain for ...".
///
/// # Panics
/// It does not hold within [`LIMIT`].
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// Waits until `find` gives something, in a test without a run time.
///
/// ```
/// let mut looks = 0;
/// let found = plugin_testkit::wait::wait_for("the third look", || {
///     looks += 1;
///     (looks == 3).then_some(looks)
/// });
/// assert_eq!(found, 3);
/// ```
///
/// # Panics
/// It gives nothing within [`LIMIT`].
#[track_caller]
pub fn wait_for<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {LIMIT:?} in vain for {what}");
        thread::sleep(INTERVAL);
    }
}
