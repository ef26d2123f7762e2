//! A cache without a plugin, in the server's own memory. Built only for `cargo xtask bench`, to see what the process
//! boundary costs: everything else about the server is the same.

use std::time::{Duration, Instant};

use moka::sync::Cache;

use super::{Lookup, Miss, Source};
use crate::fib::FibIndex;

/// Longer than any measurement.
const EXPIRATION: Duration = Duration::from_secs(60 * 60);

/// Numbers by their index, each with its end.
#[derive(Clone, Debug)]
pub struct InProcess(Cache<u8, (u64, Instant)>);

impl InProcess {
    /// An empty cache, with room for every number there is.
    pub(crate) fn new() -> Self {
        Self(Cache::builder().max_capacity(u64::from(u8::MAX)).time_to_live(EXPIRATION).build())
    }

    pub(super) fn get(&self, n: FibIndex) -> Lookup {
        match self.0.get(&n.get()) {
            Some((value, end)) => {
                let ttl_remaining = Some(end.saturating_duration_since(Instant::now()));
                Lookup::Hit { value, ttl_remaining, source: Source::Asked }
            }
            None => Lookup::Miss(Miss::NotFound),
        }
    }

    pub(super) fn set(&self, n: FibIndex, value: u64) {
        self.0.insert(n.get(), (value, Instant::now() + EXPIRATION));
    }
}
