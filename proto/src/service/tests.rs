//! Batches of a stream, answered by caches that do what a test wants.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Semaphore;

use super::*;
use crate::Entry;

/// Has Get and Set, which wait for the gate if the key says so. What else there is fails with OK.
struct Simple {
    map: Mutex<HashMap<String, Bytes>>,
    gate: Semaphore,
}

impl Default for Simple {
    fn default() -> Self {
        Self { map: Mutex::default(), gate: Semaphore::new(0) }
    }
}

impl Simple {
    async fn wait(&self, key: &str) -> Result<(), Status> {
        match key {
            _ if key.starts_with("slow") => drop(self.gate.acquire().await),
            "broken" => return Err(Status::data_loss("it is broken")),
            "failing with OK" => return Err(Status::ok("it is well")),
            _ => {}
        }
        Ok(())
    }
}

impl Cache for Simple {
    async fn get(&self, key: &str) -> Result<Lookup, Status> {
        self.wait(key).await?;
        let map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        let hit = |value: &Bytes| Lookup::Hit { value: value.clone(), remaining: None };
        Ok(map.get(key).map_or(Lookup::NOT_FOUND, hit))
    }

    async fn set(&self, entry: Entry) -> Result<(), Status> {
        self.wait(&entry.key).await?;
        self.map.lock().unwrap_or_else(PoisonError::into_inner).insert(entry.key, entry.value);
        Ok(())
    }

    async fn delete(&self, keys: &[String]) -> Result<u64, Status> {
        for key in keys {
            self.wait(key).await?;
        }
        Err(Status::ok("it is well"))
    }

    async fn flush(&self) -> Result<(), Status> {
        Err(Status::ok("it is well"))
    }

    async fn stats(&self) -> Result<StatsResponse, Status> {
        Err(Status::ok("it is well"))
    }
}

/// Has batches, and gives one result too few, or too many.
struct Miscounts;

impl Cache for Miscounts {
    async fn get(&self, _key: &str) -> Result<Lookup, Status> {
        Ok(Lookup::NOT_FOUND)
    }

    async fn set(&self, _entry: Entry) -> Result<(), Status> {
        Ok(())
    }

    async fn get_many(&self, keys: &[String]) -> Vec<Result<Lookup, Status>> {
        vec![Ok(Lookup::NOT_FOUND); keys.len() - 1]
    }

    async fn set_many(&self, entries: Vec<Entry>) -> Vec<Result<(), Status>> {
        vec![Ok(()); entries.len() + 1]
    }
}

fn keys(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|&key| key.into()).collect()
}

fn set(key: &str, value: &'static str) -> SetRequest {
    SetRequest { key: key.into(), value: value.into(), ttl: None }
}

fn gets(batch: u64, gets: &[&str]) -> PipeRequest {
    PipeRequest { batch, gets: keys(gets), sets: vec![] }
}

fn sets(batch: u64, sets: Vec<SetRequest>) -> PipeRequest {
    PipeRequest { batch, gets: vec![], sets }
}

fn hit(value: &'static str) -> GetResponse {
    ASK_EVERY_TIME.respond(Lookup::Hit { value: value.into(), remaining: None })
}

fn not_found() -> GetResponse {
    ASK_EVERY_TIME.respond(Lookup::NOT_FOUND)
}

fn simple() -> Watched<Simple> {
    Watched::new(Simple::default())
}

async fn one(cache: &Watched<impl Cache>, request: PipeRequest) -> PipeResponse {
    answer(cache, ASK_EVERY_TIME, request).await.unwrap()
}

#[tokio::test]
async fn what_batches_store_later_ones_find_in_the_order_of_their_keys() {
    let cache = simple();
    let stored = one(&cache, sets(1, vec![set("a", "1"), set("b", "2"), set("a", "3")])).await;
    assert_eq!(stored, PipeResponse { batch: 1, gets: vec![], set_errors: vec![] });
    let found = one(&cache, gets(2, &["b", "none", "a", "b"])).await;
    assert_eq!(found.gets, [hit("2"), not_found(), hit("3"), hit("2")]);
    assert_eq!(one(&cache, gets(3, &[])).await, PipeResponse { batch: 3, ..PipeResponse::default() });
}

