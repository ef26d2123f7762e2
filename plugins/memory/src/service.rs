//! What the plugin serves: calls of the contract to calls of the [`Store`], and back.
//!
//! No method waits for anything, and only one hands its work to another thread: to free all entries may take seconds.

use std::time::Instant;

use cache_proto::{Cache, Entry, Lookup, MissReason, StatsResponse};
use tonic::Status;

use crate::cache::{self, Limits, Stats, Store};

/// A cache in this process's own memory.
pub struct MemoryCache<C = fn() -> Instant> {
    store: Store,
    clock: C,
}

impl MemoryCache {
    /// An empty cache that goes by the clock of the machine.
    pub fn new(limits: Limits) -> Self {
        Self { store: Store::new(limits), clock: Instant::now }
    }
}

impl<C: Fn() -> Instant + Send + Sync + 'static> Cache for MemoryCache<C> {
    async fn get(&self, key: &str) -> Result<Lookup, Status> {
        Ok(self.store.get(key, (self.clock)()).into())
    }

    async fn set(&self, entry: Entry) -> Result<(), Status> {
        self.set_many(vec![entry]).await.into_iter().collect()
    }

    async fn get_many(&self, keys: &[String]) -> Vec<Result<Lookup, Status>> {
        let now = (self.clock)();
        keys.iter().map(|key| Ok(self.store.get(key, now).into())).collect()
    }

    async fn set_many(&self, entries: Vec<Entry>) -> Vec<Result<(), Status>> {
        let now = (self.clock)();
        let store = |Entry { key, value, ttl }: Entry| self.store.set(&key, &value, ttl, now);
        let results = entries.into_iter().map(store).map(Ok).collect();
        self.store.settle();
        results
    }

    async fn delete(&self, keys: &[String]) -> Result<u64, Status> {
        let now = (self.clock)();
        Ok(keys.iter().map(|key| u64::from(self.store.remove(key, now))).sum())
    }

    async fn flush(&self) -> Result<(), Status> {
        let removed = self.store.clear();
        // Awaited, so that the room is there when it answers. It fails only while the plugin ends.
        let _freed = tokio::task::spawn_blocking(move || drop(removed)).await;
        Ok(())
    }

    async fn stats(&self) -> Result<StatsResponse, Status> {
        let Stats { entries, bytes, capacity_bytes, hits, misses, evictions, expirations } =
            self.store.stats();
        Ok(StatsResponse { entries, bytes, capacity_bytes, hits, misses, evictions, expirations })
    }
}

impl From<cache::Lookup> for Lookup {
    fn from(lookup: cache::Lookup) -> Self {
        match lookup {
            cache::Lookup::Hit { value, remaining } => Self::Hit { value, remaining },
            cache::Lookup::Expired => Self::Miss(MissReason::Expired),
            cache::Lookup::NotFound => Self::NOT_FOUND,
        }
    }
}

#[cfg(test)]
mod tests;
