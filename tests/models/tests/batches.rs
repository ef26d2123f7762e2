//! Lookups that travel together: each is answered, once, and with what belongs to its key, whatever the order.

use cache_proto::{GetResponse, Hit, PipeResponse, get_response::Outcome};
use fib_server::cache::Unavailable;
use models::{
    in_any_order,
    line::{Answer, Event, Line, Request},
};
use shuttle::{
    future::{JoinHandle, spawn, yield_now},
    rand::{Rng, thread_rng},
};
use tonic::Code;

/// More than the scenarios have.
const ROOM: usize = 10;

const KEYS: [&str; 6] = ["a", "b", "a", "c", "b", "d"];

fn value_of(key: &str) -> GetResponse {
    let hit = Hit { value: format!("value of {key}").into(), ..Hit::default() };
    GetResponse { outcome: Some(Outcome::Hit(hit)) }
}

fn right(request: &Request) -> PipeResponse {
    let gets = request.keys.iter().map(|key| value_of(key)).collect();
    PipeResponse { batch: request.batch, gets, set_errors: vec![] }
}

fn ask(line: &Line, key: &'static str) -> JoinHandle<Answer> {
    let line = line.clone();
    spawn(async move { line.get(key).await })
}

/// A plugin that answers `faults` batches wrongly, as the scenario says, and all others right, in an order of its own.
fn plugin(room: usize, mut faults: usize, fault: fn(&Request) -> Option<Event>) -> Line {
    let (line, mut requests, says) = Line::new(room);
    spawn(async move {
        let mut held = Vec::new();
        while let Some(request) = requests.recv().await {
            held.push(request);
            yield_now().await;
            while let Ok(request) = requests.try_recv() {
                held.push(request);
            }
            while !held.is_empty() {
                let request = held.swap_remove(thread_rng().gen_range(0..held.len()));
                let event = if faults > 0 {
                    faults -= 1;
                    match fault(&request) {
                        Some(event) => event,
                        None => return,
                    }
                } else {
                    Event::Answer(right(&request))
                };
                let _the_line_has_ended = says.send(event);
                yield_now().await;
            }
        }
    });
    line
}

/// A plugin that answers each batch right, and then again with something else.
fn answered_twice() -> Line {
    let (line, mut requests, says) = Line::new(ROOM);
    spawn(async move {
        while let Some(request) = requests.recv().await {
            let mut again = right(&request);
            again.gets.iter_mut().for_each(|get| *get = value_of("whatever"));
            for response in [right(&request), again] {
                let _the_line_has_ended = says.send(Event::Answer(response));
                yield_now().await;
            }
        }
    });
    line
}

#[test]
fn each_lookup_gets_the_value_of_its_key() {
    in_any_order(async || {
        let line = plugin(ROOM, 0, |_| None);
        for (key, asking) in KEYS.map(|key| (key, ask(&line, key))) {
            assert_eq!(asking.await.unwrap(), Answer::Answered(value_of(key)));
        }
    });
}

#[test]
fn those_who_leave_take_nobodys_answer_with_them() {
    in_any_order(async || {
        let line = plugin(ROOM, 0, |_| None);
        let asking = KEYS.map(|key| (key, ask(&line, key)));
        for (_, leaving) in asking.iter().step_by(2) {
            leaving.abort();
        }
        for (index, (key, asking)) in asking.into_iter().enumerate() {
            match asking.await {
                Ok(answer) => assert_eq!(answer, Answer::Answered(value_of(key))),
                Err(_) => assert_eq!(index % 2, 0, "the lookup of {key} was lost"),
            }
        }
    });
}

#[test]
fn wrong_number_of_answers_fails_those_who_asked_and_nobody_else() {
    in_any_order(async || {
        let line = plugin(ROOM, 1, |request| {
            let mut wrong = right(request);
            wrong.gets.push(value_of("whatever"));
            Some(Event::Answer(wrong))
        });
        let mut failed = 0;
        for (key, asking) in KEYS.map(|key| (key, ask(&line, key))) {
            match asking.await.unwrap() {
                Answer::Unavailable(why) => {
                    assert_eq!(why, Unavailable::Failed(Code::Internal));
                    failed += 1;
                }
                answer => assert_eq!(answer, Answer::Answered(value_of(key))),
            }
        }
        assert!((1..=3).contains(&failed), "{failed} have failed with one batch");
    });
}

#[test]
fn second_answer_to_a_batch_is_nobodys() {
    in_any_order(async || {
        let line = answered_twice();
        for (key, asking) in KEYS.map(|key| (key, ask(&line, key))) {
            assert_eq!(asking.await.unwrap(), Answer::Answered(value_of(key)));
        }
    });
}

#[test]
fn plugin_that_breaks_off_leaves_nobody_waiting() {
    in_any_order(async || {
        let line = plugin(ROOM, 1, |_| None);
        for (key, asking) in KEYS.map(|key| (key, ask(&line, key))) {
            match asking.await.unwrap() {
                Answer::Unavailable(Unavailable::Down | Unavailable::Failed(Code::Unavailable)) => {}
                answer => assert_eq!(answer, Answer::Answered(value_of(key))),
            }
        }
    });
}

/// A plugin that says once that it has no batches, however many it has been sent by then.
fn without_batches() -> Line {
    let (line, mut requests, says) = Line::new(ROOM);
    spawn(async move {
        if requests.recv().await.is_some() {
            yield_now().await;
            let _the_line_has_ended = says.send(Event::Unimplemented);
        }
        while requests.recv().await.is_some() {}
    });
    line
}

#[test]
fn plugin_without_batches_gets_every_lookup_alone() {
    in_any_order(async || {
        let line = without_batches();
        for asking in KEYS.map(|key| ask(&line, key)) {
            assert_eq!(asking.await.unwrap(), Answer::CallAlone);
        }
    });
}

#[test]
fn lookup_that_finds_the_queue_full_is_turned_away_and_the_others_are_answered() {
    in_any_order(async || {
        let line = plugin(1, 0, |_| None);
        for (key, asking) in KEYS.map(|key| (key, ask(&line, key))) {
            match asking.await.unwrap() {
                Answer::Unavailable(why) => assert_eq!(why, Unavailable::Overloaded),
                answer => assert_eq!(answer, Answer::Answered(value_of(key))),
            }
        }
    });
}