#[tokio::test]
async fn slow_batch_delays_no_other_and_all_are_answered_before_the_end() {
    let cache = Arc::new(simple());
    let requests = [sets(1, vec![set("slow", "1")]), gets(2, &["slow key"]), gets(3, &["a"])];
    let mut answers = Box::pin(pipe(Arc::clone(&cache), ASK_EVERY_TIME, stream::iter(requests.map(Ok))));
    assert_eq!(answers.next().await.unwrap().unwrap().batch, 3);
    cache.cache.gate.add_permits(1);
    let mut rest = [0; 2];
    for batch in &mut rest {
        *batch = answers.next().await.unwrap().unwrap().batch;
    }
    rest.sort_unstable();
    assert_eq!(rest, [1, 2]);
    assert!(answers.next().await.is_none());
}

#[tokio::test]
async fn wrong_keys_and_entries_harm_no_others_of_their_batch() {
    let cache = simple();
    let long = "k".repeat(251);
    let request = sets(1, vec![set("", "1"), set("a", "2"), set(&long, "3"), set("b", "4")]);
    let errors = one(&cache, request).await.set_errors;
    assert!(errors.iter().all(|error| error.code == i32::from(Code::InvalidArgument)), "{errors:?}");
    assert_eq!(errors.iter().map(|error| error.index).collect::<Vec<_>>(), [0, 2]);
    assert!(errors[1].message.contains("251 bytes"), "{errors:?}");
    let found = one(&cache, gets(2, &["", "a", &long, &long, "b"])).await;
    assert_eq!(found.gets, [NEITHER, hit("2"), NEITHER, NEITHER, hit("4")]);
    assert_eq!(one(&cache, gets(3, &["", &long])).await.gets, [NEITHER, NEITHER]);
}

#[tokio::test]
async fn a_key_that_fails_fails_alone() {
    let found = one(&simple(), gets(1, &["broken", "a", "", "broken", "b"])).await;
    assert_eq!(found.gets, [NEITHER, not_found(), NEITHER, NEITHER, not_found()]);
}

#[tokio::test]
async fn lookups_that_all_fail_are_no_misses_and_do_not_end_the_stream() {
    let requests = [gets(1, &["broken", "broken"]), gets(2, &["", "broken"]), gets(3, &["a"])];
    let mut answers: Vec<_> = pipe(Arc::new(simple()), ASK_EVERY_TIME, stream::iter(requests.map(Ok)))
        .map(|answer| answer.unwrap())
        .map(|answer| (answer.batch, answer.gets))
        .collect()
        .await;
    answers.sort_unstable_by_key(|(batch, _)| *batch);
    assert_eq!(answers, [(1, vec![]), (2, vec![]), (3, vec![not_found()])]);
}

#[tokio::test]
async fn an_entry_that_fails_fails_alone_with_what_set_would_have_ended_with() {
    let cache = simple();
    let request = sets(1, vec![set("", "0"), set("a", "1"), set("broken", "2"), set("b", "3")]);
    let mut errors = one(&cache, request).await.set_errors;
    errors.sort_unstable_by_key(|error| error.index);
    let codes: Vec<_> = errors.iter().map(|error| (error.index, Code::from(error.code))).collect();
    assert_eq!(codes, [(0, Code::InvalidArgument), (2, Code::DataLoss)]);
    assert_eq!(errors[1].message, "it is broken");
    assert_eq!(one(&cache, gets(2, &["a", "b"])).await.gets, [hit("1"), hit("3")]);
}

#[tokio::test]
async fn results_that_cannot_be_told_apart_are_failures() {
    let cache = Watched::new(Miscounts);
    assert_eq!(one(&cache, gets(1, &["a", "b"])).await.gets, []);
    let errors = one(&cache, sets(2, vec![set("a", "1"), set("b", "2")])).await.set_errors;
    let codes: Vec<_> = errors.iter().map(|error| (error.index, Code::from(error.code))).collect();
    assert_eq!(codes, [(0, Code::Internal), (1, Code::Internal)]);
}

