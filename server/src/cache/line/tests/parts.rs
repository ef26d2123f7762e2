//! Any order of events, on the parts that do no I/O: no call is lost, answered twice or given another's answer.

use std::{collections::HashMap, time::Duration};

use cache_proto::{GetResponse, Hit, PipeResponse, SetError, SetRequest, get_response::Outcome};
use proptest::prelude::*;
use tokio::{
    sync::{oneshot, oneshot::error::TryRecvError},
    time::Instant,
};
use tonic::Code;

use super::super::{
    batch::{Call, Get, Gets, Miscounted, Reply, Set, Sets},
    flying::{Batch, Calls, Flying, GivenUp, Landing, Stores},
};
use crate::cache::Unavailable;

pub(super) type Answer = oneshot::Receiver<Reply<String, GetResponse>>;

pub(super) fn get(key: &str) -> (Get, Answer) {
    let (reply, answer) = oneshot::channel();
    (Call { request: key.into(), reply }, answer)
}

type Stored = oneshot::Receiver<Reply<SetRequest, ()>>;

pub(super) fn set(key: &str, value_bytes: usize) -> (Set, Stored) {
    let (reply, answer) = oneshot::channel();
    let request = SetRequest { key: key.into(), value: vec![0; value_bytes].into(), ttl: None };
    (Call { request, reply }, answer)
}

/// What the plugin has for a key.
pub(super) fn value_of(key: &str) -> GetResponse {
    let hit = Hit { value: format!("value of {key}").into(), ..Hit::default() };
    GetResponse { outcome: Some(Outcome::Hit(hit)) }
}

fn failed(code: Code) -> Unavailable {
    Unavailable::Failed(code)
}

#[test]
fn lookups_of_one_key_share_one_and_those_that_nobody_waits_for_are_not_made() {
    let (mut calls, mut answers): (Vec<_>, Vec<_>) = ["b", "a", "b", "c", "a"].map(get).into_iter().unzip();
    answers.remove(3);
    let gets = Gets::gather(&mut calls);
    assert_eq!(gets.keys(), ["a", "b"]);
    gets.answer(vec![value_of("a"), value_of("b")]).unwrap();
    for (mut answer, key) in answers.into_iter().zip(["b", "a", "b", "a"]) {
        assert_eq!(answer.try_recv(), Ok(Reply::Answered(value_of(key))));
    }
}

#[test]
fn too_few_or_too_many_answers_are_nobodys() {
    for (results, got) in [(vec![], 0), (vec![value_of("a")], 1), (vec![value_of("a"); 3], 3)] {
        let (mut calls, answers): (Vec<_>, Vec<_>) = ["a", "b"].map(get).into_iter().unzip();
        let miscounted = Gets::gather(&mut calls).answer(results);
        assert_eq!(miscounted, Err(Miscounted { expected: 2, got }));
        for mut answer in answers {
            assert_eq!(answer.try_recv(), Ok(Reply::Unavailable(failed(Code::Internal))));
        }
    }
}

#[test]
fn stores_fail_one_by_one() {
    let (mut calls, answers): (Vec<_>, Vec<_>) = ["a", "b", "a"].map(|key| set(key, 1)).into_iter().unzip();
    let sets = Sets::gather(&mut calls, 1 << 20);
    // The order decides which of two for one key counts.
    assert_eq!(sets.entries().iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["a", "b", "a"]);
    let error = |index, code: Code| SetError { index, code: code.into(), message: String::new() };
    sets.answer(&[error(1, Code::ResourceExhausted), error(7, Code::Internal), error(u32::MAX, Code::Ok)]);
    let replies: Vec<_> = answers.into_iter().map(|mut answer| answer.try_recv().unwrap()).collect();
    let failed = Reply::Unavailable(failed(Code::ResourceExhausted));
    assert_eq!(replies, [Reply::Answered(()), failed, Reply::Answered(())]);
}

#[test]
fn stores_travel_together_up_to_their_size_and_large_ones_alone() {
    let sizes = [400, 400, 400, 2_000, 1];
    let (mut calls, _answers): (Vec<_>, Vec<_>) = sizes.map(|bytes| set("k", bytes)).into_iter().unzip();
    let mut batches = Vec::new();
    while !calls.is_empty() {
        batches.push(Sets::gather(&mut calls, 1_000).entries().len());
    }
    assert_eq!(batches, [2, 1, 1, 1]);
}

