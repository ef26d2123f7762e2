//! The service as a host calls it, on a clock that the test moves.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cache_proto::cache_server::Cache;
use cache_proto::get_response::Outcome;
use cache_proto::{
    CacheService, DeleteRequest, FlushRequest, GetManyRequest, GetRequest, Hit, MAX_BATCH_KEYS,
    MAX_MESSAGE_BYTES, Miss, MissReason, SetManyRequest, SetRequest, StatsRequest, StatsResponse,
};
use proptest::prelude::*;
use prost::Message;
use tonic::{Code, Request, Status};

use super::MemoryCache;
use crate::cache::{Limits, Store};

const ROOMY: Limits = Limits { max_entries: 1000, max_bytes: 64 << 20 };

/// A clock that only moves when told to, and only ahead of the machine's: moka goes by that one, and so drops
/// nothing that the test still counts on.
#[derive(Clone)]
struct Clock {
    start: Instant,
    millis: Arc<AtomicU64>,
}

impl Clock {
    fn new() -> Self {
        Self { start: Instant::now(), millis: Arc::default() }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }

    fn advance(&self, millis: u64) {
        self.millis.fetch_add(millis, Ordering::Relaxed);
    }
}

fn cache(limits: Limits) -> (impl Cache, Clock) {
    let clock = Clock::new();
    let hands = clock.clone();
    let cache = MemoryCache { store: Store::new(limits), clock: move || hands.now() };
    (CacheService::new(cache), clock)
}

fn entry(key: &str, value: impl Into<Bytes>, ttl_millis: Option<u64>) -> SetRequest {
    let ttl = ttl_millis.map(|millis| to_proto(Duration::from_millis(millis)));
    SetRequest { key: key.into(), value: value.into(), ttl }
}

fn keys(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|&key| key.into()).collect()
}

async fn set(cache: &impl Cache, entry: SetRequest) -> Result<(), Status> {
    cache.set(Request::new(entry)).await.map(drop)
}

async fn set_many(cache: &impl Cache, entries: Vec<SetRequest>) -> Result<(), Status> {
    cache.set_many(Request::new(SetManyRequest { entries })).await.map(drop)
}

async fn get(cache: &impl Cache, key: &str) -> Result<Outcome, Status> {
    let response = cache.get(Request::new(GetRequest { key: key.into() })).await?;
    Ok(response.into_inner().outcome.expect("an outcome is always given"))
}

async fn get_many(cache: &impl Cache, keys: Vec<String>) -> Result<Vec<Outcome>, Status> {
    let results = cache.get_many(Request::new(GetManyRequest { keys })).await?.into_inner().results;
    Ok(results.into_iter().map(|result| result.outcome.expect("an outcome is always given")).collect())
}

async fn delete(cache: &impl Cache, keys: Vec<String>) -> Result<u64, Status> {
    Ok(cache.delete(Request::new(DeleteRequest { keys })).await?.into_inner().removed)
}

async fn flush(cache: &impl Cache) {
    cache.flush(Request::new(FlushRequest {})).await.expect("flush cannot fail");
}

async fn stats(cache: &impl Cache) -> StatsResponse {
    cache.stats(Request::new(StatsRequest {})).await.expect("stats cannot fail").into_inner()
}

fn miss(reason: MissReason) -> Outcome {
    Outcome::Miss(Miss { reason: reason.into() })
}

fn to_proto(duration: Duration) -> prost_types::Duration {
    duration.try_into().expect("tests use short times")
}

fn hit(value: impl Into<Bytes>, millis: Option<u64>) -> Outcome {
    let ttl_remaining = millis.map(|millis| to_proto(Duration::from_millis(millis)));
    Outcome::Hit(Hit { value: value.into(), ttl_remaining, max_age: None })
}

