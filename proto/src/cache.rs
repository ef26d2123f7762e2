//! What the author of a plugin in Rust writes.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use tonic::Status;

use crate::{MissReason, StatsResponse};

/// Lookups under way at a time for [`Cache::get_many`], where that is not written for the cache at hand.
const GETS_AT_A_TIME: usize = 64;

/// A cache that a plugin serves. [`CacheService`](crate::CacheService) makes the contract's service of it, batches and
/// the stream of them included; what is below is all that is left to write, and most of it need not be.
///
/// Whatever comes in is within the contract's limits. All methods may be called at the same time.
///
/// A future may be dropped before it is ready, when its call is cancelled or the stream of its batch ends: what is half
/// done then must do no harm. A host that gives up on one batch of a stream does not say so, and the batch goes on: what
/// could take for ever needs a time limit of its own, or it takes the place of other batches for as long.
///
/// Hosts ask every time, unless [`CacheService::max_age`](crate::CacheService::max_age) lets them do without for a while.
///
/// An error is a fault of the plugin; the host then works on as if there was no cache. A miss is none, and neither is
/// a cache that is full. In batches each key and each entry fails alone; so it does if it panics, unless the batch is the cache's own. The first failure, and each with another code,
/// is a warning in the plugin's log with the status's message, which should therefore name neither keys nor values.
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::Mutex;
///
/// use bytes::Bytes;
/// use cache_proto::{Cache, CacheService, Entry, Lookup, cache_server::CacheServer};
/// use tonic::Status;
///
/// /// Forgets nothing, and so is no good.
/// #[derive(Default)]
/// struct Map(Mutex<HashMap<String, Bytes>>);
///
/// impl Cache for Map {
///     async fn get(&self, key: &str) -> Result<Lookup, Status> {
///         let map = self.0.lock().map_err(|_| Status::internal("poisoned"))?;
///         Ok(map.get(key).map_or(Lookup::NOT_FOUND, |value| Lookup::Hit { value: value.clone(), remaining: None }))
///     }
///
///     async fn set(&self, entry: Entry) -> Result<(), Status> {
///         self.0.lock().map_err(|_| Status::internal("poisoned"))?.insert(entry.key, entry.value);
///         Ok(())
///     }
/// }
///
/// CacheServer::new(CacheService::new(Map::default())); // What a plugin serves.
/// ```
pub trait Cache: Send + Sync + 'static {
    /// Looks one key up.
    fn get(&self, key: &str) -> impl Future<Output = Result<Lookup, Status>> + Send;

    /// Stores an entry, in place of what its key had. A Get that starts afterwards sees it, or a later one, or a miss.
    fn set(&self, entry: Entry) -> impl Future<Output = Result<(), Status>> + Send;

    /// Looks keys up: gives one result for each, in their order. By default by [`get`](Self::get), of which 64 run at a
    /// time.
    fn get_many(&self, keys: &[String]) -> impl Future<Output = Vec<Result<Lookup, Status>>> + Send {
        // Made before they run: a closure in the stream would have to be so for every lifetime.
        let gets: Vec<_> =
            keys.iter().map(|key| unless_it_panics(self.get(key), || Err(panicked()))).collect();
        stream::iter(gets).buffered(GETS_AT_A_TIME).collect()
    }

    /// Stores entries: gives one result for each, in their order. Of two for one key the later has to win. By default by
    /// [`set`](Self::set), one after the other.
    fn set_many(&self, entries: Vec<Entry>) -> impl Future<Output = Vec<Result<(), Status>>> + Send {
        async {
            let mut results = Vec::with_capacity(entries.len());
            for entry in entries {
                results.push(unless_it_panics(self.set(entry), || Err(panicked())).await);
            }
            results
        }
    }

    /// Removes keys, and counts those that were there. By default not implemented.
    fn delete(&self, keys: &[String]) -> impl Future<Output = Result<u64, Status>> + Send {
        let _ = keys;
        not_implemented("Delete")
    }

    /// Removes every entry. By default not implemented.
    fn flush(&self) -> impl Future<Output = Result<(), Status>> + Send {
        not_implemented("Flush")
    }

    /// What the cache holds, and how it has done. By default not implemented.
    fn stats(&self) -> impl Future<Output = Result<StatsResponse, Status>> + Send {
        not_implemented("Stats")
    }
}

/// A value to store, within the limits of the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// 1 to [`MAX_KEY_BYTES`](crate::MAX_KEY_BYTES).
    pub key: String,
    /// Up to [`MAX_VALUE_BYTES`](crate::MAX_VALUE_BYTES). It is a window on the message that it came in: whoever keeps it
    /// for long copies it, or keeps the whole batch.
    pub value: Bytes,
    /// More than zero; `None`: it never expires.
    pub ttl: Option<Duration>,
}

/// What a cache says of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It has a value.
    Hit {
        /// As it was stored, byte for byte.
        value: Bytes,
        /// For how long it is still valid; `None`: it never expires.
        remaining: Option<Duration>,
    },
    /// It has none.
    Miss(MissReason),
}

impl Lookup {
    /// The key was never set, or was removed or dropped.
    pub const NOT_FOUND: Self = Self::Miss(MissReason::NotFound);
}

/// What a call gives, or `instead`: others are at work on the same stream, and whose fault it is not.
pub(crate) async fn unless_it_panics<T>(call: impl Future<Output = T>, instead: impl FnOnce() -> T) -> T {
    // A cache that panics is called again, as it would be were each call one of its own.
    AssertUnwindSafe(call).catch_unwind().await.unwrap_or_else(|_told_by_the_panic_hook| instead())
}

pub(crate) fn panicked() -> Status {
    Status::internal("the cache has panicked")
}

async fn not_implemented<T>(method: &str) -> Result<T, Status> {
    Err(Status::unimplemented(format!("this cache has no {method}")))
}
