//! Looks for the other side's next message instead of sleeping until it comes, for as long as that pays.
//!
//! To be put to sleep and woken costs each of two processes that take turns more than all else of a short call: most of it is the core
//! that has gone idle meanwhile. The kernel does the same for network devices and calls it busy polling (`SO_BUSY_POLL`).
//!
//! It takes nothing from others: each look lets all other tasks go first, and all other threads that want the core. And it ends
//! by itself: who answers slowly, or asks seldom, is looked for ever more rarely. So is everybody where the core is wanted by threads
//! that do not give it back soon, as it is this process that would pay for each look then.

use std::ffi::OsStr;
use std::pin::pin;
use std::sync::LazyLock;
use std::task::Context;
use std::thread;
use std::time::{Duration, Instant};

use tokio::task;

/// Operators turn it off by `off`, for a host and all plugins that it starts, or for one plugin.
pub(crate) const VARIABLE: &str = "PLUGIN_BUSY_POLL";

/// How long a message is looked for. One call of a client that has nothing else to do takes this long where both sides sleep; it
/// takes a quarter where neither does.
const MOMENT: Duration = Duration::from_micros(100);

/// Messages in a row that did not come within their moment, after which it does not pay.
const TRIES: u32 = 8;

/// Writes after which it is tried again, at first; twice as many each time that it does not pay either.
const FEWEST_SKIPPED: u32 = 16;
const MOST_SKIPPED: u32 = 4096;

/// Who gives the core away for longer has given it to a thread that computes: the scheduler takes it back after some milliseconds.
/// Those who take part in a call have it for a fraction of this.
const LOST: Duration = Duration::from_micros(500);

/// As many answers in time save what such a look costs. So many writes are skipped after one, and twice as many after each that comes
/// before [`MOST_SKIPPED`] answers in time: a core that is wanted all the time is never idle, and to sleep costs nothing there.
const FEWEST_SKIPPED_AFTER_LOSS: u32 = 64;

/// Of one socket.
#[derive(Debug)]
pub(crate) struct BusyPoll {
    state: State,
    tries: u32,
    next_skipped: u32,
    next_skipped_after_loss: u32,
    /// Answers in time since the core was lost.
    in_time: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Off,
    /// Nothing was written since the last message.
    Quiet,
    /// A message may be the answer to what was written.
    Looking {
        since: Instant,
    },
    /// It did not pay, and is not tried with so many writes.
    Skipping {
        writes: u32,
    },
}

impl BusyPoll {
    /// As the environment of this process says.
    pub(crate) fn new() -> Self {
        static IS_ON: LazyLock<bool> =
            LazyLock::new(|| std::env::var_os(VARIABLE).is_none_or(|value| is_on(&value)));
        Self::in_state(if *IS_ON { State::Quiet } else { State::Off })
    }

    fn in_state(state: State) -> Self {
        Self {
            state,
            tries: 0,
            next_skipped: FEWEST_SKIPPED,
            next_skipped_after_loss: FEWEST_SKIPPED_AFTER_LOSS,
            in_time: 0,
        }
    }

    /// Something was written. The task is polled again if an answer is to be looked for.
    pub(crate) fn written(&mut self, cx: &mut Context<'_>) {
        if self.starts(Instant::now) {
            after_all_others(cx);
        }
    }

    /// There is nothing to read. The task is polled again if that may change at any moment.
    pub(crate) fn nothing_yet(&mut self, cx: &mut Context<'_>) {
        if self.goes_on(Instant::now) {
            let given_away = Instant::now();
            thread::yield_now();
            self.had_core_back(given_away.elapsed());
            after_all_others(cx);
        }
    }

    /// Something was read.
    pub(crate) fn read(&mut self) {
        self.ends(Instant::now);
    }

