//! A circuit breaker: after several calls in a row without an answer, calls fail at once for a while, and then one is
//! let through to see.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Failed calls in a row that open the breaker.
const FAILURES: u32 = 5;

/// How long it stays open.
const REST: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Breaker {
    /// Whether the state is anything but closed without failures: calls that succeed then need no lock.
    troubled: AtomicBool,
    /// Locked for a comparison or two.
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
    },
    /// One call is on its way.
    HalfOpen,
}

/// A call that is let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    Normal,
    /// The one that decides whether others are let through again.
    Trial,
}

/// What a call's end has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Opened,
    Closed,
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self { troubled: AtomicBool::new(false), state: Mutex::new(State::Closed { failures: 0 }) }
    }

    /// Whether a call may be made.
    pub(super) fn admit(&self, now: Instant) -> Option<Admission> {
        if !self.troubled.load(Ordering::Acquire) {
            return Some(Admission::Normal);
        }
        let mut state = self.state();
        match *state {
            State::Closed { .. } => Some(Admission::Normal),
            State::Open { until } if now >= until => {
                *state = State::HalfOpen;
                Some(Admission::Trial)
            }
            State::Open { .. } | State::HalfOpen => None,
        }
    }

    /// Notes that a call was answered, in whatever way.
    pub(super) fn answered(&self, admission: Admission) -> Change {
        if !self.troubled.load(Ordering::Acquire) {
            return Change::None;
        }
        let mut state = self.state();
        match (*state, admission) {
            (State::Closed { .. }, _) | (State::HalfOpen, Admission::Trial) => {
                let closed = *state == State::HalfOpen;
                *state = State::Closed { failures: 0 };
                self.troubled.store(false, Ordering::Release);
                if closed { Change::Closed } else { Change::None }
            }
            // From before it opened.
            _ => Change::None,
        }
    }

    /// Notes that a call got no answer.
    pub(super) fn failed(&self, admission: Admission, now: Instant) -> Change {
        let mut state = self.state();
        self.troubled.store(true, Ordering::Release);
        match (*state, admission) {
            (State::Closed { failures }, _) if failures + 1 < FAILURES => {
                *state = State::Closed { failures: failures + 1 };
                Change::None
            }
            (State::Closed { .. }, _) => {
                *state = State::Open { until: now + REST };
                Change::Opened
            }
            (State::HalfOpen, Admission::Trial) => {
                *state = State::Open { until: now + REST };
                Change::None
            }
            _ => Change::None,
        }
    }

    /// Notes that nobody waited for the call's end. The next one is the trial, if it was.
    pub(super) fn given_up(&self, admission: Admission, now: Instant) {
        if admission == Admission::Trial {
            let mut state = self.state();
            if *state == State::HalfOpen {
                *state = State::Open { until: now };
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(now: Instant) -> Breaker {
        let breaker = Breaker::new();
        for call in 1..=FAILURES {
            let change = breaker.failed(breaker.admit(now).unwrap(), now);
            assert_eq!(change == Change::Opened, call == FAILURES);
        }
        breaker
    }

    #[tokio::test]
    async fn it_opens_after_failures_in_a_row_only() {
        let now = Instant::now();
        let breaker = Breaker::new();
        for _ in 0..3 {
            for _ in 1..FAILURES {
                assert_eq!(breaker.failed(Admission::Normal, now), Change::None);
            }
            assert_eq!(breaker.answered(Admission::Normal), Change::None);
        }
        assert_eq!(breaker.admit(now), Some(Admission::Normal));
        assert_eq!(opened(now).admit(now), None);
    }

    #[tokio::test]
    async fn one_call_decides_whether_it_closes() {
        let now = Instant::now();
        let breaker = opened(now);
        let later = now + REST;
        assert_eq!(breaker.admit(later), Some(Admission::Trial));
        assert_eq!(breaker.admit(later), None);
        // A call from before has no say.
        assert_eq!(breaker.answered(Admission::Normal), Change::None);
        assert_eq!(breaker.failed(Admission::Trial, later), Change::None);
        assert_eq!(breaker.admit(later), None);
        let later = later + REST;
        assert_eq!(breaker.admit(later), Some(Admission::Trial));
        assert_eq!(breaker.answered(Admission::Trial), Change::Closed);
        assert_eq!(breaker.admit(later), Some(Admission::Normal));
    }

    #[tokio::test]
    async fn a_trial_that_nobody_waits_for_is_replaced_by_the_next_call() {
        let now = Instant::now();
        let breaker = opened(now);
        let later = now + REST;
        assert_eq!(breaker.admit(later), Some(Admission::Trial));
        breaker.given_up(Admission::Trial, later);
        assert_eq!(breaker.admit(later), Some(Admission::Trial));
    }
}