#[tokio::test]
async fn a_value_comes_back_byte_for_byte() {
    let (cache, _) = cache(ROOMY);
    let every_byte: Vec<u8> = (0..=255).collect();
    set(&cache, entry("é\0", every_byte.clone(), None)).await.unwrap();
    set(&cache, entry("empty", "", None)).await.unwrap();
    assert_eq!(get(&cache, "é\0").await.unwrap(), hit(every_byte, None));
    assert_eq!(get(&cache, "empty").await.unwrap(), hit("", None));
}

#[tokio::test]
async fn a_miss_is_an_answer_and_tells_expired_from_not_found() {
    let (cache, clock) = cache(ROOMY);
    set(&cache, entry("k", "v", Some(1500))).await.unwrap();
    clock.advance(499);
    assert_eq!(get(&cache, "k").await.unwrap(), hit("v", Some(1001)));
    clock.advance(1001);
    assert_eq!(get(&cache, "k").await.unwrap(), miss(MissReason::Expired));
    assert_eq!(get(&cache, "other").await.unwrap(), miss(MissReason::NotFound));
}

#[tokio::test]
async fn a_broken_limit_is_an_invalid_argument_that_names_field_and_size() {
    let (cache, _) = cache(ROOMY);
    let zero = SetRequest { ttl: Some(to_proto(Duration::ZERO)), ..entry("k", "v", None) };
    let long = "k".repeat(251);
    for (result, words) in [
        (set(&cache, entry("", "v", None)).await, ["key", "0 bytes"]),
        (set(&cache, entry(&long, "v", None)).await, ["key", "251 bytes"]),
        (set(&cache, entry("k", vec![0; 1_048_577], None)).await, ["value", "1048577 bytes"]),
        (set(&cache, zero).await, ["ttl", "0 s"]),
        (get(&cache, "").await.map(drop), ["key", "0 bytes"]),
        (get_many(&cache, keys(&["k", &long])).await.map(drop), ["keys[1]", "251 bytes"]),
        (delete(&cache, keys(&[""])).await.map(drop), ["keys[0]", "0 bytes"]),
    ] {
        let status = result.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(words.iter().all(|word| status.message().contains(word)), "{words:?} in {status:?}");
    }
    assert_eq!(stats(&cache).await.entries, 0);
}

#[tokio::test]
async fn one_wrong_entry_stops_a_whole_batch() {
    let (cache, _) = cache(ROOMY);
    set(&cache, entry("a", "old", None)).await.unwrap();
    let batch = vec![entry("a", "new", None), entry("", "v", None), entry("c", "new", None)];
    let status = set_many(&cache, batch).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("entries[1]: key"), "{status:?}");
    assert_eq!(get(&cache, "a").await.unwrap(), hit("old", None));
    assert_eq!(get(&cache, "c").await.unwrap(), miss(MissReason::NotFound));

    let status = delete(&cache, keys(&["a", ""])).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(get(&cache, "a").await.unwrap(), hit("old", None));
}

#[tokio::test]
async fn batches_keep_order_and_repetitions_and_the_later_entry_wins() {
    let (cache, _) = cache(ROOMY);
    set_many(&cache, vec![entry("a", "1", None), entry("b", "2", None), entry("a", "3", None)])
        .await
        .unwrap();
    let results = get_many(&cache, keys(&["b", "none", "a", "b"])).await.unwrap();
    let expected = [hit("2", None), miss(MissReason::NotFound), hit("3", None), hit("2", None)];
    assert_eq!(results, expected);
    assert_eq!(get_many(&cache, vec![]).await.unwrap(), []);
    set_many(&cache, vec![]).await.unwrap();
}

#[tokio::test]
async fn an_answer_to_many_keys_fits_into_one_message() {
    let (cache, _) = cache(ROOMY);
    set(&cache, entry("large", vec![0; 1 << 20], None)).await.unwrap();
    set(&cache, entry("empty", "", None)).await.unwrap();
    let results = get_many(&cache, keys(&["large", "large", "large", "large", "empty"])).await.unwrap();
    assert!(results[..3].iter().all(|result| matches!(result, Outcome::Hit(_))));
    assert_eq!(results[3], miss(MissReason::Unspecified));
    assert_eq!(results[4], hit("", None));
}

