//! How much of what a plugin says is understood, kept and logged: a flood costs its host neither its time nor its disk.

use std::time::{Duration, Instant};

/// Bytes that may come at once.
const BURST: usize = 16 << 20;

/// Bytes that may come in each second for as long as the plugin likes.
const RATE: usize = 256 << 10;

/// What a line is counted as besides its own bytes: the rest of its event.
const EVENT_BYTES: usize = 100;

/// The allowance of one stream. It is a bucket of bytes, and one that has been emptied lets nothing through until there is
/// a second's worth in it, so that a flood comes in runs of lines which belong together.
#[derive(Debug)]
pub(super) struct Allowance {
    left: usize,
    refilled: Instant,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Flows,
    Floods { missed: u64 },
}

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is within the allowance.
    Heard,
    /// It is one of those that are too many.
    Missed,
    /// It is heard, and the first after so many that were missed.
    HeardAgain {
        /// How many.
        missed: u64,
    },
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: BURST, refilled: now, state: State::Flows }
    }

    /// Decides on a line, or a part of one, that comes now.
    pub(super) fn take(&mut self, now: Instant, bytes: usize) -> Turn {
        self.refill(now);
        let cost = bytes + EVENT_BYTES;
        match self.state {
            State::Flows if cost <= self.left => {
                self.left -= cost;
                Turn::Heard
            }
            State::Flows => {
                self.state = State::Floods { missed: 1 };
                Turn::Missed
            }
            State::Floods { missed } if self.left >= RATE => {
                self.state = State::Flows;
                self.left = self.left.saturating_sub(cost);
                Turn::HeardAgain { missed }
            }
            State::Floods { missed } => {
                self.state = State::Floods { missed: missed + 1 };
                Turn::Missed
            }
        }
    }

    /// Until when nothing will be heard; `None` if all is.
    pub(super) fn floods_until(&self) -> Option<Instant> {
        let State::Floods { .. } = self.state else { return None };
        Some(self.refilled + worth(RATE.saturating_sub(self.left)))
    }

    /// Ends a flood, and tells how many lines were missed in it.
    pub(super) fn end_flood(&mut self) -> Option<u64> {
        match std::mem::replace(&mut self.state, State::Flows) {
            State::Flows => None,
            State::Floods { missed } => Some(missed),
        }
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled);
        let bytes = (passed.as_secs_f64() * RATE as f64) as usize;
        self.left = self.left.saturating_add(bytes).min(BURST);
        // What is less than a byte is for the next time.
        self.refilled += worth(bytes);
    }
}

/// The time in which so many bytes come to be allowed.
fn worth(bytes: usize) -> Duration {
    Duration::from_secs_f64(bytes as f64 / RATE as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: usize = 156;
    const COST: usize = LINE + EVENT_BYTES;

    fn flooded(now: Instant) -> Allowance {
        let mut allowance = Allowance::new(now);
        for _ in 0..BURST / COST {
            assert_eq!(allowance.take(now, LINE), Turn::Heard);
        }
        assert_eq!(allowance.take(now, LINE), Turn::Missed);
        allowance
    }

    #[test]
    fn a_burst_is_heard_and_what_is_above_it_is_counted() {
        let start = Instant::now();
        let mut allowance = flooded(start);
        let soon = start + Duration::from_millis(999);
        assert_eq!(allowance.take(soon, LINE), Turn::Missed);
        let later = start + Duration::from_micros(1_000_001);
        assert_eq!(allowance.take(later, LINE), Turn::HeardAgain { missed: 2 });
        for _ in 1..RATE / COST {
            assert_eq!(allowance.take(later, LINE), Turn::Heard);
        }
        assert_eq!(allowance.take(later, LINE), Turn::Missed);
    }

    #[test]
    fn whoever_stays_within_the_rate_is_always_heard() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        // Each line when it is paid for, for an hour.
        let pause = Duration::from_secs(1) * COST as u32 / RATE as u32;
        for number in 0..3_600 * (RATE / COST) as u32 {
            assert_eq!(allowance.take(start + pause * number, LINE), Turn::Heard);
        }
    }

    #[test]
    fn a_flood_that_has_ended_is_told_once() {
        let start = Instant::now();
        let mut allowance = flooded(start);
        let until = allowance.floods_until().expect("it floods");
        assert!(until > start + Duration::from_millis(990) && until <= start + Duration::from_secs(1));
        assert_eq!(allowance.end_flood(), Some(1));
        assert_eq!((allowance.floods_until(), allowance.end_flood()), (None, None));
    }

    #[test]
    fn a_line_longer_than_a_second_s_worth_does_not_stop_the_stream_for_ever() {
        let start = Instant::now();
        let mut allowance = flooded(start);
        let later = start + Duration::from_micros(1_000_001);
        assert_eq!(allowance.take(later, 2 * RATE), Turn::HeardAgain { missed: 1 });
    }
}