#[test]
fn answers_to_batches_that_are_gone_or_never_were_change_nothing() {
    let now = Instant::now();
    let mut flying = Flying::default();
    let (call, mut answer) = get("a");
    let number = flying.depart(Batch::Gets(Gets::gather(&mut vec![call])), now);
    let response = |batch| PipeResponse { batch, gets: vec![value_of("a")], set_errors: vec![] };
    for unasked in [0, number + 1, u64::MAX] {
        assert_eq!(flying.land(response(unasked)), Landing::Unasked);
    }
    assert_eq!(answer.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(flying.land(response(number)), Landing::Gets);
    assert_eq!(flying.land(response(number)), Landing::Late);
    assert_eq!(answer.try_recv(), Ok(Reply::Answered(value_of("a"))));
    assert_eq!(flying.oldest(), None);
}

#[test]
fn stores_that_were_given_up_are_under_way_until_they_are_answered() {
    let now = Instant::now();
    let mut flying = Flying::default();
    let (call, mut stored) = set("a", 1);
    let number = flying.depart(Batch::Sets(Sets::gather(&mut vec![call], 1_000)), now);
    assert_eq!(flying.give_up(LIMIT, now + LIMIT), GivenUp { gets: 0, sets: 1 });
    assert_eq!(stored.try_recv(), Ok(Reply::Unavailable(Unavailable::TimedOut)));
    assert_eq!((flying.sets(), flying.oldest()), (Stores::Stuck, None));
    let error = SetError { index: 0, code: Code::Internal.into(), message: "the disk is full".into() };
    let response = PipeResponse { batch: number, gets: vec![], set_errors: vec![error.clone()] };
    assert_eq!(flying.land(response.clone()), Landing::Sets(vec![error]));
    assert_eq!(flying.sets(), Stores::UnderWay(0));
    assert_eq!(flying.land(response), Landing::Late);
}

/// Something that happens on the line.
#[derive(Clone, Debug)]
enum Event {
    Asked(u8),
    /// The one who asked so many calls ago has gone.
    Left(usize),
    /// What waits leaves.
    Departed,
    /// The plugin answers one of the batches that it has.
    Answered(usize),
    /// It answers one of them with another number of results.
    Miscounted(usize, usize),
    /// It answers with a number of its own making.
    Unasked(u64),
    Passed(u64),
    /// It says that there is no such method.
    TakenBack,
    /// The stream breaks.
    Broken,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0..6_u8).prop_map(Event::Asked),
        2 => (0..5_usize).prop_map(Event::Left),
        4 => Just(Event::Departed),
        6 => (0..4_usize).prop_map(Event::Answered),
        1 => (0..4_usize, 0..9_usize).prop_map(|(batch, results)| Event::Miscounted(batch, results)),
        1 => any::<u64>().prop_map(Event::Unasked),
        2 => (1..60_u64).prop_map(Event::Passed),
        1 => Just(Event::TakenBack),
        1 => Just(Event::Broken),
    ]
}

const LIMIT: Duration = Duration::from_millis(100);

/// The line and the plugin at its other end.
struct Model {
    now: Instant,
    waiting: Calls,
    flying: Flying,
    /// What the plugin has been sent, and may answer as often as it likes.
    sent: HashMap<u64, Vec<String>>,
    /// All that was asked, and who has not left.
    asked: Vec<(String, Option<Answer>)>,
}

impl Model {
    fn act(&mut self, event: Event) {
        match event {
            Event::Asked(key) => {
                let (call, answer) = get(&key.to_string());
                self.waiting.gets.push(call);
                self.asked.push((key.to_string(), Some(answer)));
            }
            Event::Left(ago) => {
                let index = self.asked.len().checked_sub(ago + 1);
                index.map(|index| self.asked[index].1 = None).unwrap_or_default();
            }
            Event::Departed => {
                let gets = Gets::gather(&mut self.waiting.gets);
                if !gets.keys().is_empty() {
                    let keys = gets.keys().to_vec();
                    let number = self.flying.depart(Batch::Gets(gets), self.now);
                    assert!(self.sent.insert(number, keys).is_none(), "numbers are used once");
                }
            }
            Event::Answered(which) => {
                if let Some((batch, keys)) = self.sent.iter().nth(which) {
                    let gets = keys.iter().map(|key| value_of(key)).collect();
                    self.flying.land(PipeResponse { batch: *batch, gets, set_errors: vec![] });
                }
            }
            Event::Miscounted(which, results) => {
                if let Some((batch, keys)) = self.sent.iter().nth(which)
                    && keys.len() != results
                {
                    let gets = vec![value_of("wrong"); results];
                    self.flying.land(PipeResponse { batch: *batch, gets, set_errors: vec![] });
                }
            }
            Event::Unasked(batch) if !self.sent.contains_key(&batch) => {
                let gets = vec![value_of("wrong")];
                self.flying.land(PipeResponse { batch, gets, set_errors: vec![] });
            }
            Event::Unasked(_) => {}
            Event::Passed(millis) => {
                self.now += Duration::from_millis(millis);
                self.flying.give_up(LIMIT, self.now);
            }
            Event::TakenBack => self.waiting.put_back(self.flying.take_back()),
            Event::Broken => self.flying.fail(failed(Code::Unavailable)),
        }
    }

