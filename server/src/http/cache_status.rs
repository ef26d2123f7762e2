//! The `Cache-Status` header (RFC 9211): where an answer came from.
//!
//! ```text
//! fib; hit; ttl=12                        fib; fwd=bypass; detail=no-plugin
//! fib; hit; ttl=12; detail=lease          fib; fwd=bypass; detail=timeout
//! fib; fwd=miss                           fib; fwd=bypass; detail=unavailable
//! fib; fwd=miss; detail=expired           fib; fwd=bypass; detail=no-plugin; collapsed
//! fib; fwd=miss; collapsed
//! ```

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
        HeaderValue::try_from(self.text()).unwrap_or(HeaderValue::from_static("fib"))
    }

    fn text(&self) -> String {
        let mut ttl = itoa::Buffer::new();
        let Lookup::Hit { ttl_remaining, source, .. } = self.lookup else {
            return [self.what(), if self.collapsed { "; collapsed" } else { "" }].concat();
        };
        let (name, seconds) = match ttl_remaining {
            Some(left) => ("; ttl=", ttl.format(left.as_secs().min(MAX_INTEGER))),
            None => ("", ""),
        };
        let detail = match source {
            Source::Asked => "",
            Source::Leased => "; detail=lease",
        };
        [self.what(), name, seconds, detail].concat()
    }

    fn what(&self) -> &'static str {
        match self.lookup {
            Lookup::Hit { .. } => "fib; hit",
            Lookup::Miss(Miss::NotFound) => "fib; fwd=miss",
            Lookup::Miss(Miss::Expired) => "fib; fwd=miss; detail=expired",
            Lookup::Miss(Miss::Corrupt) => "fib; fwd=miss; detail=corrupt",
            Lookup::Miss(Miss::NoPlugin) => "fib; fwd=bypass; detail=no-plugin",
            Lookup::Miss(Miss::Unavailable(Unavailable::TimedOut)) => "fib; fwd=bypass; detail=timeout",
            Lookup::Miss(Miss::Unavailable(_)) => "fib; fwd=bypass; detail=unavailable",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
            assert_eq!(status.header(), expected);
        }
    }
}
