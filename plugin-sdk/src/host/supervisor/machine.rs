//! The supervisor's decisions: a function of what happens, of the policy, of the time and of one random number. Starts
//! and stops nothing itself.
//!
//! ```text
//!  Starting ──started──▶ Running ──ended──▶ Starting (after a stable run) or BackingOff
//!     └──failed──▶ BackingOff ──timer──▶ Starting
//!     └──unwell, file away──▶ BackingOff, however often
//!     └──failed too often, or for good──▶ GaveUp ──operator, changed file──▶ Starting
//!  Starting, Running ──order──▶ Stopping ──gone──▶ Starting, Stopped or Disabled
//!  Stopped, BackingOff, GaveUp ──trial──▶ Starting ──failed──▶ as before
//! ```
//!
//! The word `Running` stands for the states `Serving` and `Degraded`, which are the same to all that is decided here.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::policy::{Restart, RestartPolicy};
use super::state::{GiveUpReason, StopReason};
use crate::clock::later;

/// Where a plugin is in its life, as far as decisions go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Starting,
    Running {
        since: Instant,
    },
    /// What was running, or being started, is being ended.
    Stopping(Then),
    BackingOff {
        retry_at: Instant,
    },
    GaveUp(GiveUpReason),
    Stopped(StopReason),
    Disabled,
}

impl Phase {
    /// Whether somebody wants no instance, or nobody needs one.
    pub(super) fn is_unwanted(self) -> bool {
        match self {
            Self::Stopping(then) => then != Then::Start,
            Self::Stopped(reason) => reason != StopReason::Policy,
            Self::Disabled => true,
            Self::Starting | Self::Running { .. } | Self::BackingOff { .. } | Self::GaveUp(_) => false,
        }
    }
}

/// What comes after a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    Start,
    Rest(StopReason),
    Disable,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// The instance that was being started serves.
    Started,
    /// It does not; `permanent` if another start is bound to fail in the same way.
    StartFailed { permanent: bool },
    /// It does not, though it has started as it should: it says itself that it cannot work for now.
    StartedUnwell,
    /// It does not: its file, which was there before, is not there now, or not all of it. That of a new version may be on its way.
    FileAway,
    /// The instance that was running has ended, or was killed for not answering.
    Ended { success: bool },
    /// What was being ended has ended.
    Gone,
    /// Another instance has taken over from the one that was running.
    Swapped,
    /// The instance that was running has ended while another was being started to take over.
    Replaced,
    /// Time has passed; [`Machine::timer`] says when that is of interest.
    Timer,
    /// The executable's file has changed.
    FileChanged,
    /// A call wants a plugin that rests.
    Wanted,
    /// Nobody has called for long.
    Idle,
    /// An instance of something else is to be started, though none runs. If it fails, all is as before.
    Trial,
    /// Somebody decides.
    Order(Order),
}

/// What an operator can decide, but for a swap, which changes no phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Start,
    Stop,
    Restart,
    Enable,
    Disable,
    /// Forgets all failures.
    Clear,
}

impl Order {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Enable => "enable",
            Self::Disable => "disable",
            Self::Clear => "clear",
        }
    }
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Nothing,
    /// Begin to start an instance. There is none.
    Start,
    /// End the instance that runs or is being started; [`Input::Gone`] has to follow.
    End,
}

/// An order that cannot be followed: the plugin is disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Disabled;

#[derive(Debug)]
pub(super) struct Machine {
    policy: RestartPolicy,
    phase: Phase,
    /// Starts in a row that did not get the plugin to serve, or to say that it cannot yet.
    barren: u32,
    /// Delays in a row, since the last stable run.
    attempts: u32,
    /// When the latest restarts began, as far as the intensity limit looks back.
    restarts: VecDeque<Instant>,
    /// During a trial: where it leads to if it fails.
    before_trial: Option<Phase>,
}

