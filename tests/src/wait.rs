//! Waiting for conditions, with a limit.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take: far more than it does, since test machines are slow now and then.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Waits until `condition` holds. `what` completes "waited in vain for ...".
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// Waits until `find` gives something.
#[track_caller]
pub fn wait_for<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {LIMIT:?} in vain for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
