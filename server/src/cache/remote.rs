//! Numbers and their texts: what is asked of the cache plugin, and what its answers mean. While no instance of it serves,
//! calls fail at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cache_proto::{
    GetResponse, MissReason, SetRequest, StatsRequest, StatsResponse, cache_client::CacheClient,
    get_response::Outcome,
};
use plugin_sdk::host::{CallError, PluginChannel};
use tonic::{Code, Request, Status};

use super::{Lookup, Miss, line::Line, parse_value};
use crate::{config::CacheConfig, fib::FibIndex};

/// The cache plugin, whichever instance that is at the moment.
#[derive(Clone, Debug)]
pub struct RemoteCache {
    line: Line,
    channel: PluginChannel,
    client: CacheClient<PluginChannel>,
    timeout: Duration,
    ttl: prost_types::Duration,
    /// The number of the instance that has said that it does not implement Stats. A newer one may.
    without_stats: Arc<AtomicU64>,
}

/// Why the cache did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unavailable {
    /// No instance of the plugin is there and well.
    Down,
    /// Too many calls wait for the plugin already.
    Overloaded,
    /// There was no answer in time.
    TimedOut,
    /// The plugin, or the connection to it, has failed.
    Failed(Code),
}

/// An answer to the question what the plugin has counted since its process started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatsAnswer {
    /// Meanings as in the contract.
    Stats(StatsResponse),
    /// This plugin does not count.
    Unsupported,
    /// There was no answer.
    Unavailable(Unavailable),
}

impl RemoteCache {
    /// Calls whichever instance `channel` leads to.
    ///
    /// # Panics
    /// Outside of a tokio run time.
    pub fn new(channel: PluginChannel, config: &CacheConfig) -> Self {
        let ttl = prost_types::Duration::try_from(config.expiration)
            .expect("flags take at most a hundred years, and seconds here are an i64");
        let line = Line::new(channel.clone(), config.timeout);
        let client = CacheClient::new(channel.clone());
        // Instances are counted from 1.
        Self { line, channel, client, timeout: config.timeout, ttl, without_stats: Arc::default() }
    }

    /// Asks for F(n).
    pub(super) async fn get(&self, n: FibIndex) -> Lookup {
        match self.line.get(n.to_string()).await {
            Ok(response) => lookup(response),
            Err(why) => Lookup::Miss(Miss::Unavailable(why)),
        }
    }

    /// Stores F(n) for the configured time.
    pub(super) async fn set(&self, n: FibIndex, value: u64) -> Result<(), Unavailable> {
        let ttl = Some(self.ttl);
        self.line.set(SetRequest { key: n.to_string(), value: value.to_string().into(), ttl }).await
    }

    /// Ends all calls, so that the plugin can be stopped without one being open. Later ones fail.
    pub async fn close(&self) {
        self.line.close().await;
    }

    /// What the plugin has counted.
    pub async fn stats(&self) -> StatsAnswer {
        let instance = self.channel.instance().unwrap_or_default();
        if instance != 0 && self.without_stats.load(Ordering::Relaxed) == instance {
            return StatsAnswer::Unsupported;
        }
        let mut request = Request::new(StatsRequest {});
        request.set_timeout(self.timeout);
        match self.client.clone().stats(request).await {
            Ok(counted) => StatsAnswer::Stats(counted.into_inner()),
            Err(status) if status.code() == Code::Unimplemented => {
                self.without_stats.store(instance, Ordering::Relaxed);
                StatsAnswer::Unsupported
            }
            Err(status) => StatsAnswer::Unavailable(status.into()),
        }
    }
}

impl From<Status> for Unavailable {
    fn from(status: Status) -> Self {
        match CallError::of(&status) {
            Some(CallError::Down | CallError::NotServing | CallError::Suspended) => Self::Down,
            Some(CallError::TimedOut) => Self::TimedOut,
            // The plugin's clock may be first.
            None if status.code() == Code::DeadlineExceeded => Self::TimedOut,
            _ => Self::Failed(status.code()),
        }
    }
}

fn lookup(response: GetResponse) -> Lookup {
    match response.outcome {
        Some(Outcome::Hit(hit)) => match parse_value(&hit.value) {
            // A time that makes no sense is no reason to distrust the value; it only cannot be shown.
            Some(value) => Lookup::Hit { value, ttl_remaining: hit.ttl_remaining.and_then(duration) },
            None => Lookup::Miss(Miss::Corrupt),
        },
        Some(Outcome::Miss(miss)) if miss.reason() == MissReason::Expired => Lookup::Miss(Miss::Expired),
        Some(Outcome::Miss(_)) | None => Lookup::Miss(Miss::NotFound),
    }
}

/// A duration from a plugin, if it is one. By hand, because `TryFrom` of prost-types 0.14 overflows for the most
/// negative ones.
fn duration(wire: prost_types::Duration) -> Option<Duration> {
    let seconds = u64::try_from(wire.seconds).ok()?;
    let nanos = u32::try_from(wire.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use cache_proto::{Hit, Miss as WireMiss};

    use super::*;

    fn hit(value: &'static [u8], ttl: Option<(i64, i32)>) -> GetResponse {
        let ttl_remaining = ttl.map(|(seconds, nanos)| prost_types::Duration { seconds, nanos });
        GetResponse { outcome: Some(Outcome::Hit(Hit { value: value.into(), ttl_remaining, max_age: None })) }
    }

    fn miss(reason: i32) -> GetResponse {
        GetResponse { outcome: Some(Outcome::Miss(WireMiss { reason })) }
    }

    #[test]
    fn responses_and_what_they_mean() {
        let ttl = |millis| Some(Duration::from_millis(millis));
        for (response, expected) in [
            (hit(b"55", None), Lookup::Hit { value: 55, ttl_remaining: None }),
            (hit(b"0", Some((12, 500_000_000))), Lookup::Hit { value: 0, ttl_remaining: ttl(12_500) }),
            (hit(b"1", Some((0, 0))), Lookup::Hit { value: 1, ttl_remaining: ttl(0) }),
            (hit(b"1", Some((-1, 0))), Lookup::Hit { value: 1, ttl_remaining: None }),
            (hit(b"1", Some((i64::MAX, i32::MAX))), Lookup::Hit { value: 1, ttl_remaining: None }),
            (hit(b"1", Some((i64::MIN, i32::MIN))), Lookup::Hit { value: 1, ttl_remaining: None }),
            (hit(b"", None), Lookup::Miss(Miss::Corrupt)),
            (hit(b"not a number", None), Lookup::Miss(Miss::Corrupt)),
            (miss(1), Lookup::Miss(Miss::NotFound)),
            (miss(2), Lookup::Miss(Miss::Expired)),
            (miss(0), Lookup::Miss(Miss::NotFound)),
            (miss(99), Lookup::Miss(Miss::NotFound)),
            (GetResponse { outcome: None }, Lookup::Miss(Miss::NotFound)),
        ] {
            assert_eq!(lookup(response.clone()), expected, "{response:?}");
        }
    }
}