    fn starts(&mut self, now: impl FnOnce() -> Instant) -> bool {
        self.state = match self.state {
            State::Off => State::Off,
            State::Skipping { writes: writes @ 1.. } => State::Skipping { writes: writes - 1 },
            State::Skipping { writes: 0 } | State::Quiet => State::Looking { since: now() },
            // From the first on that has no answer: to write and write is not to be answered.
            looking @ State::Looking { .. } => looking,
        };
        matches!(self.state, State::Looking { .. })
    }

    fn goes_on(&mut self, now: impl FnOnce() -> Instant) -> bool {
        let State::Looking { since } = self.state else { return false };
        let goes_on = is_in_time(since, now());
        if !goes_on {
            self.was_in_vain();
        }
        goes_on
    }

    fn ends(&mut self, now: impl FnOnce() -> Instant) {
        let State::Looking { since } = self.state else { return };
        if is_in_time(since, now()) {
            (self.state, self.tries, self.next_skipped) = (State::Quiet, 0, FEWEST_SKIPPED);
            self.in_time = self.in_time.saturating_add(1);
            if self.in_time >= MOST_SKIPPED {
                self.next_skipped_after_loss = FEWEST_SKIPPED_AFTER_LOSS;
            }
        } else {
            // Others had the core meanwhile, so that it was not idle and nothing was saved.
            self.was_in_vain();
        }
    }

    fn had_core_back(&mut self, after: Duration) {
        if after >= LOST {
            self.state = State::skipping(&mut self.next_skipped_after_loss);
            self.in_time = 0;
        }
    }

    fn was_in_vain(&mut self) {
        self.state = State::Quiet;
        self.tries += 1;
        if self.tries == TRIES {
            self.state = State::skipping(&mut self.next_skipped);
            self.tries = 0;
        }
    }
}

impl State {
    /// So many writes are skipped now, and twice as many the next time.
    fn skipping(next: &mut u32) -> Self {
        let writes = *next;
        *next = (writes * 2).min(MOST_SKIPPED);
        Self::Skipping { writes }
    }
}

fn is_in_time(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < MOMENT
}

fn is_on(value: &OsStr) -> bool {
    value != "off"
}