#[tokio::test]
async fn calls_of_one_batch_fail_as_a_whole_and_store_what_they_can() {
    use crate::cache_server::Cache as _;

    let service = CacheService::new(Simple::default());
    let asked = service.get_many(Request::new(GetManyRequest { keys: keys(&["a", "broken"]) })).await;
    assert_eq!(asked.unwrap_err().code(), Code::DataLoss);
    let entries = vec![set("a", "1"), set("broken", "2"), set("b", "3")];
    let stored = service.set_many(Request::new(SetManyRequest { entries })).await;
    assert_eq!(stored.unwrap_err().message(), "it is broken");
    assert_eq!(one(&service.cache, gets(1, &["a", "b"])).await.gets, [hit("1"), hit("3")]);
}

#[tokio::test]
async fn a_cache_that_fails_with_ok_has_failed_all_the_same() {
    use crate::cache_server::Cache as _;

    let (service, key) = (CacheService::new(Simple::default()), "failing with OK");
    let codes = [
        service.get(Request::new(GetRequest { key: key.into() })).await.unwrap_err().code(),
        service.set(Request::new(set(key, "1"))).await.unwrap_err().code(),
        service.get_many(Request::new(GetManyRequest { keys: keys(&[key]) })).await.unwrap_err().code(),
        service
            .set_many(Request::new(SetManyRequest { entries: vec![set(key, "1")] }))
            .await
            .unwrap_err()
            .code(),
        service.delete(Request::new(DeleteRequest { keys: keys(&[key]) })).await.unwrap_err().code(),
        service.flush(Request::new(FlushRequest {})).await.unwrap_err().code(),
        service.stats(Request::new(StatsRequest {})).await.unwrap_err().code(),
    ];
    assert_eq!(codes, [Code::Unknown; 7]);
    let errors = one(&service.cache, sets(1, vec![set(key, "1")])).await.set_errors;
    assert_eq!(errors.iter().map(|error| Code::from(error.code)).collect::<Vec<_>>(), [Code::Unknown]);
}

/// What is logged, by this thread, for as long as the guard lives.
fn log() -> (Arc<Mutex<Vec<u8>>>, tracing::subscriber::DefaultGuard) {
    let log = Arc::<Mutex<Vec<u8>>>::default();
    let to = Arc::clone(&log);
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || Writer(Arc::clone(&to)));
    (log, tracing::subscriber::set_default(subscriber.finish()))
}

