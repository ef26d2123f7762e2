//! The line over real connections, to a plugin that the test plays.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use cache_proto::{GetResponse, PipeRequest, PipeResponse, SetError, SetRequest};
use plugin_testkit::Logged;
use tokio::task::{JoinHandle, JoinSet};
use tonic::{Code, Status};

use super::{
    super::{Line, WAITING_GETS, WAITING_SETS},
    peer::{Arrival, Methods, PERMITS, Peer, right, value_of},
};
use crate::cache::Unavailable;

/// For calls that are not to end by themselves.
const LONG: Duration = Duration::from_secs(60);

/// For calls that are to end by themselves.
const SHORT: Duration = Duration::from_millis(50);

/// For calls of which some are to end by themselves, and others are not.
const PATIENT: Duration = Duration::from_millis(500);

const INTERNAL: Unavailable = Unavailable::Failed(Code::Internal);

type Asking = JoinHandle<Result<GetResponse, Unavailable>>;

fn ask(line: &Line, key: &str) -> Asking {
    let (line, key) = (line.clone(), key.to_owned());
    tokio::spawn(async move { line.get(key).await })
}

fn store(line: &Line, key: &str) -> JoinHandle<Result<(), Unavailable>> {
    let (line, request) = (line.clone(), SetRequest { key: key.to_owned(), value: "v".into(), ttl: None });
    tokio::spawn(async move { line.set(request).await })
}

/// Asks for two keys so that each is in a batch of its own, and no more can leave.
async fn two_batches(peer: &mut Peer, line: &Line) -> ([Asking; 2], [PipeRequest; 2], super::peer::Answers) {
    let one = ask(line, "one");
    let (first, _) = peer.batch().await;
    let two = ask(line, "two");
    let (second, answers) = peer.batch().await;
    assert_eq!(
        (first.gets.as_slice(), second.gets.as_slice()),
        (&["one".to_owned()][..], &["two".to_owned()][..])
    );
    ([one, two], [first, second], answers)
}

#[tokio::test]
async fn batches_may_be_answered_in_any_order() {
    let mut peer = Peer::start(Methods::Pipe);
    let (line, _plugin) = peer.line(LONG).await;
    let ([one, two], [first, second], answers) = two_batches(&mut peer, &line).await;
    answers.send(Ok(right(&second))).await.unwrap();
    assert_eq!(two.await.unwrap(), Ok(value_of("two")));
    answers.send(Ok(right(&first))).await.unwrap();
    assert_eq!(one.await.unwrap(), Ok(value_of("one")));
}

#[tokio::test]
async fn what_waits_leaves_together_and_equal_keys_share_one_lookup() {
    let mut peer = Peer::start(Methods::Pipe);
    let (line, _plugin) = peer.line(LONG).await;
    let (_, [first, _], answers) = two_batches(&mut peer, &line).await;
    let mut crowd = JoinSet::new();
    for number in 0..1_000 {
        let line = line.clone();
        crowd.spawn(async move { (number % 10, line.get(format!("{}", number % 10)).await) });
    }
    let gone = ask(&line, "nobody waits for this one");
    super::until(|| line.gets.max_capacity() - line.gets.capacity() == 1_001).await;
    gone.abort();
    let _cancelled = gone.await;

    answers.send(Ok(right(&first))).await.unwrap();
    // A batch takes a thousand calls; one is left over if that one which nobody waits for was among them.
    let (batch, _) = peer.batch().await;
    assert_eq!(batch.gets, (0..10).map(|number| number.to_string()).collect::<Vec<_>>());
    answers.send(Ok(right(&batch))).await.unwrap();
    while let Some(answered) = crowd.join_next().await {
        let (key, answer) = answered.unwrap();
        assert_eq!(answer, Ok(value_of(&key.to_string())));
    }
}