#[tokio::test]
async fn an_answer_to_the_most_keys_fits_whatever_the_size_of_their_values() {
    // As many hits as would fit if only their values were counted; then a few more, of any size.
    for (length, fit) in [(0, 10_000), (300, 9_650), (314, 9_200), (1000, 3_000), (100_000, 31)] {
        let (cache, _) = cache(ROOMY);
        set(&cache, entry("k", vec![0; length], Some(60_001))).await.unwrap();
        let request = GetManyRequest { keys: vec!["k".into(); MAX_BATCH_KEYS] };
        let answer = cache.get_many(Request::new(request)).await.unwrap().into_inner();
        let hits = answer.results.iter().filter(|result| matches!(result.outcome, Some(Outcome::Hit(_))));
        assert!(hits.count() >= fit, "{length}");
        assert!(answer.encoded_len() < MAX_MESSAGE_BYTES, "{length}: {}", answer.encoded_len());
    }
}

#[tokio::test]
async fn a_batch_of_more_than_the_most_keys_changes_nothing() {
    let (cache, _) = cache(ROOMY);
    set(&cache, entry("k", "old", None)).await.unwrap();
    let too_many = MAX_BATCH_KEYS + 1;
    for result in [
        get_many(&cache, vec!["k".into(); too_many]).await.map(drop),
        set_many(&cache, vec![entry("k", "new", None); too_many]).await,
        delete(&cache, vec!["k".into(); too_many]).await.map(drop),
    ] {
        assert_eq!(result.unwrap_err().code(), Code::InvalidArgument);
    }
    assert_eq!(get(&cache, "k").await.unwrap(), hit("old", None));
}

#[tokio::test]
async fn delete_counts_what_was_there() {
    let (cache, clock) = cache(ROOMY);
    set(&cache, entry("a", "1", None)).await.unwrap();
    set(&cache, entry("b", "2", None)).await.unwrap();
    set(&cache, entry("expired", "3", Some(1))).await.unwrap();
    clock.advance(1);
    assert_eq!(delete(&cache, keys(&["a", "none", "a", "b", "expired"])).await.unwrap(), 2);
    assert_eq!(delete(&cache, vec![]).await.unwrap(), 0);
    assert_eq!(stats(&cache).await.entries, 0);
}

#[tokio::test]
async fn flush_removes_everything_before_it_answers() {
    let (cache, _) = cache(ROOMY);
    set_many(&cache, (0..500).map(|n| entry(&n.to_string(), "v", Some(60_000))).collect()).await.unwrap();
    flush(&cache).await;
    assert_eq!(get(&cache, "7").await.unwrap(), miss(MissReason::NotFound));
    let stats = stats(&cache).await;
    assert_eq!((stats.entries, stats.bytes, stats.evictions, stats.expirations), (0, 0, 0, 0));
}

#[test]
fn others_are_answered_while_what_was_flushed_is_freed() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.max_blocking_threads(1).build().expect("a runtime can be made");
    runtime.block_on(async {
        let (cache, _) = cache(ROOMY);
        set(&cache, entry("k", "v", None)).await.unwrap();
        // The thread that frees has something else to do.
        let (release, released) = mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || released.recv());
        let mut flush = pin!(flush(&cache));
        assert!(flush.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(get(&cache, "k").await.unwrap(), miss(MissReason::NotFound));
        set(&cache, entry("k", "new", None)).await.unwrap();
        drop(release);
        flush.await;
        assert_eq!(get(&cache, "k").await.unwrap(), hit("new", None));
        busy.await.expect("it does not panic").expect_err("nothing was sent");
    });
}

#[tokio::test]
async fn stats_count_what_happened() {
    let (cache, _) = cache(Limits { max_entries: 2, max_bytes: 10_000 });
    for key in ["a", "b", "c"] {
        set(&cache, entry(key, "four", None)).await.unwrap();
    }
    get(&cache, "c").await.unwrap();
    get_many(&cache, keys(&["a", "b", "none"])).await.unwrap();
    let expected = StatsResponse {
        entries: 2,
        // Two entries fill it, however small.
        bytes: 10_000,
        capacity_bytes: 10_000,
        hits: 2,
        misses: 2,
        evictions: 1,
        expirations: 0,
    };
    assert_eq!(stats(&cache).await, expected);
}

