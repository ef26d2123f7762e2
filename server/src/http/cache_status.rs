//! The `Cache-Status` header (RFC 9211): where an answer came from.
//!
//! ```text
//! fib; hit; ttl=12                        fib; fwd=bypass; detail=no-plugin
//! fib; fwd=miss                           fib; fwd=bypass; detail=timeout
//! fib; fwd=miss; detail=expired           fib; fwd=bypass; detail=unavailable
//! fib; fwd=miss; collapsed                fib; fwd=bypass; detail=no-plugin; collapsed
//! ```

use http::{HeaderName, HeaderValue};

use crate::cache::{Lookup, Miss, Unavailable};

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
        let (what, mut ttl) = (self.what(), itoa::Buffer::new());
        let parts = match self.lookup {
            Lookup::Hit { ttl_remaining: Some(left), .. } => {
                [what, "; ttl=", ttl.format(left.as_secs().min(MAX_INTEGER))]
            }
            _ if self.collapsed => [what, "; collapsed", ""],
            _ => [what, "", ""],
        };
        parts.concat()
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
        let hit = |ttl_remaining| Lookup::Hit { value: 1, ttl_remaining };
        for (lookup, collapsed, expected) in [
            (hit(None), false, "fib; hit"),
            (hit(Some(Duration::from_millis(12_900))), false, "fib; hit; ttl=12"),
            (hit(Some(Duration::MAX)), false, "fib; hit; ttl=999999999999999"),
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
