//! How long to wait before the next start.

use std::time::Duration;

/// Delays between starts that fail, one after the other.
///
/// Exponential ones double from attempt to attempt up to a limit, and of each only a random part is waited ("full
/// jitter"), so that many hosts whose plugins fail for one common reason do not start them all at the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    jitter: bool,
}

impl Backoff {
    /// A random part of `initial`, then of twice as much, and so on up to `max`.
    #[must_use]
    pub const fn exponential(initial: Duration, max: Duration) -> Self {
        Self { initial, max, jitter: true }
    }

    /// Always the same delay, all of it.
    #[must_use]
    pub const fn constant(delay: Duration) -> Self {
        Self { initial: delay, max: delay, jitter: false }
    }

    /// The delay before attempt `attempt`, counted from 1; `roll` is a random number in `0.0..=1.0`.
    pub(crate) fn delay(&self, attempt: u32, roll: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(MAX_DOUBLINGS);
        let limit = self.initial.saturating_mul(1 << doublings).min(self.max);
        let part = if self.jitter { roll.clamp(0.0, 1.0) } else { 1.0 };
        // What an f64 cannot hold is longer than anybody waits.
        Duration::try_from_secs_f64(limit.as_secs_f64() * part).unwrap_or(limit)
    }
}

/// Enough to get from a nanosecond to a second; beyond it only `max` counts.
const MAX_DOUBLINGS: u32 = 30;

/// 100 ms to 30 s: the first restarts are not noticed, and the later ones cost nothing.
impl Default for Backoff {
    fn default() -> Self {
        Self::exponential(Duration::from_millis(100), Duration::from_secs(30))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit_and_jitter_takes_a_part() {
        let backoff = Backoff::default();
        for (attempt, roll, millis) in [
            (1, 1.0, 100),
            (2, 1.0, 200),
            (2, 0.5, 100),
            (5, 1.0, 1_600),
            (9, 1.0, 25_600),
            (10, 1.0, 30_000),
        ] {
            assert_eq!(backoff.delay(attempt, roll), Duration::from_millis(millis), "{attempt} {roll}");
        }
        assert_eq!(backoff.delay(u32::MAX, 1.0), Duration::from_secs(30));
        assert_eq!(backoff.delay(3, 0.0), Duration::ZERO);
        assert_eq!(Backoff::exponential(Duration::MAX, Duration::MAX).delay(9, 1.0), Duration::MAX);
    }

    #[test]
    fn a_constant_delay_has_no_jitter() {
        let backoff = Backoff::constant(Duration::from_millis(50));
        for attempt in [0, 1, 7, u32::MAX] {
            assert_eq!(backoff.delay(attempt, 0.1), Duration::from_millis(50));
        }
    }
}
