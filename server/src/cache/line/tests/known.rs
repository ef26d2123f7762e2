//! Any order of events, on what decides whether calls are sent: a plugin that hangs is left alone, and never for longer than
//! it should be. The driver is as short as it can be.

use std::time::Duration;

use cache_proto::PipeResponse;
use proptest::prelude::*;
use tokio::time::Instant;

use super::{
    super::{
        batch::{Gets, Sets},
        flying::{Batch, Flying, GivenUp, Landing, Stores},
        known::{Known, Way},
        patience::REST,
    },
    parts::{Answer, get, set, value_of},
};
use crate::cache::Unavailable;

/// How long a call waits.
const LIMIT: Duration = Duration::from_millis(250);

/// Batches in a row without an answer after which a plugin may be left alone.
const MISSES: u32 = 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Somebody asks, or stores.
    Ask,
    Store,
    /// The plugin answers one of its batches: right, or without a result, or with too many.
    Answer(usize),
    Fail(usize),
    Miscount(usize),
    /// It answers with a number of its own making.
    Unasked,
    /// The stream ends, in order or not.
    End,
    /// It is given up for another reason, with all that is on it.
    Lost,
    /// Calls go to this instance, or to none.
    Route(Option<u64>),
    Millis(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => Just(Step::Ask),
        4 => Just(Step::Store),
        2 => (0..3_usize).prop_map(Step::Answer),
        1 => (0..3_usize).prop_map(Step::Fail),
        1 => (0..3_usize).prop_map(Step::Miscount),
        1 => Just(Step::Unasked),
        1 => Just(Step::End),
        3 => Just(Step::Lost),
        1 => prop::option::of(1..4_u64).prop_map(Step::Route),
        8 => (1..400_u64).prop_map(Step::Millis),
        4 => (1_000..1_100_u64).prop_map(Step::Millis),
    ]
}

/// The line to a plugin, and what has happened on it.
struct World {
    now: Instant,
    known: Known,
    /// Of one stream after the other.
    flying: Flying,
    /// What the plugin has been sent on this stream, and has not answered.
    at_plugin: Vec<(u64, Kind)>,
    /// Batches in a row of this instance without an answer.
    misses: u32,
    waiting: Vec<Answer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Lookups,
    Stores,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Sent,
    Waits,
    TurnedAway(Unavailable),
}

impl World {
    fn new() -> Self {
        Self {
            now: Instant::now(),
            known: Known::nothing(),
            flying: Flying::default(),
            at_plugin: Vec::new(),
            misses: 0,
            waiting: Vec::new(),
        }
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Ask => {
                if let Fate::TurnedAway(_) = self.ask() {
                    prop_assert!(self.misses >= MISSES, "turned away after {} misses", self.misses);
                }
            }
            Step::Store => {
                let is_stuck = self.flying.sets() == Stores::Stuck;
                if let Fate::TurnedAway(why) = self.store() {
                    prop_assert!(is_stuck || why == Unavailable::Down && self.misses >= MISSES, "{:?}", why);
                }
            }
            Step::Answer(which) => self.answer(which, 1),
            Step::Fail(which) => self.answer(which, 0),
            Step::Miscount(which) => self.answer(which, 7),
            Step::Unasked => {
                let landing = self.flying.land(PipeResponse { batch: u64::MAX, ..PipeResponse::default() });
                prop_assert_eq!(landing, Landing::Unasked);
                self.heard();
                self.another_stream();
            }
            Step::End => {
                self.heard();
                self.another_stream();
            }
            Step::Lost => self.another_stream(),
            Step::Route(instance) => {
                if self.known.follow(instance) {
                    self.another_stream();
                    self.misses = 0;
                }
            }
            Step::Millis(millis) => self.pass(Duration::from_millis(millis)),
        }
        let stores = self.at_plugin.iter().filter(|(_, kind)| *kind == Kind::Stores).count();
        prop_assert!(stores <= 1, "the plugin has {} batches of stores at a time", stores);
        Ok(())
    }

    fn ask(&mut self) -> Fate {
        if !self.known.gets_may_leave(self.flying.gets()) {
            return Fate::Waits;
        }
        assert_eq!(self.known.gets(), Way::Pipe);
        if !self.known.admits_gets(self.flying.gets(), self.now) {
            return Fate::TurnedAway(Unavailable::Down);
        }
        let (call, answer) = get("a");
        self.waiting.push(answer);
        self.depart(Batch::Gets(Gets::gather(&mut vec![call])), Kind::Lookups);
        Fate::Sent
    }

    fn store(&mut self) -> Fate {
        if !self.known.sets_may_leave(self.flying.sets()) {
            return Fate::Waits;
        }
        if let Some(why) = self.known.turns_sets_away(self.flying.sets()) {
            return Fate::TurnedAway(why);
        }
        let (call, _stored) = set("a", 1);
        self.depart(Batch::Sets(Sets::gather(&mut vec![call], 1_000)), Kind::Stores);
        Fate::Sent
    }

    fn depart(&mut self, batch: Batch, kind: Kind) {
        let number = self.flying.depart(batch, self.now);
        self.at_plugin.push((number, kind));
    }

    /// The plugin answers a batch with so many results.
    fn answer(&mut self, which: usize, results: usize) {
        if which >= self.at_plugin.len() {
            return;
        }
        let (batch, _) = self.at_plugin.remove(which);
        let gets = vec![value_of("a"); results];
        match self.flying.land(PipeResponse { batch, gets, set_errors: vec![] }) {
            Landing::Gets | Landing::Miscounted(_) => self.heard(),
            Landing::Sets(_) | Landing::Late => {}
            Landing::Unasked => panic!("batch {batch} was sent"),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let GivenUp { gets, .. } = self.flying.give_up(LIMIT, self.now);
        self.misses += gets;
        if self.known.missed(gets, self.now) {
            self.another_stream();
        }
    }

    fn heard(&mut self) {
        self.known.heard();
        self.misses = 0;
    }

    fn another_stream(&mut self) {
        self.flying = Flying::default();
        self.at_plugin.clear();
    }
}

