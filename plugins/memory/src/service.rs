//! The Cache service: requests to calls of the [`Store`], and back.
//!
//! No method waits for anything, so none hands its work to another thread.

use std::time::{Duration, Instant};

use cache_proto::cache_server::Cache;
use cache_proto::get_response::Outcome;
use cache_proto::{
    DeleteRequest, DeleteResponse, FlushRequest, FlushResponse, GetManyRequest, GetManyResponse, GetRequest,
    GetResponse, Hit, Miss, MissReason, SetManyRequest, SetManyResponse, SetRequest, SetResponse,
    StatsRequest, StatsResponse,
};
use prost::Message;
use tonic::{Request, Response, Status};

use crate::cache::{Limits, Lookup, Stats, Store};
use crate::request::{NewEntry, check_all, check_key};

/// Serves a [`Store`] of its own.
pub(crate) struct MemoryCache<C = fn() -> Instant> {
    store: Store,
    clock: C,
}

impl MemoryCache {
    /// An empty cache that goes by the clock of the machine.
    pub(crate) fn new(limits: Limits) -> Self {
        Self { store: Store::new(limits), clock: Instant::now }
    }
}

impl<C: Fn() -> Instant> MemoryCache<C> {
    fn look_up(&self, key: &str) -> GetResponse {
        let outcome = match self.store.get(key, (self.clock)()) {
            Lookup::Hit { value, remaining } => {
                Outcome::Hit(Hit { value, ttl_remaining: remaining.map(to_proto) })
            }
            Lookup::Expired => miss(MissReason::Expired),
            Lookup::NotFound => miss(MissReason::NotFound),
        };
        GetResponse { outcome: Some(outcome) }
    }

    fn store(&self, entries: impl IntoIterator<Item = NewEntry>) {
        let now = (self.clock)();
        for NewEntry { key, value, ttl } in entries {
            self.store.set(&key, &value, ttl, now);
        }
        self.store.settle();
    }
}

#[tonic::async_trait]
impl<C: Fn() -> Instant + Send + Sync + 'static> Cache for MemoryCache<C> {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let key = check_key(request.into_inner().key)?;
        Ok(Response::new(self.look_up(&key)))
    }

    async fn set(&self, request: Request<SetRequest>) -> Result<Response<SetResponse>, Status> {
        let entry = NewEntry::try_from(request.into_inner())?;
        self.store([entry]);
        Ok(Response::new(SetResponse {}))
    }

    async fn get_many(&self, request: Request<GetManyRequest>) -> Result<Response<GetManyResponse>, Status> {
        let keys = check_all("keys", request.into_inner().keys, check_key)?;
        let mut room = MAX_HIT_BYTES;
        let results = keys.iter().map(|key| within(&mut room, self.look_up(key))).collect();
        Ok(Response::new(GetManyResponse { results }))
    }

    async fn set_many(&self, request: Request<SetManyRequest>) -> Result<Response<SetManyResponse>, Status> {
        let entries = check_all("entries", request.into_inner().entries, NewEntry::try_from)?;
        self.store(entries);
        Ok(Response::new(SetManyResponse {}))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        let keys = check_all("keys", request.into_inner().keys, check_key)?;
        let now = (self.clock)();
        let removed = keys.iter().map(|key| u64::from(self.store.remove(key, now))).sum();
        Ok(Response::new(DeleteResponse { removed }))
    }

    async fn flush(&self, _: Request<FlushRequest>) -> Result<Response<FlushResponse>, Status> {
        self.store.clear();
        Ok(Response::new(FlushResponse {}))
    }

    async fn stats(&self, _: Request<StatsRequest>) -> Result<Response<StatsResponse>, Status> {
        let Stats { entries, bytes, capacity_bytes, hits, misses, evictions, expirations } =
            self.store.stats();
        Ok(Response::new(StatsResponse {
            entries,
            bytes,
            capacity_bytes,
            hits,
            misses,
            evictions,
            expirations,
        }))
    }
}

fn miss(reason: MissReason) -> Outcome {
    Outcome::Miss(Miss { reason: reason.into() })
}

/// Gives a response of a batch as it is if it is a miss or there is still `room` for the hit, and a miss if not.
fn within(room: &mut usize, response: GetResponse) -> GetResponse {
    if let Some(Outcome::Miss(_)) | None = response.outcome {
        return response;
    }
    match room.checked_sub(response.encoded_len()) {
        Some(left) => {
            *room = left;
            response
        }
        None => GetResponse { outcome: Some(miss(MissReason::Unspecified)) },
    }
}

fn to_proto(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        // No duration in the store is longer than the one that came in, which was an `i64`.
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        // Less than a thousand million.
        nanos: duration.subsec_nanos().cast_signed(),
    }
}

/// The most bytes of hits in one answer to `GetMany`; the other keys are misses. gRPC libraries refuse messages of
/// more than 4 MiB unless told otherwise, and a request may name one large value very often. The quarter of
/// a MiB that is left is for the misses and the prefixes of a full batch, which are below 10 bytes for each key.
const MAX_HIT_BYTES: usize = (4 << 20) - (256 << 10);

#[cfg(test)]
mod tests;
