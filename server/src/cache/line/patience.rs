//! When lookups are no longer sent to a plugin that takes them and does not answer. The supervisor's channel sees the
//! stream alone, which is open all the while.

use std::time::Duration;

use tokio::time::Instant;

/// Batches in a row without an answer in time, after which the line rests.
const MISSES: u32 = 3;

/// How long it rests before one batch is sent to see.
const REST: Duration = Duration::from_secs(1);

/// Whether to send lookups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    Trusting {
        misses: u32,
    },
    Resting {
        until: Instant,
    },
    /// One batch is on its way; its answer decides.
    Trying,
}

impl Patience {
    pub(super) const NEW: Self = Self::Trusting { misses: 0 };

    /// Whether a batch may be sent now. If so, it is sent.
    pub(super) fn admits(&mut self, now: Instant) -> bool {
        match *self {
            Self::Trusting { .. } => true,
            Self::Resting { until } if until <= now => {
                *self = Self::Trying;
                true
            }
            Self::Resting { .. } | Self::Trying => false,
        }
    }

    /// Whether lookups are sent as they come.
    pub(super) fn is_trusting(self) -> bool {
        matches!(self, Self::Trusting { .. })
    }

    /// A batch was not answered in time. Says whether the line rests from now on.
    pub(super) fn missed(&mut self, now: Instant) -> bool {
        match *self {
            Self::Trusting { misses } if misses + 1 < MISSES => {
                *self = Self::Trusting { misses: misses + 1 };
                false
            }
            Self::Resting { .. } => false,
            Self::Trusting { .. } | Self::Trying => {
                *self = Self::Resting { until: now + REST };
                true
            }
        }
    }

    /// A batch was answered in time, or the line is another one now.
    pub(super) fn restore(&mut self) {
        *self = Self::NEW;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resting(now: Instant) -> Patience {
        let mut patience = Patience::NEW;
        for batch in 1..=MISSES {
            assert!(patience.admits(now));
            assert_eq!(patience.missed(now), batch == MISSES);
        }
        patience
    }

    #[test]
    fn line_rests_after_misses_in_a_row_only() {
        let now = Instant::now();
        let mut patience = Patience::NEW;
        for _ in 0..3 {
            for _ in 1..MISSES {
                assert!(!patience.missed(now));
            }
            patience.restore();
        }
        assert!(patience.admits(now));
        assert!(!resting(now).admits(now));
    }

    #[test]
    fn one_batch_decides_whether_the_rest_is_over() {
        let now = Instant::now();
        let mut patience = resting(now);
        // One that was sent before.
        assert!(!patience.missed(now));
        assert!(!patience.admits(now + REST / 2));
        assert!(patience.admits(now + REST));
        assert!(!patience.admits(now + REST));
        assert!(patience.missed(now + REST));
        assert!(!patience.admits(now + REST));
        assert!(patience.admits(now + REST * 2));
        patience.restore();
        assert!(patience.admits(now) && patience.is_trusting());
    }
}
