//! When lookups are no longer sent to a plugin that takes them and does not answer. The supervisor's channel sees the
//! stream alone, which is open all the while.
//!
//! Nothing is remembered of a batch that was sent to see whether the plugin answers again. So there is none whose fate,
//! whatever it is, decides whether the next one is sent.

use std::time::Duration;

use tokio::time::Instant;

/// Batches in a row without an answer in time, after which the line rests.
const MISSES: u32 = 3;

/// How long it rests before one batch is sent to see, and then another.
pub(super) const REST: Duration = Duration::from_secs(1);

/// Whether to send lookups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    Trusting {
        misses: u32,
    },
    /// One batch is let through then.
    Resting {
        until: Instant,
    },
}

impl Patience {
    pub(super) const NEW: Self = Self::Trusting { misses: 0 };

    /// Whether a batch may be sent now. If so, it is sent.
    pub(super) fn admits(&mut self, now: Instant) -> bool {
        match *self {
            Self::Trusting { .. } => true,
            Self::Resting { until } if until <= now => {
                *self = Self::Resting { until: now + REST };
                true
            }
            Self::Resting { .. } => false,
        }
    }

    /// Whether lookups are sent as they come.
    pub(super) fn is_trusting(self) -> bool {
        matches!(self, Self::Trusting { .. })
    }

    /// So many batches were not answered in time. Says whether the line rests from now on.
    pub(super) fn missed(&mut self, batches: u32, now: Instant) -> bool {
        let misses = match *self {
            _ if batches == 0 => return false,
            Self::Trusting { misses } => misses.saturating_add(batches),
            Self::Resting { .. } => MISSES,
        };
        let rests = misses >= MISSES;
        *self = if rests { Self::Resting { until: now + REST } } else { Self::Trusting { misses } };
        rests
    }

    /// The plugin was heard of.
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
            assert_eq!(patience.missed(1, now), batch == MISSES);
        }
        patience
    }

    #[test]
    fn line_rests_after_misses_in_a_row_only() {
        let now = Instant::now();
        let mut patience = Patience::NEW;
        for _ in 0..3 {
            for _ in 1..MISSES {
                assert!(!patience.missed(1, now));
            }
            patience.restore();
        }
        assert!(patience.admits(now));
        assert!(
            !patience.missed(MISSES - 1, now) && patience.missed(1, now),
            "those of one moment count as one by one"
        );
        assert!(!resting(now).admits(now));
    }

    #[test]
    fn one_batch_decides_whether_the_rest_is_over() {
        let now = Instant::now();
        let mut patience = resting(now);
        assert!(!patience.missed(0, now + REST / 2));
        assert!(!patience.admits(now + REST / 2));
        assert!(patience.admits(now + REST));
        assert!(!patience.admits(now + REST));
        assert!(patience.missed(1, now + REST * 3 / 2));
        assert!(!patience.admits(now + REST * 2));
        assert!(patience.admits(now + REST * 5 / 2));
        assert!(!patience.is_trusting());
        patience.restore();
        assert!(patience.admits(now) && patience.is_trusting());
    }

    #[test]
    fn batch_of_which_nothing_is_ever_heard_ends_nothing() {
        let now = Instant::now();
        let mut patience = resting(now);
        for rests in 1..5 {
            assert!(patience.admits(now + REST * rests));
        }
    }
}