impl Machine {
    /// A plugin that rests. What starts it is an order, or a call.
    pub(super) fn new(policy: RestartPolicy) -> Self {
        let phase = Phase::Stopped(StopReason::NotNeeded);
        Self { policy, phase, barren: 0, attempts: 0, restarts: VecDeque::new(), before_trial: None }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// Which start it is of those in a row that have failed, counted from 1.
    pub(super) fn attempt(&self) -> u32 {
        match self.before_trial {
            Some(_) => 1,
            None => self.barren.max(self.attempts).saturating_add(1),
        }
    }

    /// When [`Input::Timer`] is due.
    pub(super) fn timer(&self) -> Option<Instant> {
        match self.phase {
            Phase::BackingOff { retry_at } => Some(retry_at),
            _ => None,
        }
    }

    /// Takes one step. `roll` is a random number in `0.0..=1.0`.
    pub(super) fn on(&mut self, input: Input, now: Instant, roll: f64) -> Result<Act, Disabled> {
        let act = match (self.phase, input) {
            (_, Input::Order(order)) => return self.obey(order),
            (Phase::Starting, Input::Started) => {
                if self.before_trial.take().is_some() {
                    self.forget();
                }
                self.barren = 0;
                self.phase = Phase::Running { since: now };
                Act::Nothing
            }
            (Phase::Starting, Input::StartFailed { .. } | Input::StartedUnwell | Input::FileAway)
                if let Some(before) = self.before_trial.take() =>
            {
                self.rest(before)
            }
            (Phase::Starting, Input::StartFailed { permanent }) => self.start_failed(permanent, now, roll),
            (Phase::Starting, Input::StartedUnwell) => {
                // That it can be started is shown.
                self.barren = 0;
                self.never_hopeless(now, roll)
            }
            (Phase::Starting, Input::FileAway) => self.never_hopeless(now, roll),
            (Phase::Running { since }, Input::Ended { success }) => self.ended(since, success, now, roll),
            (Phase::Running { .. }, Input::Idle) => self.end(Then::Rest(StopReason::Idle)),
            (Phase::Running { .. }, Input::Swapped) => self.rest(Phase::Running { since: now }),
            (Phase::Running { .. }, Input::Replaced) => self.rest(Phase::Starting),
            (Phase::Stopping(Then::Rest(StopReason::Idle)), Input::Wanted) => self.begin_unless_ending(),
            (Phase::Stopping(then), Input::Gone) => match then {
                Then::Start => self.begin(),
                Then::Rest(reason) => self.rest(Phase::Stopped(reason)),
                Then::Disable => self.rest(Phase::Disabled),
            },
            (Phase::BackingOff { retry_at }, Input::Timer) if now >= retry_at => {
                self.restarts.push_back(now);
                self.begin()
            }
            (Phase::BackingOff { .. } | Phase::GaveUp(_), Input::FileChanged) => self.begin_anew(),
            (Phase::Stopped(StopReason::NotNeeded | StopReason::Idle), Input::Wanted) => self.begin_anew(),
            (Phase::BackingOff { .. } | Phase::GaveUp(_) | Phase::Stopped(_), Input::Trial) => {
                self.before_trial = Some(self.phase);
                self.begin()
            }
            _ => Act::Nothing,
        };
        Ok(act)
    }

    fn obey(&mut self, order: Order) -> Result<Act, Disabled> {
        let act = match (order, self.phase) {
            (Order::Disable, Phase::Starting | Phase::Running { .. } | Phase::Stopping(_)) => {
                self.end(Then::Disable)
            }
            (Order::Disable, _) => self.rest(Phase::Disabled),
            (Order::Enable, Phase::Disabled | Phase::Stopping(Then::Disable)) => self.begin_unless_ending(),
            (Order::Enable | Order::Clear, Phase::Disabled | Phase::Stopped(_)) => Act::Nothing,
            // Stopped is what it is already.
            (Order::Stop, Phase::Disabled | Phase::Stopping(Then::Disable)) => Act::Nothing,
            (_, Phase::Disabled | Phase::Stopping(Then::Disable)) => return Err(Disabled),
            (Order::Stop, Phase::Starting | Phase::Running { .. } | Phase::Stopping(_)) => {
                self.end(Then::Rest(StopReason::Operator))
            }
            (Order::Stop, _) => self.rest(Phase::Stopped(StopReason::Operator)),
            (Order::Restart, Phase::Running { .. }) => {
                self.forget();
                self.end(Then::Start)
            }
            (Order::Clear, Phase::Running { .. } | Phase::Starting | Phase::Stopping(_)) => {
                self.forget();
                // As if it had come before the trial.
                self.before_trial = self.before_trial.filter(|before| matches!(before, Phase::Stopped(_)));
                Act::Nothing
            }
            // To start what starts or serves is no mistake. What is being tried may fail, and it is to be started then all the same.
            (Order::Start | Order::Restart, Phase::Starting) => {
                self.before_trial = None;
                Act::Nothing
            }
            (Order::Start | Order::Enable, Phase::Running { .. }) | (Order::Enable, Phase::Starting) => {
                Act::Nothing
            }
            (Order::Enable, Phase::Stopping(_) | Phase::BackingOff { .. } | Phase::GaveUp(_)) => Act::Nothing,
            (Order::Start | Order::Restart | Order::Clear, _) => self.begin_unless_ending(),
        };
        Ok(act)
    }

    fn start_failed(&mut self, permanent: bool, now: Instant, roll: f64) -> Act {
        self.barren = self.barren.saturating_add(1);
        if self.policy.restart == Restart::Never {
            return self.rest(Phase::Stopped(StopReason::Policy));
        }
        if permanent {
            return self.rest(Phase::GaveUp(GiveUpReason::Permanent));
        }
        if self.barren >= self.policy.hopeless_after {
            return self.rest(Phase::GaveUp(GiveUpReason::NeverServed { starts: self.barren }));
        }
        self.again(When::Later, now, roll)
    }

    /// After a failure that does not count: what is waited for may come back at any time.
    fn never_hopeless(&mut self, now: Instant, roll: f64) -> Act {
        match self.policy.restart {
            Restart::Never => self.rest(Phase::Stopped(StopReason::Policy)),
            Restart::OnFailure | Restart::Always => self.again(When::Later, now, roll),
        }
    }

    fn ended(&mut self, since: Instant, success: bool, now: Instant, roll: f64) -> Act {
        let stable = now.saturating_duration_since(since) >= self.policy.stable_after;
        if stable {
            self.attempts = 0;
        }
        match self.policy.restart {
            Restart::Never => self.rest(Phase::Stopped(StopReason::Policy)),
            Restart::OnFailure if success => self.rest(Phase::Stopped(StopReason::Policy)),
            _ if stable => self.again(When::Now, now, roll),
            _ => self.again(When::Later, now, roll),
        }
    }

    /// Starts again by itself, if the intensity limit lets it.
    fn again(&mut self, when: When, now: Instant, roll: f64) -> Act {
        let delay = match when {
            When::Now => std::time::Duration::ZERO,
            When::Later => {
                self.attempts = self.attempts.saturating_add(1);
                self.policy.backoff.delay(self.attempts, roll)
            }
        };
        let retry_at = later(now, delay);
        if let Some(limit) = self.policy.intensity {
            self.restarts.retain(|begun| retry_at.saturating_duration_since(*begun) < limit.within);
            if self.restarts.len() >= usize::try_from(limit.restarts).unwrap_or(usize::MAX) {
                return self.rest(Phase::GaveUp(GiveUpReason::Intensity(limit)));
            }
        } else {
            self.restarts.clear();
        }
        if delay.is_zero() {
            self.restarts.push_back(now);
            return self.begin();
        }
        self.phase = Phase::BackingOff { retry_at };
        Act::Nothing
    }

    fn begin(&mut self) -> Act {
        self.phase = Phase::Starting;
        Act::Start
    }

    fn begin_anew(&mut self) -> Act {
        self.forget();
        self.begin()
    }

    /// There are never two instances: what is being ended has to be gone first.
    fn begin_unless_ending(&mut self) -> Act {
        self.forget();
        match self.phase {
            Phase::Stopping(_) => {
                self.phase = Phase::Stopping(Then::Start);
                Act::Nothing
            }
            _ => self.begin(),
        }
    }

    fn end(&mut self, then: Then) -> Act {
        let ending = matches!(self.phase, Phase::Stopping(_));
        self.before_trial = None;
        self.phase = Phase::Stopping(then);
        if ending { Act::Nothing } else { Act::End }
    }

    fn rest(&mut self, phase: Phase) -> Act {
        self.phase = phase;
        Act::Nothing
    }

    fn forget(&mut self) {
        self.barren = 0;
        self.attempts = 0;
        self.restarts.clear();
    }
}

#[derive(Debug, Clone, Copy)]
enum When {
    Now,
    Later,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::Backoff;
    use super::super::policy::Intensity;
    use super::*;

