//! Patience with lookups that are made alone, each by its request. No I/O; time is an argument.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::patience::Patience;

/// With the instance that was asked last. Locked for a comparison or two.
#[derive(Debug)]
pub(super) struct LonePatience(Mutex<(Option<u64>, Patience)>);

impl Default for LonePatience {
    fn default() -> Self {
        Self(Mutex::new((None, Patience::NEW)))
    }
}

impl LonePatience {
    /// Whether this instance may be asked. If so, it is asked.
    pub(super) fn admits(&self, instance: Option<u64>, now: Instant) -> bool {
        let mut state = self.state();
        if state.0 != instance {
            *state = (instance, Patience::NEW);
        }
        state.1.admits(now)
    }

    /// Whether this instance is left alone.
    pub(super) fn rests(&self, instance: Option<u64>) -> bool {
        let state = self.state();
        state.0 == instance && !state.1.is_trusting()
    }

    /// This instance has not answered in time. Says whether it is left alone from now on.
    pub(super) fn missed(&self, instance: Option<u64>, now: Instant) -> bool {
        let mut state = self.state();
        // A late word of an old one says nothing of its successor. Whoever waits for an instance to start has asked none.
        instance.is_some() && state.0 == instance && state.1.missed(1, now)
    }

    /// This instance was heard of.
    pub(super) fn heard(&self, instance: Option<u64>) {
        let mut state = self.state();
        if state.0 == instance {
            state.1.restore();
        }
    }

    fn state(&self) -> MutexGuard<'_, (Option<u64>, Patience)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::patience::REST, *};

    #[test]
    fn instance_is_left_alone_for_its_own_misses_only() {
        let (patience, now) = (LonePatience::default(), Instant::now());
        for miss in 1..=3 {
            assert!(patience.admits(Some(1), now));
            assert_eq!(patience.missed(Some(1), now), miss == 3);
        }
        assert!(patience.rests(Some(1)) && !patience.admits(Some(1), now));
        assert!(patience.admits(Some(1), now + REST), "it is tried again");
        assert!(patience.rests(Some(1)), "until it answers");
        assert!(!patience.rests(Some(2)) && patience.admits(Some(2), now));
        for _ in 0..3 {
            assert!(!patience.missed(Some(1), now), "they are not the new one's");
        }
        assert!(patience.admits(Some(2), now));
    }

    #[test]
    fn instance_that_is_heard_of_is_asked() {
        let (patience, now) = (LonePatience::default(), Instant::now());
        assert!(patience.admits(Some(1), now));
        while !patience.missed(Some(1), now) {}
        patience.heard(Some(1));
        assert!(patience.admits(Some(1), now) && !patience.rests(Some(1)));
    }
}
