//! Batches of a stream, answered by caches that do what a test wants.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures_util::stream;
use tokio::sync::Semaphore;

use super::*;
use crate::Entry;

/// Has Get and Set only, which wait for the gate if the key says so.
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
}

/// Has batches, and gives one result too few.
struct Miscounts;

impl Cache for Miscounts {
    async fn get(&self, _key: &str) -> Result<Lookup, Status> {
        Ok(Lookup::NOT_FOUND)
    }

    async fn set(&self, _entry: Entry) -> Result<(), Status> {
        Ok(())
    }

    async fn get_many(&self, keys: &[String]) -> Result<Vec<Lookup>, Status> {
        Ok(vec![Lookup::NOT_FOUND; keys.len() - 1])
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

async fn one(cache: &impl Cache, request: PipeRequest) -> PipeResponse {
    answer(cache, ASK_EVERY_TIME, request).await.unwrap()
}

#[tokio::test]
async fn what_batches_store_later_ones_find_in_the_order_of_their_keys() {
    let cache = Simple::default();
    let stored = one(&cache, sets(1, vec![set("a", "1"), set("b", "2"), set("a", "3")])).await;
    assert_eq!(stored, PipeResponse { batch: 1, gets: vec![], set_errors: vec![] });
    let found = one(&cache, gets(2, &["b", "none", "a", "b"])).await;
    assert_eq!(found.gets, [hit("2"), not_found(), hit("3"), hit("2")]);
    assert_eq!(one(&cache, gets(3, &[])).await, PipeResponse { batch: 3, ..PipeResponse::default() });
}

#[tokio::test]
async fn slow_batch_delays_no_other_and_all_are_answered_before_the_end() {
    let cache = Arc::new(Simple::default());
    let requests = [sets(1, vec![set("slow", "1")]), gets(2, &["slow key"]), gets(3, &["a"])];
    let mut answers = Box::pin(pipe(Arc::clone(&cache), ASK_EVERY_TIME, stream::iter(requests.map(Ok))));
    assert_eq!(answers.next().await.unwrap().unwrap().batch, 3);
    cache.gate.add_permits(1);
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
    let cache = Simple::default();
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
async fn lookups_that_fail_are_no_misses_and_do_not_end_the_stream() {
    let cache = Arc::new(Simple::default());
    let requests = stream::iter([Ok(gets(1, &["a", "broken"])), Ok(gets(2, &["a"]))]);
    let mut answers: Vec<_> = pipe(cache, ASK_EVERY_TIME, requests)
        .map(|answer| answer.unwrap())
        .map(|answer| (answer.batch, answer.gets))
        .collect()
        .await;
    answers.sort_unstable_by_key(|(batch, _)| *batch);
    assert_eq!(answers, [(1, vec![]), (2, vec![not_found()])]);
    assert_eq!(one(&Miscounts, gets(3, &["a", "b"])).await.gets, []);
}

#[tokio::test]
async fn stores_that_fail_are_told_with_what_set_would_have_ended_with() {
    let request = sets(1, vec![set("", "0"), set("a", "1"), set("broken", "2")]);
    let mut errors = one(&Simple::default(), request).await.set_errors;
    errors.sort_unstable_by_key(|error| error.index);
    let codes: Vec<_> = errors.iter().map(|error| (error.index, Code::from(error.code))).collect();
    // Of a cache that stores one after the other, nobody can say which of them were stored.
    assert_eq!(codes, [(0, Code::InvalidArgument), (1, Code::DataLoss), (2, Code::DataLoss)]);
    assert_eq!(errors[2].message, "it is broken");
}

#[tokio::test]
async fn too_large_a_batch_ends_the_stream() {
    let request =
        PipeRequest { batch: 1, gets: vec!["k".into(); crate::MAX_BATCH_KEYS], sets: vec![set("k", "v")] };
    let status = answer(&Simple::default(), ASK_EVERY_TIME, request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_answer_fits_into_one_message_whatever_the_size_of_values() {
    let cache = Simple::default();
    let large = SetRequest { key: "large".into(), value: vec![7; 1 << 20].into(), ttl: None };
    assert_eq!(one(&cache, sets(1, vec![large])).await.set_errors, []);
    let answer = one(&cache, gets(2, &["large"; 10])).await;
    let is_hit = |result: &&GetResponse| matches!(result.outcome, Some(Outcome::Hit(_)));
    assert_eq!(answer.gets.iter().filter(is_hit).count(), 3);
    assert!(answer.encoded_len() < MAX_MESSAGE_BYTES);
    let wrong = one(&cache, sets(3, vec![set("", ""); crate::MAX_BATCH_KEYS])).await;
    assert_eq!(wrong.set_errors.len(), crate::MAX_BATCH_KEYS);
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
    let batch = answer(&*service.cache, service.leases, gets(1, &["a"])).await.unwrap();
    for response in [&one, &many.into_inner().results[0], &batch.gets[0]] {
        let Some(Outcome::Hit(hit)) = &response.outcome else { panic!("no hit: {response:?}") };
        assert_eq!(hit.max_age, Some(prost_types::Duration { seconds: 5, nanos: 0 }));
    }
}