    const STARTED: Input = Input::Started;
    const FAILED: Input = Input::StartFailed { permanent: false };
    const CRASHED: Input = Input::Ended { success: false };

    fn machine(policy: RestartPolicy) -> (Machine, Instant) {
        let (mut machine, now) = (Machine::new(policy), Instant::now());
        assert_eq!(machine.on(Input::Order(Order::Start), now, 1.0), Ok(Act::Start));
        (machine, now)
    }

    fn step(machine: &mut Machine, input: Input, now: Instant) -> Act {
        machine.on(input, now, 1.0).unwrap()
    }

    #[test]
    fn after_a_stable_run_the_restart_comes_at_once_and_later_ones_wait() {
        let (mut machine, mut now) = machine(RestartPolicy::default());
        assert_eq!(step(&mut machine, STARTED, now), Act::Nothing);
        now += Duration::from_secs(10);
        assert_eq!(step(&mut machine, CRASHED, now), Act::Start);
        for millis in [100, 200, 400, 800] {
            step(&mut machine, STARTED, now);
            assert_eq!(step(&mut machine, CRASHED, now), Act::Nothing);
            assert_eq!(machine.timer(), Some(now + Duration::from_millis(millis)));
            assert_eq!(step(&mut machine, Input::Timer, now), Act::Nothing);
            now += Duration::from_millis(millis);
            assert_eq!(step(&mut machine, Input::Timer, now), Act::Start);
        }
        step(&mut machine, STARTED, now);
        now += Duration::from_secs(10);
        assert_eq!(step(&mut machine, CRASHED, now), Act::Start);
    }