#[derive(Clone, Debug)]
enum Call {
    Get(Vec<u8>),
    Set(Vec<(u8, Vec<u8>, Option<u64>)>),
    Delete(Vec<u8>),
    Flush,
    Advance(u64),
}

fn call() -> impl Strategy<Value = Call> {
    let key = || 0..6_u8;
    let keys = || prop::collection::vec(key(), 0..4);
    let value = prop::collection::vec(any::<u8>(), 0..20);
    let entry = (key(), value, prop::option::of(1..20_u64));
    prop_oneof![
        4 => keys().prop_map(Call::Get),
        4 => prop::collection::vec(entry, 0..4).prop_map(Call::Set),
        2 => keys().prop_map(Call::Delete),
        1 => Just(Call::Flush),
        2 => (1..10_u64).prop_map(Call::Advance),
    ]
}

fn named(numbers: &[u8]) -> Vec<String> {
    numbers.iter().map(u8::to_string).collect()
}

/// What the service should do, in the simplest way to say it. Nothing is evicted here.
#[derive(Default)]
struct Model {
    entries: HashMap<String, (Vec<u8>, Option<u64>)>,
    now: u64,
    hits: u64,
    misses: u64,
}

impl Model {
    fn get(&mut self, key: &str) -> Outcome {
        let outcome = match self.entries.get(key) {
            None => miss(MissReason::NotFound),
            Some((_, Some(end))) if *end <= self.now => miss(MissReason::Expired),
            Some((value, end)) => hit(value.clone(), end.map(|end| end - self.now)),
        };
        *if matches!(outcome, Outcome::Hit(_)) { &mut self.hits } else { &mut self.misses } += 1;
        outcome
    }

    fn delete(&mut self, key: &str) -> u64 {
        let removed = self.entries.remove(key);
        u64::from(removed.is_some_and(|(_, end)| end.is_none_or(|end| end > self.now)))
    }
}

async fn compare(calls: Vec<Call>) -> Result<(), TestCaseError> {
    let (cache, clock) = cache(ROOMY);
    let mut model = Model::default();
    for call in calls {
        match call {
            Call::Get(numbers) => {
                let expected: Vec<_> = named(&numbers).iter().map(|key| model.get(key)).collect();
                prop_assert_eq!(get_many(&cache, named(&numbers)).await.unwrap(), expected);
            }
            Call::Set(entries) => {
                let request = entries
                    .iter()
                    .map(|(number, value, ttl)| entry(&number.to_string(), value.clone(), *ttl))
                    .collect();
                set_many(&cache, request).await.unwrap();
                for (number, value, ttl) in entries {
                    model.entries.insert(number.to_string(), (value, ttl.map(|ttl| model.now + ttl)));
                }
            }
            Call::Delete(numbers) => {
                let expected: u64 = named(&numbers).iter().map(|key| model.delete(key)).sum();
                prop_assert_eq!(delete(&cache, named(&numbers)).await.unwrap(), expected);
            }
            Call::Flush => {
                model.entries.clear();
                flush(&cache).await;
            }
            Call::Advance(millis) => {
                model.now += millis;
                clock.advance(millis);
            }
        }
        let stats = stats(&cache).await;
        prop_assert_eq!(stats.entries, model.entries.len() as u64);
        // All are smaller than a share, which is what an entry counts as at least.
        prop_assert_eq!(stats.bytes, stats.entries * (ROOMY.max_bytes / ROOMY.max_entries));
        prop_assert_eq!((stats.hits, stats.misses), (model.hits, model.misses));
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_calls_are_answered_as_a_plain_map_would(calls in prop::collection::vec(call(), 0..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be made");
        runtime.block_on(compare(calls))?;
    }
}