proptest! {
    #[test]
    fn a_lookup_is_turned_away_for_misses_only_and_never_for_longer_than_the_rest(
        steps in prop::collection::vec(step(), 0..120),
        hangs in any::<bool>(),
        later in step(),
        last in prop::option::of(1..4_u64),
    ) {
        let mut world = World::new();
        for step in steps {
            world.step(step)?;
        }
        if hangs {
            for _ in 0..MISSES {
                world.step(Step::Ask)?;
                world.pass(LIMIT);
            }
            world.pass(REST);
            world.step(Step::Ask)?;
        }
        world.step(later)?;
        // From now on there is an instance that answers what it is sent, and somebody who asks.
        world.step(Step::Route(last.or(world.known.instance()).or(Some(1))))?;
        world.at_plugin.clear();
        let well = world.now;
        while world.ask() != Fate::Sent {
            prop_assert!(world.now <= well + LIMIT + REST, "it is not asked");
            world.pass(Duration::from_millis(10));
        }
        world.answer(0, 1);
        prop_assert_eq!(world.ask(), Fate::Sent);
    }
}

fn resting(instance: Option<u64>) -> World {
    let mut world = World::new();
    world.known.follow(instance);
    for _ in 0..MISSES {
        assert_eq!(world.ask(), Fate::Sent);
        world.pass(LIMIT);
    }
    assert_eq!(world.ask(), Fate::TurnedAway(Unavailable::Down));
    world
}

#[test]
fn rest_is_over_with_the_instance_that_was_left_alone() {
    for next in [None, Some(2)] {
        let mut world = resting(Some(1));
        assert!(world.known.follow(next));
        assert_eq!(world.ask(), Fate::Sent, "{next:?}");
    }
}

#[test]
fn instance_that_was_waited_for_has_missed_nothing() {
    let mut world = resting(None);
    assert!(world.known.follow(Some(1)));
    for _ in 0..MISSES {
        assert_eq!(world.ask(), Fate::Sent);
        world.pass(LIMIT);
    }
}

#[test]
fn stores_that_hang_are_one_and_stop_no_lookup() {
    let mut world = World::new();
    world.known.follow(Some(1));
    assert_eq!((world.store(), world.store()), (Fate::Sent, Fate::Waits));
    world.pass(LIMIT);
    for _ in 0..20 {
        assert_eq!(world.store(), Fate::TurnedAway(Unavailable::Overloaded));
        assert_eq!(world.ask(), Fate::Sent);
        world.answer(1, 1);
        world.pass(LIMIT);
    }
    world.answer(0, 0);
    assert_eq!(world.store(), Fate::Sent);
}

#[test]
fn what_an_instance_has_no_method_for_is_known_while_there_is_no_other() {
    let mut known = Known::nothing();
    known.follow(Some(1));
    known.has_no_pipe();
    known.has_no_get_many();
    assert_eq!((known.gets(), known.sets()), (Way::Alone, Way::Many));
    assert!(known.follow(None));
    assert_eq!((known.gets(), known.sets()), (Way::Pipe, Way::Pipe));
    assert!(known.follow(Some(1)));
    assert_eq!((known.gets(), known.sets()), (Way::Alone, Way::Many));
    assert!(!known.follow(Some(1)) && known.follow(Some(2)));
    assert_eq!((known.gets(), known.sets()), (Way::Pipe, Way::Pipe));
}