    #[test]
    fn five_starts_without_service_are_hopeless_and_only_an_operator_or_a_new_file_ends_that() {
        for way_out in [
            Input::Order(Order::Start),
            Input::Order(Order::Restart),
            Input::Order(Order::Clear),
            Input::FileChanged,
        ] {
            let (mut machine, mut now) = machine(RestartPolicy::default());
            for _ in 0..4 {
                assert_eq!(step(&mut machine, FAILED, now), Act::Nothing);
                now = machine.timer().unwrap();
                assert_eq!(step(&mut machine, Input::Timer, now), Act::Start);
            }
            assert_eq!(step(&mut machine, FAILED, now), Act::Nothing);
            assert_eq!(machine.phase(), Phase::GaveUp(GiveUpReason::NeverServed { starts: 5 }));
            for nothing in [Input::Timer, Input::Wanted, Input::Idle, Input::Gone, STARTED, FAILED, CRASHED] {
                now += Duration::from_secs(1_000);
                assert_eq!(step(&mut machine, nothing, now), Act::Nothing);
            }
            assert_eq!(step(&mut machine, way_out, now), Act::Start);
            assert_eq!(machine.attempt(), 1);
        }
    }

    #[test]
    fn a_failure_that_no_restart_can_mend_is_given_up_at_once() {
        let (mut machine, now) = machine(RestartPolicy::default());
        assert_eq!(step(&mut machine, Input::StartFailed { permanent: true }, now), Act::Nothing);
        assert_eq!(machine.phase(), Phase::GaveUp(GiveUpReason::Permanent));
    }

