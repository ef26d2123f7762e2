//! Numbers and their texts: what is asked of the cache plugin, and what its answers mean. While no instance of it serves,
//! calls fail at once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use cache_proto::{GetResponse, Hit, MissReason, SetRequest, get_response::Outcome};
use plugin_sdk::host::{CallError, PluginChannel};
use tonic::{Code, Status};

use super::{
    Lookup, Miss, Source,
    line::Line,
    near::{Look, Near, Number},
    parse_value,
    stats::{Keeping, Stats, StatsAnswer},
};
use crate::{config::CacheConfig, fib::FibIndex};

/// The cache plugin, whichever instance that is at the moment.
#[derive(Clone, Debug)]
pub struct RemoteCache {
    line: Line,
    near: Arc<Near>,
    channel: PluginChannel,
    stats: Arc<Stats>,
    ttl: prost_types::Duration,
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

impl RemoteCache {
    /// Calls whichever instance `channel` leads to.
    ///
    /// # Panics
    /// Outside of a tokio run time.
    pub fn new(channel: PluginChannel, config: &CacheConfig) -> Self {
        let ttl = prost_types::Duration::try_from(config.expiration)
            .expect("flags take at most a hundred years, and seconds here are an i64");
        let line = Line::new(channel.clone(), config.timeout);
        let near = Arc::new(Near::new());
        let keeping = if config.idle_after.is_some() { Keeping::UntilUsed } else { Keeping::Never };
        let stats = Arc::new(Stats::new(channel.clone(), config.timeout, keeping));
        Self { line, near, channel, stats, ttl }
    }

    /// Looks F(n) up: asks for it, unless the plugin has given it with a lease.
    pub(super) async fn get(&self, n: FibIndex) -> Lookup {
        let question = match self.near.look(n, self.channel.instance(), Instant::now()) {
            Look::Leased(Number { value, ttl_remaining }) => {
                return Lookup::Hit { value, ttl_remaining, source: Source::Leased };
            }
            Look::Ask(question) => question,
        };
        let _until_answered = self.stats.begin_use();
        let response = match self.line.get(n.to_string()).await {
            Ok(response) => response,
            Err(why) => return Lookup::Miss(Miss::Unavailable(why)),
        };
        let lookup = lookup(&response);
        match (lookup, response.outcome.as_ref(), max_age(&response)) {
            (Lookup::Hit { value, ttl_remaining, .. }, _, Some(max_age)) => {
                self.near.keep(question, Number { value, ttl_remaining }, max_age);
            }
            (Lookup::Miss(Miss::Corrupt), Some(Outcome::Hit(hit)), _) => {
                self.line.complain_of_value(self.channel.instance(), &n.to_string(), &hit.value);
            }
            _ => {}
        }
        lookup
    }

    /// Stores F(n) for the configured time.
    pub(super) async fn set(&self, n: FibIndex, value: u64) -> Result<(), Unavailable> {
        let _until_answered = (self.near.change(n), self.stats.begin_use());
        let ttl = Some(self.ttl);
        self.line.set(SetRequest { key: n.to_string(), value: value.to_string().into(), ttl }).await
    }

    /// Ends all calls, so that the plugin can be stopped without one being open. Later ones fail.
    pub async fn close(&self) {
        self.line.close().await;
    }

