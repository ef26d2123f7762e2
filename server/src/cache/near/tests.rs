//! Leases by a clock of the test's own, and a plugin that answers when the test says.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const NUMBER: Number = Number { value: 55, ttl_remaining: None };

fn n(n: u8) -> FibIndex {
    FibIndex::new(n, LAST_INDEX).unwrap()
}

/// The question that has to be asked, as nothing is leased.
#[track_caller]
fn ask(near: &Near, instance: u64, now: Instant) -> Question {
    match near.look(n(10), Some(instance), now) {
        Look::Ask(question) => question,
        Look::Leased(number) => panic!("leased: {number:?}"),
    }
}

fn leased(near: &Near, instance: impl Into<Option<u64>>, now: Instant) -> Option<Number> {
    match near.look(n(10), instance.into(), now) {
        Look::Ask(_) => None,
        Look::Leased(number) => Some(number),
    }
}

/// A lease of ten seconds, granted by instance 1 to a question that was asked at `now`.
fn with_lease(now: Instant) -> Near {
    let near = Near::new();
    near.keep(ask(&near, 1, now), NUMBER, 10 * SECOND);
    near
}

#[test]
fn a_lease_lasts_from_the_question_on_and_for_its_number_only() {
    let asked = Instant::now();
    let near = with_lease(asked);
    for millis in [0, 1, 9_999] {
        assert_eq!(leased(&near, 1, asked + Duration::from_millis(millis)), Some(NUMBER));
    }
    assert_eq!(leased(&near, 1, asked + 10 * SECOND), None);
    assert!(matches!(near.look(n(11), Some(1), asked), Look::Ask(_)));
    // The end is no end for ever.
    near.keep(ask(&near, 1, asked + 10 * SECOND), NUMBER, 10 * SECOND);
    assert_eq!(leased(&near, 1, asked + 19 * SECOND), Some(NUMBER));
}

#[test]
fn every_number_can_be_leased() {
    let (near, now) = (Near::new(), Instant::now());
    for index in 0..=LAST_INDEX {
        let Look::Ask(question) = near.look(n(index), Some(1), now) else { panic!("nothing was granted") };
        near.keep(question, Number { value: index.into(), ..NUMBER }, SECOND);
    }
    for index in 0..=LAST_INDEX {
        let found = near.look(n(index), Some(1), now);
        assert!(
            matches!(found, Look::Leased(Number { value, .. }) if value == u64::from(index)),
            "{found:?}"
        );
    }
}

#[test]
fn a_lease_is_no_longer_than_a_minute_and_than_the_number_is_valid() {
    for (ttl_remaining, max_age, lasts) in [
        (None, Duration::MAX, LONGEST),
        (Some(Duration::MAX), Duration::MAX, LONGEST),
        (Some(Duration::MAX), 3 * SECOND, 3 * SECOND),
        (Some(2 * SECOND), 3 * SECOND, 2 * SECOND),
        (Some(Duration::ZERO), 3 * SECOND, Duration::ZERO),
        (None, Duration::ZERO, Duration::ZERO),
    ] {
        let (near, asked) = (Near::new(), Instant::now());
        near.keep(ask(&near, 1, asked), Number { value: 1, ttl_remaining }, max_age);
        assert_eq!(leased(&near, 1, asked + lasts), None, "{ttl_remaining:?} {max_age:?}");
        if let Some(before) = lasts.checked_sub(Duration::from_nanos(1)) {
            let left = ttl_remaining.map(|ttl| ttl - before);
            let expected = Some(Number { value: 1, ttl_remaining: left });
            assert_eq!(leased(&near, 1, asked + before), expected, "{ttl_remaining:?} {max_age:?}");
        }
    }
}

#[test]
fn a_lease_is_good_for_the_instance_that_was_asked_while_it_serves() {
    let now = Instant::now();
    let near = with_lease(now);
    assert_eq!(leased(&near, None, now), None, "none serves");
    assert_eq!(leased(&near, 2, now), None, "another serves");
    assert_eq!(leased(&near, 1, now), Some(NUMBER), "it has come back");

    let (near, late) = (Near::new(), now + SECOND);
    let (old, new) = (ask(&near, 1, now), ask(&near, 2, late));
    near.keep(new, Number { value: 2, ..NUMBER }, 10 * SECOND);
    near.keep(old, NUMBER, 10 * SECOND);
    assert_eq!(leased(&near, 2, late).map(|number| number.value), Some(2));

    let Look::Ask(nobody) = near.look(n(11), None, now) else { panic!("nothing was granted") };
    near.keep(nobody, NUMBER, 10 * SECOND);
    assert!(matches!(near.look(n(11), None, now), Look::Ask(_)), "who has granted it is not known");
}