    #[test]
    fn a_plugin_that_says_it_cannot_work_yet_is_started_for_as_long_as_it_takes() {
        let (mut machine, mut now) = machine(RestartPolicy::default());
        for attempt in 0..100 {
            // Now and then it does not even get to say so.
            let input = if attempt % 5 == 0 { FAILED } else { Input::StartedUnwell };
            assert_eq!(step(&mut machine, input, now), Act::Nothing);
            assert!(machine.timer().is_some_and(|retry_at| retry_at <= now + Duration::from_secs(30)));
            now += Duration::from_secs(30);
            assert_eq!(step(&mut machine, Input::Timer, now), Act::Start);
        }
        assert_eq!(step(&mut machine, STARTED, now), Act::Nothing);
        assert!(matches!(machine.phase(), Phase::Running { .. }));
    }

    #[test]
    fn policies_differ_in_what_they_start_again() {
        for (restart, success, again) in [
            (Restart::Never, false, false),
            (Restart::Never, true, false),
            (Restart::OnFailure, false, true),
            (Restart::OnFailure, true, false),
            (Restart::Always, false, true),
            (Restart::Always, true, true),
        ] {
            let (mut machine, now) = machine(RestartPolicy { restart, ..RestartPolicy::default() });
            step(&mut machine, STARTED, now);
            let later = now + Duration::from_secs(60);
            let act = step(&mut machine, Input::Ended { success }, later);
            assert_eq!(act == Act::Start, again, "{restart:?} {success}");
            assert_eq!(machine.phase() == Phase::Stopped(StopReason::Policy), !again);
        }
    }

    #[test]
    fn orders_wait_for_what_is_being_ended() {
        let (mut machine, now) = machine(RestartPolicy::default());
        step(&mut machine, STARTED, now);
        assert_eq!(step(&mut machine, Input::Order(Order::Restart), now), Act::End);
        // A second operator, at the same time.
        assert_eq!(step(&mut machine, Input::Order(Order::Restart), now), Act::Nothing);
        assert_eq!(step(&mut machine, Input::Order(Order::Stop), now), Act::Nothing);
        assert_eq!(step(&mut machine, Input::Order(Order::Start), now), Act::Nothing);
        assert_eq!(step(&mut machine, Input::Gone, now), Act::Start);
        assert_eq!(step(&mut machine, Input::Order(Order::Disable), now), Act::End);
        assert_eq!(step(&mut machine, Input::Gone, now), Act::Nothing);
        for order in [Order::Start, Order::Restart, Order::Clear] {
            let obeyed = machine.on(Input::Order(order), now, 0.0);
            let expected = if order == Order::Clear { Ok(Act::Nothing) } else { Err(Disabled) };
            assert_eq!(obeyed, expected, "{order:?}");
        }
        assert_eq!(step(&mut machine, Input::Order(Order::Enable), now), Act::Start);
    }

    #[test]
    fn a_plugin_that_rests_is_started_by_a_call_and_one_that_was_stopped_is_not() {
        let (mut machine, now) = machine(RestartPolicy::default());
        step(&mut machine, STARTED, now);
        assert_eq!(step(&mut machine, Input::Idle, now), Act::End);
        assert_eq!(step(&mut machine, Input::Gone, now), Act::Nothing);
        assert_eq!(machine.phase(), Phase::Stopped(StopReason::Idle));
        assert_eq!(step(&mut machine, Input::Wanted, now), Act::Start);
        step(&mut machine, STARTED, now);
        assert_eq!(step(&mut machine, Input::Order(Order::Stop), now), Act::End);
        assert_eq!(step(&mut machine, Input::Gone, now), Act::Nothing);
        assert_eq!(step(&mut machine, Input::Wanted, now), Act::Nothing);
    }

    #[test]
    fn a_trial_that_fails_changes_nothing() {
        let to_rest: [(&[Input], Phase); 3] = [
            (&[STARTED, Input::Order(Order::Stop), Input::Gone], Phase::Stopped(StopReason::Operator)),
            (&[STARTED, Input::Idle, Input::Gone], Phase::Stopped(StopReason::Idle)),
            (&[Input::StartFailed { permanent: true }], Phase::GaveUp(GiveUpReason::Permanent)),
        ];
        for (inputs, rests) in to_rest {
            for failed in
                [FAILED, Input::StartFailed { permanent: true }, Input::StartedUnwell, Input::FileAway]
            {
                let (mut machine, now) = machine(RestartPolicy::default());
                inputs.iter().for_each(|input| _ = step(&mut machine, *input, now));
                assert_eq!(machine.phase(), rests);
                assert_eq!(step(&mut machine, Input::Trial, now), Act::Start);
                assert_eq!(machine.attempt(), 1);
                assert_eq!(step(&mut machine, failed, now), Act::Nothing);
                assert_eq!(machine.phase(), rests);
            }
        }
    }

