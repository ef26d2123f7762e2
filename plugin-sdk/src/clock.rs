//! Points in time from durations that a user has set, where `Duration::MAX` means that there is no limit.

use std::time::Duration;

use tokio::time::Instant;

/// As good as never, and no overflow; tokio's own choice.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// The point in time when `duration` has passed from now on.
pub(crate) fn after(duration: Duration) -> Instant {
    later(Instant::now(), duration)
}

/// The point in time `by` after `instant`, or a far one if no clock can hold it.
pub(crate) fn later(instant: Instant, by: Duration) -> Instant {
    instant.checked_add(by).unwrap_or_else(|| instant + FAR)
}