struct Writer(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_fails_is_logged_once_whichever_method_it_is_and_names_nothing_that_is_private() {
    use crate::cache_server::Cache as _;

    for method in ["single", "many", "pipe"] {
        let (log, _guard) = log();
        let service = CacheService::new(Simple::default());
        for _ in 0..10 {
            let (keys, entry) = (keys(&["private", "broken"]), set("broken", "private"));
            match method {
                "single" => {
                    service.get(Request::new(GetRequest { key: "broken".into() })).await.unwrap_err();
                    service.set(Request::new(entry)).await.unwrap_err();
                    service.delete(Request::new(DeleteRequest { keys })).await.unwrap_err();
                }
                "many" => {
                    service.get_many(Request::new(GetManyRequest { keys })).await.unwrap_err();
                    let entries = vec![entry, set("private", "private")];
                    service.set_many(Request::new(SetManyRequest { entries })).await.unwrap_err();
                }
                _ => {
                    let request = PipeRequest { batch: 1, gets: keys, sets: vec![entry] };
                    one(&service.cache, request).await;
                    // What the host does wrong is told to the host.
                    one(
                        &service.cache,
                        PipeRequest { batch: 2, gets: vec![String::new()], sets: vec![set("", "")] },
                    )
                    .await;
                }
            }
        }
        let log = String::from_utf8(log.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = log.lines().collect();
        let expected: &[_] =
            if method == "single" { &["lookups", "stores", "removals"] } else { &["lookups", "stores"] };
        assert_eq!(lines.len(), expected.len(), "{method}: {log}");
        for (line, calls) in lines.iter().zip(expected) {
            let said = format!("{calls} of the cache fail: it is broken code=DataLoss");
            assert!(line.contains("WARN") && line.ends_with(&said), "{method}: {log}");
        }
        assert!(!log.contains("private"), "{method}: {log}");
    }
}

#[tokio::test]
async fn wrong_keys_cost_no_more_than_right_ones_however_many_they_are() {
    let half = crate::MAX_BATCH_KEYS / 2;
    let cache = simple();
    let time = async |key: &str| {
        let mut asked = vec![key; half];
        asked.resize(2 * half, "a");
        let (request, begun) = (gets(1, &asked), processor_time());
        let found = one(&cache, request).await.gets;
        let took = processor_time() - begun;
        assert_eq!(found[half..], vec![not_found(); half]);
        took
    };
    // The fastest of each kind: what the machine does besides costs a little all the same.
    let (mut wrong, mut right) = (Duration::MAX, Duration::MAX);
    for _ in 0..10 {
        (wrong, right) = (wrong.min(time("").await), right.min(time("b").await));
    }
    // Five times, when each made room for itself among the results; now, less.
    assert!(wrong < 2 * right, "{wrong:?}, {right:?}");
}

/// What this thread has used: time in which others ran does not count.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap()
}

#[tokio::test]
async fn too_large_a_batch_ends_the_stream() {
    let request =
        PipeRequest { batch: 1, gets: vec!["k".into(); crate::MAX_BATCH_KEYS], sets: vec![set("k", "v")] };
    let status = answer(&simple(), ASK_EVERY_TIME, request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_answer_fits_into_one_message_whatever_the_size_of_values() {
    let cache = simple();
    let large = SetRequest { key: "large".into(), value: vec![7; 1 << 20].into(), ttl: None };
    assert_eq!(one(&cache, sets(1, vec![large])).await.set_errors, []);
    let answer = one(&cache, gets(2, &["large"; 10])).await;
    let is_hit = |result: &&GetResponse| matches!(result.outcome, Some(Outcome::Hit(_)));
    assert_eq!(answer.gets.iter().filter(is_hit).count(), 3);
    assert!(answer.encoded_len() < MAX_MESSAGE_BYTES);
    let wrong = one(&cache, sets(3, vec![set("", ""); crate::MAX_BATCH_KEYS])).await;
    assert_eq!(wrong.set_errors.len(), crate::MAX_BATCH_KEYS);
    let texts = || wrong.set_errors.iter().map(|error| error.message.len());
    assert!(texts().next() > Some(0), "the first are explained");
    assert!(texts().sum::<usize>() <= MAX_ERROR_TEXT_BYTES);
    assert!(wrong.encoded_len() < MAX_MESSAGE_BYTES);
}

#[tokio::test]
async fn hits_are_leased_only_if_asked_for_and_never_for_longer_than_they_are_valid() {
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let hit = |leases: Leases, remaining| match leases.respond(Lookup::Hit { value: "1".into(), remaining }) {
        GetResponse { outcome: Some(Outcome::Hit(hit)) } => (hit.ttl_remaining, hit.max_age),
        other => panic!("no hit: {other:?}"),
    };
    let minute = Some(Duration::from_secs(60));
    for (max_age, remaining, expected) in [
        (Duration::ZERO, minute, (seconds(60), None)),
        (Duration::from_secs(5), minute, (seconds(60), seconds(5))),
        (Duration::from_secs(61), minute, (seconds(60), seconds(60))),
        (Duration::from_secs(61), None, (None, seconds(61))),
    ] {
        assert_eq!(hit(CacheService::new(Miscounts).max_age(max_age).leases, remaining), expected);
    }
    assert_eq!(hit(CacheService::new(Miscounts).leases, minute), (seconds(60), None));
}

#[tokio::test]
async fn every_method_that_looks_up_grants_leases() {
    use crate::cache_server::Cache as _;

    let service = CacheService::new(Simple::default()).max_age(Duration::from_secs(5));
    service.set(Request::new(set("a", "1"))).await.unwrap();
    let one = service.get(Request::new(GetRequest { key: "a".into() })).await.unwrap().into_inner();
    let many = service.get_many(Request::new(GetManyRequest { keys: keys(&["a"]) })).await.unwrap();
    let batch = answer(&service.cache, service.leases, gets(1, &["a"])).await.unwrap();
    for response in [&one, &many.into_inner().results[0], &batch.gets[0]] {
        let Some(Outcome::Hit(hit)) = &response.outcome else { panic!("no hit: {response:?}") };
        assert_eq!(hit.max_age, Some(prost_types::Duration { seconds: 5, nanos: 0 }));
    }
}

#[tokio::test]
async fn what_has_come_is_answered_before_the_stream_ends() {
    let requests = stream::iter([1, 2]).chain(stream::pending());
    let closing = future::ready(()).boxed().shared();
    let come: Vec<_> = all_come_until(closing, requests).collect().await;
    assert_eq!(come, [1, 2]);
}

#[test]
fn times_are_durations_of_protobuf() {
    assert_eq!(to_proto(Duration::from_secs(12)).seconds, 12);
    assert_eq!(to_proto(Duration::MAX).seconds, 315_576_000_000);
}

/// Has a defect that one key shows.
struct Defective;

impl Cache for Defective {
    async fn get(&self, key: &str) -> Result<Lookup, Status> {
        assert!(key != "defect", "it has a defect");
        Ok(Lookup::Miss(MissReason::Expired))
    }

    async fn set(&self, entry: Entry) -> Result<(), Status> {
        self.get(&entry.key).await.map(drop)
    }
}

/// The same, with batches of its own.
struct DefectiveBatches;

impl Cache for DefectiveBatches {
    async fn get(&self, key: &str) -> Result<Lookup, Status> {
        Defective.get(key).await
    }

    async fn set(&self, entry: Entry) -> Result<(), Status> {
        Defective.set(entry).await
    }

    async fn get_many(&self, keys: &[String]) -> Vec<Result<Lookup, Status>> {
        let mut lookups = Vec::new();
        for key in keys {
            lookups.push(self.get(key).await);
        }
        lookups
    }

    async fn set_many(&self, entries: Vec<Entry>) -> Vec<Result<(), Status>> {
        let mut results = Vec::new();
        for entry in entries {
            results.push(self.set(entry).await);
        }
        results
    }
}

/// Which lookups of batch 2 have an answer, and which stores of batch 3 have failed, each with the defect first; of batch 1 all have.
async fn with_a_defect(cache: impl Cache) -> (Vec<bool>, Vec<u32>) {
    let store = |key| set(key, "1");
    let requests =
        [gets(1, &["good"]), gets(2, &["defect", "good"]), sets(3, vec![store("defect"), store("good")])];
    let cache = Arc::new(Watched::new(cache));
    let answers = pipe(cache, ASK_EVERY_TIME, stream::iter(requests.map(Ok)));
    let mut answers: Vec<_> = answers.map(|answer| answer.expect("the stream goes on")).collect().await;
    answers.sort_by_key(|answer| answer.batch);
    let answered = |answer: &PipeResponse| answer.gets.iter().map(|get| get.outcome.is_some()).collect();
    assert_eq!(answered(&answers[0]), [true].to_vec());
    (answered(&answers[1]), answers[2].set_errors.iter().map(|error| error.index).collect())
}

#[tokio::test]
async fn key_that_panics_is_no_fault_of_the_others() {
    assert_eq!(with_a_defect(Defective).await, (vec![false, true], vec![0]));
    // All lookups of a batch have failed.
    assert_eq!(with_a_defect(DefectiveBatches).await, (vec![], vec![0, 1]));
}