    #[test]
    fn a_trial_while_the_next_start_is_waited_for_puts_nothing_off() {
        let (mut machine, now) = machine(RestartPolicy::default());
        step(&mut machine, FAILED, now);
        let (timer, attempt) = (machine.timer(), machine.attempt());
        step(&mut machine, Input::Trial, now);
        step(&mut machine, FAILED, now);
        assert_eq!((machine.timer(), machine.attempt()), (timer, attempt));
        // One that works is a fresh beginning.
        step(&mut machine, Input::Trial, now);
        step(&mut machine, STARTED, now);
        assert_eq!(machine.attempt(), 1);
    }

    #[test]
    fn whoever_starts_a_plugin_during_a_trial_gets_it_started_if_that_fails() {
        for (order, starts) in [(Order::Start, true), (Order::Restart, true), (Order::Clear, false)] {
            let (mut machine, now) = machine(RestartPolicy::default());
            for input in [STARTED, Input::Order(Order::Stop), Input::Gone, Input::Trial] {
                step(&mut machine, input, now);
            }
            assert_eq!(step(&mut machine, Input::Order(order), now), Act::Nothing);
            step(&mut machine, FAILED, now);
            assert_eq!(machine.timer().is_some(), starts, "{order:?}");
        }
    }

    fn any_input() -> impl Strategy<Value = Input> {
        prop_oneof![
            8 => Just(Input::Started),
            4 => Just(Input::StartFailed { permanent: false }),
            1 => Just(Input::StartFailed { permanent: true }),
            2 => Just(Input::StartedUnwell),
            1 => Just(Input::FileAway),
            8 => any::<bool>().prop_map(|success| Input::Ended { success }),
            4 => Just(Input::Gone),
            1 => Just(Input::Swapped),
            1 => Just(Input::Replaced),
            12 => Just(Input::Timer),
            1 => Just(Input::FileChanged),
            2 => Just(Input::Wanted),
            1 => Just(Input::Idle),
            2 => Just(Input::Trial),
            1 => Just(Input::Order(Order::Start)),
            1 => Just(Input::Order(Order::Stop)),
            1 => Just(Input::Order(Order::Restart)),
            1 => Just(Input::Order(Order::Enable)),
            1 => Just(Input::Order(Order::Disable)),
            1 => Just(Input::Order(Order::Clear)),
        ]
    }

    fn any_policy() -> impl Strategy<Value = RestartPolicy> {
        let restart = prop_oneof![Just(Restart::Never), Just(Restart::OnFailure), Just(Restart::Always)];
        let backoff = prop_oneof![
            Just(Backoff::default()),
            (0_u64..500).prop_map(|millis| Backoff::constant(Duration::from_millis(millis))),
        ];
        let intensity =
            proptest::option::of((1_u32..5, 1_u64..60).prop_map(|(restarts, seconds)| Intensity {
                restarts,
                within: Duration::from_secs(seconds),
            }));
        (restart, backoff, 1_u32..7, intensity).prop_map(|(restart, backoff, hopeless_after, intensity)| {
            RestartPolicy { restart, backoff, hopeless_after, intensity, ..RestartPolicy::default() }
        })
    }