#[tokio::test]
async fn caller_waits_no_longer_than_its_timeout_and_its_batch_goes_on() {
    let mut peer = Peer::start(Methods::Pipe);
    let (line, _plugin) = peer.line(SHORT).await;
    let slow = ask(&line, "slow");
    let (late, answers) = peer.batch().await;
    assert_eq!(slow.await.unwrap(), Err(Unavailable::TimedOut));
    answers.send(Ok(right(&late))).await.unwrap();
    // The same stream.
    let next = ask(&line, "next");
    let (batch, _) = peer.batch().await;
    answers.send(Ok(right(&batch))).await.unwrap();
    assert_eq!(next.await.unwrap(), Ok(value_of("next")));
    assert_eq!(peer.counts.pipe.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn wrong_number_of_answers_fails_those_who_asked_and_nobody_else() {
    let mut peer = Peer::start(Methods::Pipe);
    let (line, _plugin) = peer.line(LONG).await;
    for wrong in [0, 2, 3] {
        let ([one, two], [first, second], answers) = two_batches(&mut peer, &line).await;
        let gets = vec![value_of("whatever"); wrong];
        answers.send(Ok(PipeResponse { batch: first.batch, gets, set_errors: vec![] })).await.unwrap();
        assert_eq!(one.await.unwrap(), Err(INTERNAL));
        // A second answer to the same batch is too late.
        answers.send(Ok(right(&first))).await.unwrap();
        answers.send(Ok(right(&second))).await.unwrap();
        answers.send(Ok(right(&second))).await.unwrap();
        assert_eq!(two.await.unwrap(), Ok(value_of("two")));
    }
    assert_eq!(peer.counts.pipe.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn answer_to_what_was_not_asked_ends_the_stream_and_the_next_lookup_opens_another() {
    let mut peer = Peer::start(Methods::Pipe);
    let (line, _plugin) = peer.line(LONG).await;
    let ([one, two], _, answers) = two_batches(&mut peer, &line).await;
    answers.send(Ok(PipeResponse { batch: 99, ..PipeResponse::default() })).await.unwrap();
    assert_eq!((one.await.unwrap(), two.await.unwrap()), (Err(INTERNAL), Err(INTERNAL)));
    works_on_a_new_stream(&mut peer, &line).await;
}

#[tokio::test]
async fn stream_that_fails_fails_what_is_on_it_at_once_and_no_more() {
    let mut peer = Peer::start(Methods::Pipe);
    let (line, _plugin) = peer.line(LONG).await;
    let ([one, two], _, answers) = two_batches(&mut peer, &line).await;
    let waiting = ask(&line, "waiting");
    super::until(|| line.gets.max_capacity() - line.gets.capacity() == 1).await;
    answers.send(Err(Status::data_loss("it is broken"))).await.unwrap();
    let lost = Unavailable::Failed(Code::DataLoss);
    assert_eq!((one.await.unwrap(), two.await.unwrap()), (Err(lost), Err(lost)));
    works_on_a_new_stream(&mut peer, &line).await;
    assert_eq!(waiting.await.unwrap(), Ok(value_of("waiting")));
}

/// Answers what arrives on another stream until a lookup is answered.
async fn works_on_a_new_stream(peer: &mut Peer, line: &Line) {
    let counts = std::sync::Arc::clone(&peer.counts);
    let answered = tokio::select! {
        answered = line.get("next".into()) => answered,
        () = peer.work() => panic!("the plugin has ended"),
    };
    assert_eq!(answered, Ok(value_of("next")));
    assert_eq!(counts.pipe.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn lookup_that_finds_the_queue_full_is_turned_away_and_nothing_else_suffers() {
    let mut peer = Peer::start(Methods::Pipe);
    let (line, _plugin) = peer.line(LONG).await;
    let ([one, two], [first, second], answers) = two_batches(&mut peer, &line).await;
    let mut crowd = JoinSet::new();
    for number in 0..WAITING_GETS {
        let line = line.clone();
        crowd.spawn(async move { (number % 10, line.get(format!("{}", number % 10)).await) });
    }
    super::until(|| line.gets.capacity() == 0).await;
    assert_eq!(line.get("one too many".into()).await, Err(Unavailable::Overloaded));

    let stored = store(&line, "stores have a queue of their own");
    let (batch, _) = peer.batch().await;
    for request in [&batch, &second, &first] {
        answers.send(Ok(right(request))).await.unwrap();
    }
    assert_eq!(stored.await.unwrap(), Ok(()));
    assert_eq!((one.await.unwrap(), two.await.unwrap()), (Ok(value_of("one")), Ok(value_of("two"))));
    let all_answered = async {
        while let Some(answered) = crowd.join_next().await {
            let (key, answer) = answered.unwrap();
            assert_eq!(answer, Ok(value_of(&key.to_string())));
        }
        assert_eq!(line.get("there is room again".into()).await, Ok(value_of("there is room again")));
    };
    tokio::select! {
        () = all_answered => {}
        () = peer.work() => panic!("the plugin has ended"),
    }
}

#[tokio::test]
async fn store_that_finds_the_queue_full_is_turned_away_and_nothing_else_suffers() {
    let mut peer = Peer::start(Methods::Pipe);
    let (line, _plugin) = peer.line(LONG).await;
    let under_way = store(&line, "under way");
    let (batch, answers) = peer.batch().await;
    let mut crowd = JoinSet::new();
    for number in 0..WAITING_SETS {
        let line = line.clone();
        let request = SetRequest { key: number.to_string(), ..SetRequest::default() };
        crowd.spawn(async move { line.set(request).await });
    }
    super::until(|| line.sets.capacity() == 0).await;
    assert_eq!(line.set(SetRequest::default()).await, Err(Unavailable::Overloaded));

    let lookup = ask(&line, "lookups have a queue of their own");
    let (lookups, _) = peer.batch().await;
    for request in [&lookups, &batch] {
        answers.send(Ok(right(request))).await.unwrap();
    }
    assert!(lookup.await.unwrap().is_ok());
    assert_eq!(under_way.await.unwrap(), Ok(()));
    let all_stored = async {
        while let Some(stored) = crowd.join_next().await {
            assert_eq!(stored.unwrap(), Ok(()));
        }
        assert_eq!(line.set(SetRequest::default()).await, Ok(()));
    };
    tokio::select! {
        () = all_stored => {}
        () = peer.work() => panic!("the plugin has ended"),
    }
}

#[tokio::test]
async fn store_delays_no_lookup_and_has_errors_of_its_own() {
    let mut peer = Peer::start(Methods::Pipe);
    let (line, _plugin) = peer.line(LONG).await;
    let alone = store(&line, "first");
    let (first, answers) = peer.batch().await;
    let pair = [store(&line, "a"), store(&line, "b")];
    super::until(|| line.sets.max_capacity() - line.sets.capacity() == 2).await;
    for key in ["x", "y"] {
        let lookup = ask(&line, key);
        let (batch, _) = peer.batch().await;
        assert!(batch.sets.is_empty());
        answers.send(Ok(right(&batch))).await.unwrap();
        assert_eq!(lookup.await.unwrap(), Ok(value_of(key)));
    }
    answers.send(Ok(right(&first))).await.unwrap();
    assert_eq!(alone.await.unwrap(), Ok(()));
    let (batch, _) = peer.batch().await;
    assert_eq!(batch.sets.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let error = SetError { index: 1, code: Code::ResourceExhausted.into(), message: "full".into() };
    let response = PipeResponse { batch: batch.batch, gets: vec![], set_errors: vec![error] };
    answers.send(Ok(response)).await.unwrap();
    let [a, b] = pair;
    assert_eq!(a.await.unwrap(), Ok(()));
    assert_eq!(b.await.unwrap(), Err(Unavailable::Failed(Code::ResourceExhausted)));
}

/// Looks up until the plugin has been asked again and has answered.
async fn recovers(line: &Line) {
    let asks = async {
        while line.get("back".into()).await != Ok(value_of("back")) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LONG / 2, asks).await.expect("it is never asked again");
}

#[tokio::test]
async fn plugin_that_does_not_answer_is_soon_not_asked_and_asked_again_later() {
    let mut peer = Peer::start(Methods::Pipe);
    let (line, _plugin) = peer.line(PATIENT).await;
    let mut asked = 0;
    // Each misses its deadline, until the line rests.
    while line.get("hung".into()).await != Err(Unavailable::Down) {
        asked += 1;
        assert!(asked < 100, "it is asked again and again");
    }
    assert_eq!(line.get("turned away".into()).await, Err(Unavailable::Down));
    let is_trusted_again = async {
        recovers(&line).await;
        for _ in 0..10 {
            assert_eq!(line.get("back".into()).await, Ok(value_of("back")));
        }
    };
    tokio::select! {
        () = is_trusted_again => {}
        () = peer.work() => panic!("the plugin has ended"),
    }
}

#[tokio::test]
async fn plugin_without_a_stream_that_stores_and_never_answers_lookups_is_left_alone_too() {
    for methods in [Methods::Single, Methods::Many] {
        let log = Logged::begin();
        let peer = Peer::start(methods);
        let (line, _plugin) = peer.line(SHORT).await;
        let hung = peer.lookups.acquire_many(PERMITS as u32).await.unwrap();
        let mut asked = 0;
        while line.get("hung".into()).await != Err(Unavailable::Down) {
            asked += 1;
            assert!(asked < 100, "{methods:?}: it is asked again and again");
            // As whoever has calculated the number does.
            let _stored_or_not = line.set(SetRequest::default()).await;
        }
        assert_eq!(line.get("turned away".into()).await, Err(Unavailable::Down));
        assert_eq!(line.set(SetRequest::default()).await, Err(Unavailable::Down));
        let lines = log.lines();
        let told = lines.iter().filter(|line| line.message().contains("does not answer")).count();
        assert_eq!(told, 1, "{methods:?}");
        drop(hung);
        recovers(&line).await;
        assert_eq!(line.set(SetRequest::default()).await, Ok(()));
    }
}

#[tokio::test]
async fn plugin_whose_trial_ends_the_stream_is_trusted_again() {
    let mut peer = Peer::start(Methods::Pipe);
    let (line, _plugin) = peer.line(PATIENT).await;
    while line.get("hung".into()).await != Err(Unavailable::Down) {}
    while peer.arrivals.try_recv().is_ok() {}
    let lost = Err(Unavailable::Failed(Code::DataLoss));
    let fails_once = async {
        while line.get("trial".into()).await != lost {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for _ in 0..10 {
            assert_eq!(line.get("back".into()).await, Ok(value_of("back")));
        }
    };
    let breaks_the_stream = async {
        loop {
            if let Arrival::Batch(batch, answers) = peer.arrival().await
                && batch.gets == ["trial"]
            {
                answers.send(Err(Status::data_loss("it is broken"))).await.unwrap();
                break;
            }
        }
        peer.work().await;
    };
    tokio::select! {
        () = fails_once => {}
        () = breaks_the_stream => panic!("the plugin has ended"),
    }
}

#[tokio::test]
async fn plugin_whose_trial_has_no_answer_that_fits_is_tried_again() {
    let mut peer = Peer::start(Methods::Pipe);
    let (line, _plugin) = peer.line(SHORT).await;
    while line.get("hung".into()).await != Err(Unavailable::Down) {}
    while peer.arrivals.try_recv().is_ok() {}
    let answers_at_last = async {
        let trial = loop {
            if let Arrival::Batch(batch, answers) = peer.arrival().await
                && batch.gets == ["back"]
            {
                break answers;
            }
        };
        trial.send(Ok(PipeResponse { batch: 99, ..PipeResponse::default() })).await.unwrap();
        peer.work().await;
    };
    tokio::select! {
        () = recovers(&line) => {}
        () = answers_at_last => panic!("the plugin has ended"),
    }
}

#[tokio::test]
async fn plugin_whose_stores_hang_has_one_and_looks_up_all_the_while() {
    let log = Logged::begin();
    let mut peer = Peer::start(Methods::Pipe);
    let (line, _plugin) = peer.line(PATIENT).await;
    let (stuck, hung) = std::sync::mpsc::channel();
    let arrivals = &mut peer.arrivals;
    let works = async {
        while let Some(arrival) = arrivals.recv().await {
            match arrival {
                Arrival::Batch(batch, answers) if batch.sets.is_empty() => {
                    answers.send(Ok(right(&batch))).await.unwrap();
                }
                Arrival::Batch(batch, answers) => stuck.send((batch, answers)).unwrap(),
                Arrival::End(_) => panic!("the stream has ended"),
            }
        }
    };
    let uses = async {
        let begun = Instant::now();
        while begun.elapsed() < PATIENT * 3 {
            let stored = line.set(SetRequest { key: "a".into(), ..SetRequest::default() }).await;
            assert!(matches!(stored, Err(Unavailable::TimedOut | Unavailable::Overloaded)), "{stored:?}");
            assert_eq!(line.get("a".into()).await, Ok(value_of("a")));
        }
        let (batch, answers) = hung.try_recv().unwrap();
        assert!(hung.try_recv().is_err(), "it has more than one");
        answers.send(Ok(right(&batch))).await.unwrap();
        // Then there is another.
        while line.set(SetRequest::default()).await == Err(Unavailable::Overloaded) {}
        assert!(hung.try_recv().is_ok());
        let warned =
            log.lines().into_iter().filter(|line| line.message().contains("does not answer a store"));
        assert_eq!(warned.count(), 1);
    };
    tokio::select! {
        () = uses => {}
        () = works => panic!("the plugin has ended"),
    }
}

#[tokio::test]
async fn ways_are_found_out_once() {
    for (methods, expected) in [
        // Get, Set, GetMany, SetMany, Pipe.
        (Methods::Single, [10, 10, 1, 1, 1]),
        (Methods::Many, [0, 0, 10, 10, 1]),
    ] {
        let peer = Peer::start(methods);
        let (line, _plugin) = peer.line(LONG).await;
        for number in 0..10 {
            let key = number.to_string();
            assert_eq!(line.get(key.clone()).await, Ok(value_of(&key)), "{methods:?}");
            assert_eq!(line.set(SetRequest { key, ..SetRequest::default() }).await, Ok(()), "{methods:?}");
        }
        let counts = &peer.counts;
        let counts = [&counts.get, &counts.set, &counts.get_many, &counts.set_many, &counts.pipe]
            .map(|count| count.load(Ordering::SeqCst));
        assert_eq!(counts, expected, "{methods:?}");
    }
}

#[tokio::test]
async fn calls_that_come_together_are_all_answered_whatever_the_plugin_lacks() {
    for methods in [Methods::Single, Methods::Many] {
        let peer = Peer::start(methods);
        let (line, _plugin) = peer.line(LONG).await;
        let mut calls = JoinSet::new();
        for number in 0..500 {
            let (line, key) = (line.clone(), number.to_string());
            calls.spawn(async move { (line.get(key.clone()).await, value_of(&key)) });
        }
        while let Some(call) = calls.join_next().await {
            let (answer, expected) = call.unwrap();
            assert_eq!(answer, Ok(expected), "{methods:?}");
        }
    }
}

#[tokio::test]
async fn dying_plugin_fails_what_is_under_way_at_once_and_is_used_again_when_it_is_back() {
    let mut peer = Peer::start(Methods::Pipe);
    let (line, plugin) = peer.line(LONG).await;
    let (asking, _, _) = two_batches(&mut peer, &line).await;
    let waiting = ask(&line, "waiting");
    super::until(|| line.gets.max_capacity() - line.gets.capacity() == 1).await;
    let died = Instant::now();
    peer.die();
    for asking in asking.into_iter().chain([waiting]) {
        assert!(asking.await.unwrap().is_err());
    }
    let mut channel = plugin.channel();
    if channel.instance().is_some() {
        channel.instance_changed(channel.instance()).await;
    }
    assert_eq!(line.get("down".into()).await, Err(Unavailable::Down));
    assert!(died.elapsed() < LONG / 2);
    peer.live();
    channel.instance_changed(None).await;
    let next = ask(&line, "next");
    let (batch, answers) = peer.batch().await;
    answers.send(Ok(right(&batch))).await.unwrap();
    assert_eq!(next.await.unwrap(), Ok(value_of("next")));
}

#[tokio::test]
async fn unused_stream_is_ended_and_another_opened_when_needed() {
    let mut peer = Peer::start(Methods::Pipe);
    let (line, _plugin) = peer.line(LONG).await;
    for streams in 1..=2 {
        let lookup = ask(&line, "a");
        let (batch, answers) = peer.batch().await;
        answers.send(Ok(right(&batch))).await.unwrap();
        lookup.await.unwrap().unwrap();
        assert!(matches!(peer.arrival().await, Arrival::End(_)));
        assert_eq!(peer.counts.pipe.load(Ordering::SeqCst), streams);
    }
}

#[tokio::test]
async fn stream_is_ended_a_second_after_its_last_use_however_long_calls_may_take() {
    let mut peer = Peer::start(Methods::Pipe);
    let (line, _plugin) = peer.line(LONG).await;
    let lookup = ask(&line, "a");
    let (batch, answers) = peer.batch().await;
    // Until it was looked for what is unused, and this was not: after a second, of which a test sees nothing. To wait for longer does
    // no harm.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    answers.send(Ok(right(&batch))).await.unwrap();
    lookup.await.unwrap().unwrap();
    assert!(matches!(peer.arrival().await, Arrival::End(_)));
}

#[tokio::test]
async fn stream_that_ends_in_good_order_with_calls_open_is_told_once() {
    let log = Logged::begin();
    let mut peer = Peer::start(Methods::Pipe);
    let (line, _plugin) = peer.line(LONG).await;
    for key in ["a", "b"] {
        let lookup = ask(&line, key);
        let (_, answers) = peer.batch().await;
        answers.send(Err(Status::ok("the end"))).await.unwrap();
        assert_eq!(lookup.await.unwrap(), Err(Unavailable::Failed(Code::Unavailable)));
        assert!(matches!(peer.arrival().await, Arrival::End(_)));
    }
    let lines = log.lines();
    let told = lines.iter().filter(|line| line.message().contains("before it has answered all"));
    assert_eq!(told.count(), 1);
}

/// The lines about what fails, by what is said.
fn said<'a>(lines: &'a [plugin_testkit::Line], message: &str) -> Vec<&'a str> {
    lines.iter().filter(|line| line.message() == message).map(|line| line.field("said")).collect()
}

#[tokio::test]
async fn log_says_once_why_entries_were_not_stored() {
    let log = Logged::begin();
    let mut peer = Peer::start(Methods::Pipe);
    let (line, _plugin) = peer.line(LONG).await;
    let full = "the disk is full\n\u{1b}[31m".to_owned() + &"!".repeat(1_000);
    for (code, message) in [
        (Code::Internal, full.as_str()),
        (Code::Internal, "the disk is full"),
        (Code::PermissionDenied, "not allowed"),
        (Code::Internal, "the disk is full"),
    ] {
        let stored = store(&line, "a");
        let (batch, answers) = peer.batch().await;
        let error = SetError { index: 0, code: code.into(), message: message.into() };
        let response = PipeResponse { batch: batch.batch, gets: vec![], set_errors: vec![error] };
        answers.send(Ok(response)).await.unwrap();
        assert_eq!(stored.await.unwrap(), Err(Unavailable::Failed(code)));
    }
    let lines = log.lines();
    let said = said(&lines, "the cache plugin fails to store");
    let [long, other] = said[..] else { panic!("{said:?}") };
    assert!(long.starts_with("the disk is full\\n\\u{1b}[31m!!!") && long.ends_with("!…"), "{long}");
    assert!(long.len() < 400);
    assert_eq!(other, "not allowed");
}

#[tokio::test]
async fn log_says_once_why_calls_fail_whatever_way_they_take() {
    for methods in [Methods::Single, Methods::Many] {
        let log = Logged::begin();
        let peer = Peer::start(methods);
        let (line, _plugin) = peer.line(LONG).await;
        *peer.fault.lock().unwrap() = Some(Status::data_loss("row 17 is damaged"));
        for _ in 0..3 {
            assert_eq!(line.get("17".into()).await, Err(Unavailable::Failed(Code::DataLoss)));
            let stored = line.set(SetRequest { key: "17".into(), ..SetRequest::default() }).await;
            assert_eq!(stored, Err(Unavailable::Failed(Code::DataLoss)));
        }
        line.close().await;
        for message in ["the cache plugin fails to look up", "the cache plugin fails to store"] {
            assert_eq!(said(&log.lines(), message), ["row 17 is damaged"], "{methods:?}");
        }
    }
}

#[tokio::test]
async fn log_says_once_that_lookups_fail_and_why_a_stream_has_ended() {
    let log = Logged::begin();
    let mut peer = Peer::start(Methods::Pipe);
    let (line, _plugin) = peer.line(LONG).await;
    for _ in 0..3 {
        let lookup = ask(&line, "a");
        let (batch, answers) = peer.batch().await;
        answers.send(Ok(PipeResponse { batch: batch.batch, ..PipeResponse::default() })).await.unwrap();
        assert_eq!(lookup.await.unwrap(), Err(INTERNAL));
        let lookup = ask(&line, "a");
        peer.batch().await;
        answers.send(Err(Status::data_loss("it is broken"))).await.unwrap();
        assert_eq!(lookup.await.unwrap(), Err(Unavailable::Failed(Code::DataLoss)));
        assert!(matches!(peer.arrival().await, Arrival::End(_)));
    }
    let lines = log.lines();
    assert_eq!(said(&lines, "the cache plugin fails to look up").len(), 1);
    assert_eq!(said(&lines, "the cache plugin has ended its stream with an error"), ["it is broken"]);
}

#[tokio::test]
async fn closed_line_waits_for_calls_that_are_made_alone() {
    let peer = Peer::start(Methods::Single);
    let (line, _plugin) = peer.line(LONG).await;
    assert!(line.get("this finds the way".into()).await.is_ok());
    let held = peer.permits.acquire_many(PERMITS as u32).await.unwrap();
    let asking = ask(&line, "slow");
    super::until(|| peer.counts.get.load(Ordering::SeqCst) == 2).await;
    let mut closing = tokio::spawn({
        let line = line.clone();
        async move { line.close().await }
    });
    super::until(|| line.gets.is_closed()).await;
    assert_eq!(line.get("late".into()).await, Err(Unavailable::Down));
    assert!(tokio::time::timeout(SHORT, &mut closing).await.is_err(), "it has not waited");
    drop(held);
    assert_eq!(asking.await.unwrap(), Ok(value_of("slow")));
    closing.await.unwrap();
    assert_eq!(peer.counts.get.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn closed_line_waits_for_answers_and_takes_no_more_calls() {
    let mut peer = Peer::start(Methods::Pipe);
    let (line, _plugin) = peer.line(LONG).await;
    let ([one, two], [first, second], answers) = two_batches(&mut peer, &line).await;
    let closing = tokio::spawn({
        let line = line.clone();
        async move { line.close().await }
    });
    let Arrival::End(ending) = peer.arrival().await else { panic!("a batch came") };
    assert_eq!(line.get("late".into()).await, Err(Unavailable::Down));
    assert!(!closing.is_finished());
    for request in [&first, &second] {
        answers.send(Ok(right(request))).await.unwrap();
    }
    drop((answers, ending));
    closing.await.unwrap();
    assert_eq!((one.await.unwrap(), two.await.unwrap()), (Ok(value_of("one")), Ok(value_of("two"))));
}

#[tokio::test]
async fn values_of_a_mebibyte_come_back_whole_or_not_at_all() {
    let mut peer = Peer::start(Methods::Pipe);
    let (line, _plugin) = peer.line(LONG).await;
    let value = |number: u8| vec![number; cache_proto::MAX_VALUE_BYTES];
    let mut stores = JoinSet::new();
    for number in 0..5 {
        let request = SetRequest { key: number.to_string(), value: value(number).into(), ttl: None };
        let line = line.clone();
        stores.spawn(async move { line.set(request).await });
    }
    for _ in 0..5 {
        let (batch, answers) = peer.batch().await;
        let [entry] = &batch.sets[..] else { panic!("{} entries in one batch", batch.sets.len()) };
        assert_eq!(entry.value, value(entry.key.parse().unwrap()));
        answers.send(Ok(right(&batch))).await.unwrap();
    }
    assert!(stores.join_all().await.into_iter().all(|stored| stored.is_ok()));

    let hit = |number: u8| {
        let hit = cache_proto::Hit { value: value(number).into(), ..cache_proto::Hit::default() };
        GetResponse { outcome: Some(cache_proto::get_response::Outcome::Hit(hit)) }
    };
    let lookup = ask(&line, "3");
    let (batch, answers) = peer.batch().await;
    let response = |gets| PipeResponse { batch: batch.batch, gets, set_errors: vec![] };
    answers.send(Ok(response(vec![hit(3)]))).await.unwrap();
    assert_eq!(lookup.await.unwrap(), Ok(hit(3)));

    // More than a message may hold is not read, and is the end of the stream.
    let lookup = ask(&line, "4");
    let (batch, answers) = peer.batch().await;
    let response = PipeResponse { batch: batch.batch, gets: vec![hit(4); 5], set_errors: vec![] };
    answers.send(Ok(response)).await.unwrap();
    assert!(matches!(lookup.await.unwrap(), Err(Unavailable::Failed(_))));
    works_on_a_new_stream(&mut peer, &line).await;
}
