//! A name for each request, in the answer and in the log: the caller's own, or one of ours.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header that carries it both ways.
pub(super) const NAME: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id that is taken over: four UUIDs' worth, and still no burden for a log line.
const MAX_BYTES: usize = 64;

/// The caller's id if it is 1 to 64 visible ASCII characters, else a new one.
pub(super) fn of(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(NAME).map(HeaderValue::as_bytes).filter(|id| is_valid(id));
    // A copy: a clone would keep the whole head.
    given.and_then(|id| HeaderValue::from_bytes(id).ok()).unwrap_or_else(make)
}

fn is_valid(id: &[u8]) -> bool {
    (1..=MAX_BYTES).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

/// Unlike all others of this process, and in all likelihood of all processes.
fn make() -> HeaderValue {
    static PROCESS: LazyLock<String> =
        LazyLock::new(|| format!("{:016x}-", RandomState::new().build_hasher().finish()));
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut number = itoa::Buffer::new();
    let id = [PROCESS.as_str(), number.format(NEXT.fetch_add(1, Ordering::Relaxed))].concat();
    // Digits and a dash.
    HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_id_is_kept() {
        let longest = "x".repeat(64);
        for id in ["1", "6f1c9e1a-7c70-4e52-bd52-2c7ad1a5a3c5", "a/b:c\"", &longest] {
            let headers = HeaderMap::from_iter([(NAME, HeaderValue::from_str(id).unwrap())]);
            assert_eq!(of(&headers), id);
        }
    }

    #[test]
    fn a_bad_or_missing_id_is_replaced_by_a_new_one() {
        let too_long = "x".repeat(65);
        for id in ["", "a b", "a\tb", "ä", &too_long] {
            let headers = HeaderMap::from_iter([(NAME, HeaderValue::from_bytes(id.as_bytes()).unwrap())]);
            let made = of(&headers);
            assert_ne!(made, id);
            assert!(is_valid(made.as_bytes()));
        }
        assert_ne!(of(&HeaderMap::new()), of(&HeaderMap::new()));
    }
}