    /// What there is of processes, as whoever follows the machine's acts knows it.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Alive {
        Nothing,
        Starting,
        Running,
        Ending,
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Over any sequence of exits, orders and delays: never two instances, never more starts of its own than the limit
        /// allows in any window, no start before its time, and no way out of giving up but an operator or a new file.
        #[test]
        fn the_policy_holds_whatever_happens(
            policy in any_policy(),
            steps in proptest::collection::vec((any_input(), 0_u64..5_000, 0.0..=1.0_f64), 1..300),
        ) {
            let mut machine = Machine::new(policy);
            let mut now = Instant::now();
            let mut alive = Alive::Nothing;
            // Restarts that nobody has ordered, since the last order.
            let mut own: Vec<Instant> = Vec::new();
            let mut barren = 0;
            // Where a trial has begun, and no order has come since.
            let mut trial: Option<Phase> = None;
            for (input, millis, roll) in steps {
                now += Duration::from_millis(millis);
                // What cannot happen to what there is does not.
                let possible = match input {
                    Input::Started
                    | Input::StartFailed { .. }
                    | Input::StartedUnwell
                    | Input::FileAway => alive == Alive::Starting,
                    Input::Ended { .. } | Input::Idle | Input::Swapped | Input::Replaced => alive == Alive::Running,
                    Input::Gone => alive == Alive::Ending,
                    _ => true,
                };
                if !possible {
                    continue;
                }
                let before = machine.phase();
                let acted = machine.on(input, now, roll);
                match input {
                    Input::Started => {
                        alive = Alive::Running;
                        barren = 0;
                        if trial.take().is_some() {
                            own.clear();
                        }
                    }
                    Input::StartFailed { .. } | Input::StartedUnwell | Input::FileAway if trial.is_some() => {
                        alive = Alive::Nothing;
                        prop_assert_eq!(Some(machine.phase()), trial.take());
                    }
                    Input::StartFailed { .. } => { alive = Alive::Nothing; barren += 1 }
                    Input::StartedUnwell => { alive = Alive::Nothing; barren = 0 }
                    Input::FileAway => alive = Alive::Nothing,
                    Input::Ended { .. } | Input::Gone => alive = Alive::Nothing,
                    Input::Replaced => alive = Alive::Starting,
                    _ => {}
                }
                let Ok(act) = acted else {
                    prop_assert!(matches!(before, Phase::Disabled | Phase::Stopping(Then::Disable)));
                    prop_assert_eq!(machine.phase(), before);
                    continue;
                };
                let ordered = matches!(
                    input, Input::Order(_) | Input::FileChanged | Input::Wanted | Input::Gone
                );
                match input {
                    Input::Trial if act == Act::Start => trial = Some(before),
                    Input::Order(Order::Clear) if matches!(trial, Some(Phase::Stopped(_))) => {}
                    Input::Order(order) if order != Order::Enable => trial = None,
                    _ => {}
                }
                if act == Act::Start {
                    prop_assert_eq!(alive, Alive::Nothing, "two instances");
                    prop_assert_eq!(machine.phase(), Phase::Starting);
                    alive = Alive::Starting;
                    if ordered {
                        own.clear();
                        barren = 0;
                    } else if trial.is_none() {
                        own.push(now);
                        prop_assert!(policy.restart != Restart::Never);
                        prop_assert!(barren < policy.hopeless_after);
                        if let Some(limit) = policy.intensity {
                            let recent = own.iter().filter(|begun| now - **begun < limit.within).count();
                            prop_assert!(recent <= limit.restarts as usize, "{} in {:?}", recent, limit);
                        }
                    }
                }
                if act == Act::End {
                    prop_assert!(matches!(alive, Alive::Starting | Alive::Running));
                    alive = Alive::Ending;
                }
                if matches!(input, Input::Order(Order::Start | Order::Restart | Order::Clear | Order::Enable)) {
                    own.clear();
                    barren = 0;
                }
                if let Phase::BackingOff { retry_at } = before && act == Act::Start && input == Input::Timer {
                    prop_assert!(now >= retry_at, "before its time");
                }
                if matches!(before, Phase::GaveUp(_)) && machine.phase() != before {
                    prop_assert!(matches!(input, Input::Order(_) | Input::FileChanged | Input::Trial));
                }
                let phase_fits = match machine.phase() {
                    Phase::Starting => alive == Alive::Starting,
                    Phase::Running { .. } => alive == Alive::Running,
                    Phase::Stopping(_) => alive == Alive::Ending,
                    _ => alive == Alive::Nothing,
                };
                prop_assert!(phase_fits, "{:?} with {:?}", machine.phase(), alive);
            }
        }
    }
}