    /// What the plugin has counted. Neither starts one nor keeps one that is ended when idle: then the answer is the one after
    /// the last lookup or store.
    pub async fn stats(&self) -> StatsAnswer {
        self.stats.get().await
    }
}

impl From<&Status> for Unavailable {
    fn from(status: &Status) -> Self {
        match CallError::of(status) {
            Some(CallError::Down | CallError::Off(_) | CallError::NotServing | CallError::Suspended) => {
                Self::Down
            }
            Some(CallError::TimedOut) => Self::TimedOut,
            // The plugin's clock may be first.
            None if status.code() == Code::DeadlineExceeded => Self::TimedOut,
            _ => Self::Failed(status.code()),
        }
    }
}

fn lookup(response: &GetResponse) -> Lookup {
    match &response.outcome {
        Some(Outcome::Hit(hit)) => match parse_value(&hit.value) {
            // A time that makes no sense is no reason to distrust the value; it only cannot be shown.
            Some(value) => {
                let ttl_remaining = hit.ttl_remaining.and_then(duration);
                Lookup::Hit { value, ttl_remaining, source: Source::Asked }
            }
            None => Lookup::Miss(Miss::Corrupt),
        },
        Some(Outcome::Miss(miss)) if miss.reason() == MissReason::Expired => Lookup::Miss(Miss::Expired),
        Some(Outcome::Miss(_)) | None => Lookup::Miss(Miss::NotFound),
    }
}

/// For how long this answer may be given again without asking, `None` for not at all. A hit with a time that makes no
/// sense, of either kind, is not to be relied upon for longer than it takes to give it once.
fn max_age(response: &GetResponse) -> Option<Duration> {
    let Some(Outcome::Hit(Hit { ttl_remaining, max_age: Some(max_age), .. })) = response.outcome.as_ref()
    else {
        return None;
    };
    let ttl_makes_sense = ttl_remaining.is_none_or(|ttl| duration(ttl).is_some());
    duration(*max_age).filter(|max_age| ttl_makes_sense && !max_age.is_zero())
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
    use cache_proto::Miss as WireMiss;

    use super::*;

    fn hit(value: &'static [u8], ttl: Option<(i64, i32)>) -> GetResponse {
        let ttl_remaining = ttl.map(|(seconds, nanos)| prost_types::Duration { seconds, nanos });
        GetResponse { outcome: Some(Outcome::Hit(Hit { value: value.into(), ttl_remaining, max_age: None })) }
    }

    fn found(value: u64, ttl_remaining: Option<Duration>) -> Lookup {
        Lookup::Hit { value, ttl_remaining, source: Source::Asked }
    }

    fn miss(reason: i32) -> GetResponse {
        GetResponse { outcome: Some(Outcome::Miss(WireMiss { reason })) }
    }

    #[test]
    fn responses_and_what_they_mean() {
        let ttl = |millis| Some(Duration::from_millis(millis));
        for (response, expected) in [
            (hit(b"55", None), found(55, None)),
            (hit(b"0", Some((12, 500_000_000))), found(0, ttl(12_500))),
            (hit(b"1", Some((0, 0))), found(1, ttl(0))),
            (hit(b"1", Some((-1, 0))), found(1, None)),
            (hit(b"1", Some((i64::MAX, i32::MAX))), found(1, None)),
            (hit(b"1", Some((i64::MIN, i32::MIN))), found(1, None)),
            (hit(b"", None), Lookup::Miss(Miss::Corrupt)),
            (hit(b"not a number", None), Lookup::Miss(Miss::Corrupt)),
            (miss(1), Lookup::Miss(Miss::NotFound)),
            (miss(2), Lookup::Miss(Miss::Expired)),
            (miss(0), Lookup::Miss(Miss::NotFound)),
            (miss(99), Lookup::Miss(Miss::NotFound)),
            (GetResponse { outcome: None }, Lookup::Miss(Miss::NotFound)),
        ] {
            assert_eq!(lookup(&response), expected, "{response:?}");
        }
    }

    #[test]
    fn only_hits_with_times_that_make_sense_may_be_given_again() {
        let second = Some(Duration::from_secs(1));
        for (max_age_sent, ttl, expected) in [
            (None, None, None),
            (Some((1, 0)), None, second),
            (Some((1, 0)), Some((12, 0)), second),
            (Some((0, 1)), None, Some(Duration::from_nanos(1))),
            (Some((i64::MAX, 999_999_999)), None, Some(Duration::new(i64::MAX as u64, 999_999_999))),
            (Some((0, 0)), None, None),
            (Some((-1, 0)), None, None),
            (Some((0, -1)), None, None),
            (Some((1, -1)), None, None),
            (Some((1, 1_000_000_000)), None, None),
            (Some((i64::MIN, i32::MIN)), None, None),
            (Some((1, 0)), Some((-1, 0)), None),
            (Some((1, 0)), Some((1, i32::MAX)), None),
        ] {
            let mut response = hit(b"55", ttl);
            let Some(Outcome::Hit(hit)) = &mut response.outcome else { unreachable!() };
            hit.max_age = max_age_sent.map(|(seconds, nanos)| prost_types::Duration { seconds, nanos });
            assert_eq!(max_age(&response), expected, "{response:?}");
        }
        assert_eq!(max_age(&miss(1)), None);
        assert_eq!(max_age(&GetResponse { outcome: None }), None);
    }
}