    /// Everybody who has not left has one answer: the right one, or why there is none.
    fn check(mut self) -> Result<(), TestCaseError> {
        self.flying.fail(failed(Code::Unavailable));
        self.waiting.fail(Unavailable::Down);
        for (key, answer) in self.asked {
            let Some(mut answer) = answer else { continue };
            match answer.try_recv() {
                Ok(Reply::Answered(response)) => prop_assert_eq!(response, value_of(&key)),
                Ok(Reply::Unavailable(_)) => {}
                other => prop_assert!(false, "the call for {} is lost: {:?}", key, other),
            }
            prop_assert_eq!(answer.try_recv(), Err(TryRecvError::Closed));
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn no_call_is_lost_or_answered_twice_or_gets_anothers_answer(
        events in prop::collection::vec(event(), 0..120),
    ) {
        let mut model = Model {
            now: Instant::now(),
            waiting: Calls::default(),
            flying: Flying::default(),
            sent: HashMap::new(),
            asked: Vec::new(),
        };
        for event in events {
            model.act(event);
        }
        model.check()?;
    }

    #[test]
    fn what_is_answered_in_time_is_answered(keys in prop::collection::vec(0..9_u8, 1..60), order in any::<u64>()) {
        let now = Instant::now();
        let mut flying = Flying::default();
        let mut sent = Vec::new();
        let mut answers = Vec::new();
        for keys in keys.chunks(7) {
            let (mut calls, waiting): (Vec<_>, Vec<_>) = keys.iter().map(|key| get(&key.to_string())).unzip();
            answers.extend(keys.iter().zip(waiting));
            let gets = Gets::gather(&mut calls);
            let results: Vec<_> = gets.keys().iter().map(|key| value_of(key)).collect();
            sent.push((flying.depart(Batch::Gets(gets), now), results));
        }
        // Some order or other.
        sent.sort_by_key(|(number, _)| number.wrapping_mul(order | 1));
        for (batch, gets) in sent {
            prop_assert_eq!(flying.land(PipeResponse { batch, gets, set_errors: vec![] }), Landing::Gets);
        }
        for (key, mut answer) in answers {
            prop_assert_eq!(answer.try_recv(), Ok(Reply::Answered(value_of(&key.to_string()))));
        }
    }

    #[test]
    fn each_store_has_its_own_outcome_and_all_keep_their_order(
        stores in prop::collection::vec((0..400_usize, any::<bool>(), prop::bool::weighted(0.2)), 1..40),
    ) {
        let (mut calls, mut answers, mut staying) = (Vec::new(), Vec::new(), Vec::new());
        for (number, &(bytes, fails, leaves)) in stores.iter().enumerate() {
            let (call, answer) = set(&number.to_string(), bytes);
            calls.push(call);
            if !leaves {
                staying.push(number.to_string());
                answers.push((fails, answer));
            }
        }
        let mut flying = Flying::default();
        let (mut sent, mut keys) = (Vec::new(), Vec::new());
        while !calls.is_empty() {
            let sets = Sets::gather(&mut calls, 1_000);
            if sets.is_empty() {
                continue;
            }
            let mut set_errors = Vec::new();
            for (index, entry) in (0..).zip(sets.entries()) {
                keys.push(entry.key.clone());
                if stores[entry.key.parse::<usize>().unwrap()].1 {
                    set_errors.push(SetError { index, code: Code::DataLoss.into(), message: String::new() });
                }
            }
            let batch = flying.depart(Batch::Sets(sets), Instant::now());
            sent.push(PipeResponse { batch, gets: vec![], set_errors });
        }
        prop_assert_eq!(keys, staying);
        for response in sent.into_iter().rev() {
            let not_stored = response.set_errors.clone();
            prop_assert_eq!(flying.land(response), Landing::Sets(not_stored));
        }
        for (fails, mut answer) in answers {
            let expected =
                if fails { Reply::Unavailable(failed(Code::DataLoss)) } else { Reply::Answered(()) };
            prop_assert_eq!(answer.try_recv(), Ok(expected));
        }
    }
}
