//! The cache that is served: a [`Store`], with lookups counted.

use std::sync::atomic::{AtomicU64, Ordering};

use cache_proto::{Cache, Entry, Lookup, MAX_VALUE_BYTES, MissReason, StatsResponse};
use tonic::Status;

use crate::fault::Fault;
use crate::store::{Found, Store};

/// Serves a [`Store`], and counts.
pub(crate) struct RedisCache {
    store: Store,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl RedisCache {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    async fn look_up(&self, keys: &[String]) -> Result<Vec<Lookup>, Fault> {
        let lookups: Vec<_> = self.store.get(keys).await?.into_iter().map(lookup).collect();
        let hits = lookups.iter().filter(|lookup| matches!(lookup, Lookup::Hit { .. })).count();
        // A `usize` has no more bits than a `u64`.
        self.hits.fetch_add(hits as u64, Ordering::Relaxed);
        self.misses.fetch_add((lookups.len() - hits) as u64, Ordering::Relaxed);
        Ok(lookups)
    }
}

impl Cache for RedisCache {
    async fn get(&self, key: &str) -> Result<Lookup, Status> {
        Ok(self.look_up(&[key.to_owned()]).await?.pop().unwrap_or(MISS))
    }

    async fn set(&self, entry: Entry) -> Result<(), Status> {
        self.set_many(vec![entry]).await.into_iter().collect()
    }

    async fn get_many(&self, keys: &[String]) -> Vec<Result<Lookup, Status>> {
        match self.look_up(keys).await {
            Ok(lookups) => lookups.into_iter().map(Ok).collect(),
            Err(fault) => vec![Err(fault.into()); keys.len()],
        }
    }

    async fn set_many(&self, entries: Vec<Entry>) -> Vec<Result<(), Status>> {
        let results = self.store.set(&entries).await.into_iter();
        results.map(|result| result.map_err(Status::from)).collect()
    }

    async fn delete(&self, keys: &[String]) -> Result<u64, Status> {
        Ok(self.store.delete(keys).await?)
    }

    async fn flush(&self) -> Result<(), Status> {
        Ok(self.store.clear().await?)
    }

    /// What this process has looked up. Redis knows how many entries it holds, what they take and how many it has dropped,
    /// but not which of them are ours.
    async fn stats(&self) -> Result<StatsResponse, Status> {
        Ok(StatsResponse {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            ..StatsResponse::default()
        })
    }
}

/// A value that is larger than the contract allows was put there by somebody else, and is none.
fn lookup(found: Option<Found>) -> Lookup {
    match found {
        Some(Found { value, remaining }) if value.len() <= MAX_VALUE_BYTES => {
            Lookup::Hit { value, remaining }
        }
        _ => MISS,
    }
}

/// Redis does not tell why.
const MISS: Lookup = Lookup::Miss(MissReason::Unspecified);