#[test]
fn a_store_ends_the_lease_before_it_is_sent() {
    let now = Instant::now();
    let near = with_lease(now);
    let change = near.change(n(10));
    assert_eq!(leased(&near, 1, now), None);
    drop(change);
    assert_eq!(leased(&near, 1, now), None);
    near.keep(ask(&near, 1, now), NUMBER, 10 * SECOND);
    assert_eq!(leased(&near, 1, now), Some(NUMBER));
    drop(near.change(n(11)));
    assert_eq!(leased(&near, 1, now), Some(NUMBER), "a store of another number");
}

#[test]
fn an_answer_that_was_under_way_during_a_store_grants_no_lease() {
    let (near, now) = (Near::new(), Instant::now());
    let [before, meanwhile] = [ask(&near, 1, now), ask(&near, 1, now)];
    let change = near.change(n(10));
    let [during, at_last] = [ask(&near, 1, now), ask(&near, 1, now)];
    for question in [meanwhile, during] {
        near.keep(question, NUMBER, 10 * SECOND);
        assert_eq!(leased(&near, 1, now), None, "while it is under way");
    }
    drop(change);
    for question in [before, at_last] {
        near.keep(question, NUMBER, 10 * SECOND);
        assert_eq!(leased(&near, 1, now), None, "after it has ended");
    }
}

#[test]
fn leases_are_granted_again_when_the_last_of_several_stores_has_ended() {
    let (near, now) = (Near::new(), Instant::now());
    let (one, other) = (near.change(n(10)), near.change(n(10)));
    for change in [one, other] {
        near.keep(ask(&near, 1, now), NUMBER, 10 * SECOND);
        assert_eq!(leased(&near, 1, now), None);
        drop(change);
    }
    near.keep(ask(&near, 1, now), NUMBER, 10 * SECOND);
    assert_eq!(leased(&near, 1, now), Some(NUMBER));
}

#[test]
fn the_last_of_several_questions_grants_the_lease() {
    let (near, now) = (Near::new(), Instant::now());
    let (early, late) = (ask(&near, 1, now), ask(&near, 1, now + SECOND));
    near.keep(late, Number { value: 2, ..NUMBER }, SECOND);
    near.keep(early, Number { value: 1, ..NUMBER }, 10 * SECOND);
    assert_eq!(leased(&near, 1, now + SECOND).map(|number| number.value), Some(2));
}

/// What happens around a plugin. Where there is more than one to choose from, a number chooses.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Somebody asks for a number.
    Look(u8),
    /// The plugin answers a question: the instance that was asked, or one that has taken over since then.
    Answer(usize, usize),
    /// The answer arrives.
    Arrive(usize),
    /// This process begins to store a number.
    Store(u8),
    /// The plugin stores it.
    Stored(usize),
    /// The plugin has said so; or this process has given up, if it has not stored it yet.
    Done(usize),
    /// Somebody else stores a number.
    Foreign(u8),
    /// Calls go to another instance.
    Restart,
    /// No calls go to the plugin, or again.
    Health,
    Millis(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let (key, choice) = (0..2_u8, any::<usize>());
    prop_oneof![
        6 => key.clone().prop_map(Step::Look),
        6 => (choice, choice).prop_map(|(question, instance)| Step::Answer(question, instance)),
        6 => choice.prop_map(Step::Arrive),
        2 => key.clone().prop_map(Step::Store),
        3 => choice.prop_map(Step::Stored),
        3 => choice.prop_map(Step::Done),
        1 => key.prop_map(Step::Foreign),
        1 => Just(Step::Restart),
        1 => Just(Step::Health),
        3 => (1..40_u64).prop_map(Step::Millis),
    ]
}

/// A value that the plugin has had; no two are the same.
#[derive(Clone, Copy, Debug)]
struct Had {
    instance: usize,
    expires: Instant,
    max_age: Duration,
    /// When another one came in its place, and whether by a store that this process has waited for.
    replaced: Option<(Instant, bool)>,
}

/// A store that this process waits for.
struct Store<'a> {
    key: u8,
    change: Change<'a>,
}

struct World<'a> {
    near: &'a Near,
    now: Instant,
    instance: usize,
    is_well: bool,
    had: Vec<Had>,
    /// The value of each key in each instance, an index of `had`. Old ones have theirs, and give them, until they have ended.
    has: Vec<[Option<usize>; 2]>,
    /// With the instance that calls went to, well or not. The line gives no question to one that is older.
    asked: Vec<(u8, usize, Question)>,
    answered: Vec<(Question, Number, Duration)>,
    stores: Vec<Store<'a>>,
    /// Stores that the plugin has made, and not said so yet.
    made: Vec<Store<'a>>,
    /// Keys of stores that were given up: the plugin may make them at any time.
    lost: Vec<u8>,
    leased: usize,
}