/// Has the task polled again once all others have been that can go on, and the operating system was asked for news.
fn after_all_others(cx: &mut Context<'_>) {
    _ = pin!(task::yield_now()).poll(cx);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SOON: Duration = Duration::from_micros(20);
    const LATE: Duration = Duration::from_millis(3);

    fn quiet() -> BusyPoll {
        BusyPoll::in_state(State::Quiet)
    }

    /// Writes, and has the answer after `wait`. Whether it was looked for.
    fn call(poll: &mut BusyPoll, clock: &mut Instant, wait: Duration) -> bool {
        let is_looking = poll.starts(|| *clock);
        *clock += wait;
        let goes_on = poll.goes_on(|| *clock);
        assert!(!goes_on || is_looking);
        poll.ends(|| *clock);
        is_looking
    }

    #[test]
    fn next_message_is_looked_for_only_after_a_write_and_for_a_moment() {
        let (mut poll, now) = (quiet(), Instant::now());
        assert!(!poll.goes_on(|| now), "nothing was asked");
        assert!(poll.starts(|| now));
        assert!(poll.goes_on(|| now + MOMENT / 2));
        assert!(!poll.goes_on(|| now + MOMENT));
        assert!(!poll.goes_on(|| now + MOMENT / 2), "it has ended");
        assert!(poll.starts(|| now));
        poll.ends(|| now + SOON);
        assert!(!poll.goes_on(|| now + SOON), "the answer is here");
    }

    #[test]
    fn who_takes_turns_quickly_is_looked_for_every_time() {
        let (mut poll, mut clock) = (quiet(), Instant::now());
        assert!((0..10_000).all(|_| call(&mut poll, &mut clock, SOON)));
    }

    #[test]
    fn who_answers_slowly_is_hardly_looked_for_and_is_again_once_he_is_quick() {
        let (mut poll, mut clock) = (quiet(), Instant::now());
        let mut looked_for =
            |calls: u32, wait: Duration| (0..calls).filter(|_| call(&mut poll, &mut clock, wait)).count();
        assert!(looked_for(10_000, LATE) <= 80);
        // Of a thousand calls eight cost a moment: less than a microsecond for each.
        assert!(looked_for(100_000, LATE) <= 200);
        looked_for(MOST_SKIPPED, SOON);
        assert_eq!(looked_for(1000, SOON), 1000);
    }

    #[test]
    fn answer_that_was_late_counts_as_in_vain_though_nobody_had_looked_in_between() {
        let (mut poll, now) = (quiet(), Instant::now());
        for _ in 0..TRIES {
            assert!(poll.starts(|| now));
            // Another process had the core.
            poll.ends(|| now + LATE);
        }
        assert!(!poll.starts(|| now));
    }

    /// So many calls are answered in time, but each so manieth look loses the core. How often it does.
    fn losses(poll: &mut BusyPoll, calls: u32, each: u32) -> u32 {
        let mut clock = Instant::now();
        let (mut looks, mut lost) = (0, 0);
        for _ in 0..calls {
            if poll.starts(|| clock) && poll.goes_on(|| clock) {
                looks += 1;
                if looks % each == 0 {
                    poll.had_core_back(LATE);
                    lost += 1;
                }
            }
            clock += SOON;
            poll.ends(|| clock);
        }
        lost
    }

    #[test]
    fn core_that_others_want_is_hardly_given_away_though_answers_come_in_time() {
        let mut poll = quiet();
        let lost = losses(&mut poll, 100_000, 3);
        assert!((20..=40).contains(&lost), "{lost}");
    }

    #[test]
    fn core_that_is_lost_now_and_then_is_given_away_as_before() {
        let mut poll = quiet();
        // After each loss 64 calls are not looked for.
        let lost = losses(&mut poll, 100_000, 5_000);
        assert!((18..=20).contains(&lost), "{lost}");
    }

    #[test]
    fn core_that_was_wanted_by_others_is_given_away_again_once_it_is_not() {
        let mut poll = quiet();
        losses(&mut poll, 100_000, 3);
        losses(&mut poll, 3 * MOST_SKIPPED, u32::MAX);
        assert_eq!(losses(&mut poll, 1_000, 1_000 - FEWEST_SKIPPED_AFTER_LOSS), 1);
        assert_eq!(poll.next_skipped_after_loss, FEWEST_SKIPPED_AFTER_LOSS * 2);
    }

    #[test]
    fn who_is_written_to_and_never_answers_is_hardly_looked_for() {
        let (mut poll, mut clock) = (quiet(), Instant::now());
        let mut looks = 0;
        for _ in 0..100_000 {
            poll.starts(|| clock);
            clock += MOMENT / 4;
            looks += u32::from(poll.goes_on(|| clock));
        }
        assert!(looks <= 1000, "{looks}");
    }

    #[test]
    fn off_is_off_and_asks_for_no_time() {
        let mut poll = BusyPoll::in_state(State::Off);
        let never = || -> Instant { unreachable!("the clock is read") };
        for _ in 0..100 {
            assert!(!poll.starts(never));
            assert!(!poll.goes_on(never));
            poll.ends(never);
        }
        assert!(!is_on(OsStr::new("off")));
        assert!(is_on(OsStr::new("on")));
    }

    proptest! {
        /// What it costs to look in vain is bounded by what looking has brought before, and by the number of writes.
        #[test]
        fn looking_in_vain_is_bounded(waits in prop::collection::vec(0_u64..300, 0..3000)) {
            let (mut poll, mut clock) = (quiet(), Instant::now());
            let (mut in_time, mut in_vain) = (0_usize, 0_usize);
            for wait in &waits {
                let wait = Duration::from_micros(*wait);
                if call(&mut poll, &mut clock, wait) {
                    if wait < MOMENT { in_time += 1 } else { in_vain += 1 }
                }
            }
            let tries = TRIES as usize;
            prop_assert!(in_vain <= tries * (in_time + 1) + waits.len() / 2, "{in_vain} in vain, {in_time} in time");
        }
    }
}
