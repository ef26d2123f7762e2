//! The cache as requests see it: a number, or a reason to calculate it. Never an error: a plugin that fails changes
//! how long an answer takes. A number in good form is believed: to check it would be to calculate it.
//!
//! The key of a number is its canonical decimal form, its value is F(n) in decimal.

#[cfg(feature = "in-process")]
mod in_process;
mod line;
mod near;
mod remote;
mod stats;

use std::{sync::Arc, time::Duration};

use plugin_sdk::{MagicCookie, host::Contract};
use tracing::debug;

#[cfg(feature = "in-process")]
pub use self::in_process::InProcess;
#[cfg(feature = "measure")]
pub use self::line::Round;
pub use self::{
    remote::{RemoteCache, Unavailable},
    stats::StatsAnswer,
};
use crate::fib::FibIndex;

/// What a plugin must agree to before it is used.
pub(crate) fn contract() -> Contract {
    let cookie = MagicCookie::new(cache_proto::MAGIC_COOKIE_KEY, cache_proto::MAGIC_COOKIE_VALUE);
    Contract::new(cookie, [cache_proto::APP_VERSION])
}

/// A cheap handle to the cache.
#[derive(Clone, Debug)]
pub enum Cache {
    /// Holds nothing. What the server uses without a plugin.
    NoOp,
    /// A plugin, whichever instance of it serves.
    Remote(Arc<RemoteCache>),
    /// This process's own memory, for `cargo xtask bench` to compare with.
    #[cfg(feature = "in-process")]
    InProcess(InProcess),
}

/// What the cache says about a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It has the number.
    Hit {
        /// F(n).
        value: u64,
        /// How long it will keep it; `None` if it does not say or keeps it for ever.
        ttl_remaining: Option<Duration>,
        /// Whether it was asked.
        source: Source,
    },
    /// The number must be calculated.
    Miss(Miss),
}

/// Where a number comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The cache was asked.
    Asked,
    /// This process's own memory: the cache has given it before, with a lease that is not over.
    Leased,
}

/// Why a number must be calculated. Only `Corrupt` and `Unavailable` are faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Miss {
    /// The cache does not have it.
    NotFound,
    /// The cache had it, for as long as it was valid.
    Expired,
    /// The cache has something that is not a number.
    Corrupt,
    /// There is no cache.
    NoPlugin,
    /// The cache did not answer.
    Unavailable(Unavailable),
}

impl Cache {
    /// Looks F(n) up. Ends within the timeout of the cache.
    pub async fn get(&self, n: FibIndex) -> Lookup {
        let lookup = match self {
            Self::NoOp => return Lookup::Miss(Miss::NoPlugin),
            Self::Remote(remote) => remote.get(n).await,
            #[cfg(feature = "in-process")]
            Self::InProcess(cache) => cache.get(n),
        };
        match lookup {
            Lookup::Hit { source, .. } => debug!(n = n.get(), ?source, "cache hit"),
            Lookup::Miss(reason) => debug!(n = n.get(), ?reason, "cache miss"),
        }
        lookup
    }

    /// Stores F(n), if that is possible. Ends within the timeout of the cache.
    pub async fn set(&self, n: FibIndex, value: u64) {
        match self {
            Self::NoOp => {}
            Self::Remote(remote) => {
                if let Err(reason) = remote.set(n, value).await {
                    debug!(n = n.get(), ?reason, "cache set failed");
                }
            }
            #[cfg(feature = "in-process")]
            Self::InProcess(cache) => cache.set(n, value),
        }
    }

    /// Ends all calls, so that the plugin can be stopped without one being open. Later ones are not made.
    pub async fn close(&self) {
        if let Self::Remote(remote) = self {
            remote.close().await;
        }
    }
}

/// Reads a cached value. Anything but a `u64` in canonical decimal is `None`: it was written by a broken plugin, or
/// by somebody else under our key.
fn parse_value(bytes: &[u8]) -> Option<u64> {
    let canonical = matches!(bytes, [b'0'] | [b'1'..=b'9', ..]) && bytes.iter().all(u8::is_ascii_digit);
    if canonical { std::str::from_utf8(bytes).ok()?.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_a_canonical_number_or_nothing() {
        for value in [0, 1, 10, 12_200_160_415_121_876_738, u64::MAX] {
            assert_eq!(parse_value(value.to_string().as_bytes()), Some(value));
        }
        let long = [b'1'; 1 << 20];
        let corrupt: [&[u8]; 15] = [
            b"",
            b"00",
            b"05",
            b"+5",
            b"-5",
            b" 5",
            b"5 ",
            b"5\n",
            b"5.0",
            b"1e3",
            b"abc",
            b"\xff",
            b"18446744073709551616",
            b"\0",
            &long,
        ];
        for bytes in corrupt {
            assert_eq!(parse_value(bytes), None, "{:?}", bytes.get(..30).unwrap_or(bytes));
        }
    }
}
