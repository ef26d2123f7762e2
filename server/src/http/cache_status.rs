//! The `Cache-Status` header (RFC 9211): where an answer came from.
//!
//! ```text
//! fib; hit; ttl=12                        fib; fwd=bypass; detail=no-plugin
//! fib; hit; ttl=12; detail=lease          fib; fwd=bypass; detail=timeout
//! fib; fwd=miss                           fib; fwd=bypass; detail=unavailable
//! fib; fwd=miss; detail=expired           fib; fwd=bypass; detail=no-plugin; collapsed
//! fib; fwd=miss; collapsed
//! ```

use std::{fmt, time::Duration};

use http::{HeaderName, HeaderValue};

use crate::cache::{Lookup, Miss, Source, Unavailable};

/// Name of the header.
pub(super) const NAME: HeaderName = HeaderName::from_static("cache-status");

/// Largest integer of a structured header (RFC 8941, section 3.3.1).
const MAX_INTEGER: u64 = 999_999_999_999_999;

/// The value of the header, also a field of the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CacheStatus {
    pub(super) lookup: Lookup,
    /// The number came from the calculation of an earlier caller.
    pub(super) collapsed: bool,
}

impl CacheStatus {
    pub(super) fn header(&self) -> HeaderValue {
        // Letters, digits, `;`, `=` and spaces only.
        HeaderValue::try_from(self.to_string()).unwrap_or(HeaderValue::from_static("fib"))
    }
}

impl fmt::Display for CacheStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.lookup {
            Lookup::Hit { ttl_remaining, source, .. } => return write_hit(f, ttl_remaining, source),
            Lookup::Miss(Miss::NotFound) => "fib; fwd=miss",
            Lookup::Miss(Miss::Expired) => "fib; fwd=miss; detail=expired",
            Lookup::Miss(Miss::Corrupt) => "fib; fwd=miss; detail=corrupt",
            Lookup::Miss(Miss::NoPlugin) => "fib; fwd=bypass; detail=no-plugin",
            Lookup::Miss(Miss::Unavailable(Unavailable::TimedOut)) => "fib; fwd=bypass; detail=timeout",
            Lookup::Miss(Miss::Unavailable(_)) => "fib; fwd=bypass; detail=unavailable",
        })?;
        if self.collapsed { f.write_str("; collapsed") } else { Ok(()) }
    }
}

fn write_hit(f: &mut fmt::Formatter<'_>, ttl_remaining: Option<Duration>, source: Source) -> fmt::Result {
    f.write_str("fib; hit")?;
    if let Some(ttl) = ttl_remaining {
        write!(f, "; ttl={}", ttl.as_secs().min(MAX_INTEGER))?;
    }
    match source {
        Source::Asked => Ok(()),
        Source::Leased => f.write_str("; detail=lease"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let hit = |ttl_remaining| Lookup::Hit { value: 1, ttl_remaining, source: Source::Asked };
        let leased = |ttl_remaining| Lookup::Hit { value: 1, ttl_remaining, source: Source::Leased };
        for (lookup, collapsed, expected) in [
            (hit(None), false, "fib; hit"),
            (hit(Some(Duration::from_millis(12_900))), false, "fib; hit; ttl=12"),
            (hit(Some(Duration::MAX)), false, "fib; hit; ttl=999999999999999"),
            (leased(None), false, "fib; hit; detail=lease"),
            (leased(Some(Duration::from_millis(12_900))), false, "fib; hit; ttl=12; detail=lease"),
            (Lookup::Miss(Miss::NotFound), false, "fib; fwd=miss"),
            (Lookup::Miss(Miss::NotFound), true, "fib; fwd=miss; collapsed"),
            (Lookup::Miss(Miss::Expired), false, "fib; fwd=miss; detail=expired"),
            (Lookup::Miss(Miss::Corrupt), true, "fib; fwd=miss; detail=corrupt; collapsed"),
            (Lookup::Miss(Miss::NoPlugin), false, "fib; fwd=bypass; detail=no-plugin"),
            (
                Lookup::Miss(Miss::Unavailable(Unavailable::TimedOut)),
                false,
                "fib; fwd=bypass; detail=timeout",
            ),
            (
                Lookup::Miss(Miss::Unavailable(Unavailable::Down)),
                false,
                "fib; fwd=bypass; detail=unavailable",
            ),
        ] {
            let status = CacheStatus { lookup, collapsed };
            assert_eq!(status.to_string(), expected);
            assert_eq!(status.header(), expected);
        }
    }
}