impl<'a> World<'a> {
    fn new(near: &'a Near) -> Self {
        Self {
            near,
            now: Instant::now(),
            instance: 0,
            is_well: true,
            had: Vec::new(),
            has: vec![[None; 2]],
            asked: Vec::new(),
            answered: Vec::new(),
            stores: Vec::new(),
            made: Vec::new(),
            lost: Vec::new(),
            leased: 0,
        }
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Look(key) => {
                // They are counted from 1.
                let instance = self.is_well.then_some(self.instance as u64 + 1);
                match self.near.look(n(key), instance, self.now) {
                    Look::Ask(question) => self.asked.push((key, self.instance, question)),
                    Look::Leased(number) => self.check(number)?,
                }
            }
            Step::Answer(choice, instance) => {
                let Some((key, asked, question)) = take(&mut self.asked, choice) else { return Ok(()) };
                let instance = asked + instance % (self.instance + 1 - asked);
                let Some(value) = self.has[instance][usize::from(key)] else { return Ok(()) };
                let Had { expires, max_age, .. } = self.had[value];
                let left = expires.saturating_duration_since(self.now);
                if !left.is_zero() {
                    let number = Number { value: value as u64, ttl_remaining: Some(left) };
                    self.answered.push((question, number, max_age));
                }
            }
            Step::Arrive(choice) => {
                if let Some((question, number, max_age)) = take(&mut self.answered, choice) {
                    self.near.keep(question, number, max_age);
                }
            }
            Step::Store(key) => self.stores.push(Store { key, change: self.near.change(n(key)) }),
            Step::Stored(choice) => match take(&mut self.stores, choice) {
                Some(store) => {
                    self.replace(store.key, true);
                    self.made.push(store);
                }
                None => self.lost.pop().into_iter().for_each(|key| self.replace(key, false)),
            },
            Step::Done(choice) => match take(&mut self.made, choice) {
                Some(store) => drop(store.change),
                None => self.lost.extend(take(&mut self.stores, choice).map(|store| store.key)),
            },
            Step::Foreign(key) => self.replace(key, false),
            Step::Restart => {
                self.instance += 1;
                self.has.push([None; 2]);
            }
            Step::Health => self.is_well = !self.is_well,
            Step::Millis(millis) => self.now += Duration::from_millis(millis),
        }
        Ok(())
    }

    fn replace(&mut self, key: u8, awaited: bool) {
        let has = &mut self.has[self.instance][usize::from(key)];
        if let Some(old) = has.replace(self.had.len()) {
            self.had[old].replaced = Some((self.now, awaited));
        }
        // Shorter than the lease now and then.
        let seed = self.had.len() as u64;
        self.had.push(Had {
            instance: self.instance,
            expires: self.now + Duration::from_millis(20 + seed * 37 % 200),
            max_age: Duration::from_millis(1 + seed * 53 % 150),
            replaced: None,
        });
    }

    fn check(&mut self, number: Number) -> Result<(), TestCaseError> {
        self.leased += 1;
        let had = self.had[usize::try_from(number.value).unwrap()];
        prop_assert!(self.is_well && had.instance == self.instance, "of another instance: {:?}", had);
        let left = had.expires.saturating_duration_since(self.now);
        prop_assert!(!left.is_zero() && number.ttl_remaining.unwrap() <= left, "expired: {:?}", had);
        match had.replaced {
            None => {}
            Some((_, true)) => prop_assert!(false, "older than a store of this process: {:?}", had),
            Some((at, false)) => prop_assert!(self.now < at + had.max_age, "too old: {:?}", had),
        }
        Ok(())
    }
}

fn take<T>(items: &mut Vec<T>, choice: usize) -> Option<T> {
    (!items.is_empty()).then(|| items.swap_remove(choice % items.len()))
}

proptest! {
    #[test]
    fn a_leased_number_is_never_older_than_promised(steps in prop::collection::vec(step(), 0..200)) {
        let near = Near::new();
        let mut world = World::new(&near);
        for step in steps {
            world.step(step)?;
        }
    }
}

/// The property above is not empty: whatever happens in between, what was just granted is used.
#[test]
fn what_the_world_grants_it_uses() {
    let near = Near::new();
    let mut world = World::new(&near);
    for _ in 0..100 {
        for step in [
            Step::Store(0),
            Step::Stored(0),
            Step::Done(0),
            Step::Look(0),
            Step::Answer(0, 0),
            Step::Arrive(0),
        ] {
            world.step(step).unwrap();
        }
        world.step(Step::Look(0)).unwrap();
        world.step(Step::Restart).unwrap();
    }
    assert!(world.leased > 80, "{}", world.leased);
}
