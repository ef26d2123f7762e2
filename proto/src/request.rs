//! Requests checked against the limits of the contract: what passes here is within them.

use std::time::Duration;

use thiserror::Error;

use crate::{Entry, MAX_BATCH_KEYS, MAX_KEY_BYTES, MAX_VALUE_BYTES, SetRequest};

/// A limit of the contract that a request breaks. The caller has to change the request. Sizes are named, contents
/// never: they may be private.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum LimitError {
    #[error("key is {0} bytes, must be 1 to {MAX_KEY_BYTES}")]
    Key(usize),
    #[error("value is {0} bytes, must be at most {MAX_VALUE_BYTES}")]
    Value(usize),
    #[error("ttl is {0} s and {1} ns, must be more than zero; leave it unset if the value never expires")]
    TtlNotPositive(i64, i32),
    #[error("ttl is {0} s and {1} ns, not a duration: at most {MAX_SECONDS} s, under 1 s in ns")]
    TtlMalformed(i64, i32),
    #[error("{field} has {length} items, must be at most {MAX_BATCH_KEYS}")]
    Batch { field: &'static str, length: usize },
    #[error("{field}[{index}]: {error}")]
    InBatch { field: &'static str, index: usize, error: Box<LimitError> },
}

impl From<LimitError> for tonic::Status {
    fn from(error: LimitError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

/// Gives the entry of a request if it is within the limits.
pub(crate) fn check_entry(SetRequest { key, value, ttl }: SetRequest) -> Result<Entry, LimitError> {
    let key = check_key(key)?;
    if value.len() > MAX_VALUE_BYTES {
        return Err(LimitError::Value(value.len()));
    }
    Ok(Entry { key, value, ttl: ttl.map(check_ttl).transpose()? })
}

/// Gives the key back if its length is within the limits.
pub(crate) fn check_key(key: String) -> Result<String, LimitError> {
    if is_key(&key) { Ok(key) } else { Err(LimitError::Key(key.len())) }
}

/// Whether the length of a key is within the limits.
pub(crate) fn is_key(key: &str) -> bool {
    (1..=MAX_KEY_BYTES).contains(&key.len())
}

/// Checks the size of a batch and all of its items, so that nothing is done if one of them is wrong. `field` is the batch's name in the
/// request.
pub(crate) fn check_all<T, U>(
    field: &'static str,
    items: Vec<T>,
    check: impl Fn(T) -> Result<U, LimitError>,
) -> Result<Vec<U>, LimitError> {
    check_batch(field, items.len())?;
    let in_batch = |index, error| LimitError::InBatch { field, index, error: Box::new(error) };
    items
        .into_iter()
        .enumerate()
        .map(|(index, item)| check(item).map_err(|error| in_batch(index, error)))
        .collect()
}

/// Checks the size of a batch alone.
pub(crate) fn check_batch(field: &'static str, length: usize) -> Result<(), LimitError> {
    if length > MAX_BATCH_KEYS { Err(LimitError::Batch { field, length }) } else { Ok(()) }
}

fn check_ttl(ttl: prost_types::Duration) -> Result<Duration, LimitError> {
    let prost_types::Duration { seconds, nanos } = ttl;
    if !(-MAX_SECONDS..=MAX_SECONDS).contains(&seconds) || !(-MAX_NANOS..=MAX_NANOS).contains(&nanos) {
        return Err(LimitError::TtlMalformed(seconds, nanos));
    }
    match (u64::try_from(seconds), u32::try_from(nanos)) {
        (Ok(0), Ok(0)) => Err(LimitError::TtlNotPositive(seconds, nanos)),
        (Ok(seconds), Ok(nanos)) => Ok(Duration::new(seconds, nanos)),
        // One part is negative. If the other is positive, protobuf calls this not a duration at all.
        _ if seconds > 0 || nanos > 0 => Err(LimitError::TtlMalformed(seconds, nanos)),
        _ => Err(LimitError::TtlNotPositive(seconds, nanos)),
    }
}

/// The longest `google.protobuf.Duration`: 10,000 years.
pub(crate) const MAX_SECONDS: i64 = 315_576_000_000;

const MAX_NANOS: i32 = 999_999_999;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn keys_are_1_to_250_bytes_and_not_characters() {
        for (key, expected) in [
            (String::new(), Err(LimitError::Key(0))),
            ("k".into(), Ok(())),
            ("k".repeat(250), Ok(())),
            ("k".repeat(251), Err(LimitError::Key(251))),
            ("é".repeat(125), Ok(())),
            ("é".repeat(126), Err(LimitError::Key(252))),
            ("\0\n".into(), Ok(())),
        ] {
            assert_eq!(check_key(key.clone()).map(drop), expected, "{key:?}");
        }
    }

    #[test]
    fn values_are_0_bytes_to_1_mib() {
        let check = |length| {
            let value = Bytes::from(vec![0; length]);
            check_entry(SetRequest { key: "k".into(), value, ttl: None }).map(|entry| entry.value.len())
        };
        assert_eq!(check(0), Ok(0));
        assert_eq!(check(1_048_576), Ok(1_048_576));
        assert_eq!(check(1_048_577), Err(LimitError::Value(1_048_577)));
    }

    #[test]
    fn times_to_live_are_durations_of_more_than_zero() {
        let not_positive = |seconds, nanos| Err(LimitError::TtlNotPositive(seconds, nanos));
        let malformed = |seconds, nanos| Err(LimitError::TtlMalformed(seconds, nanos));
        for (seconds, nanos, expected) in [
            (0, 1, Ok(Duration::from_nanos(1))),
            (15, 0, Ok(Duration::from_secs(15))),
            (1, 999_999_999, Ok(Duration::new(1, 999_999_999))),
            (MAX_SECONDS, 0, Ok(Duration::from_secs(315_576_000_000))),
            (0, 0, not_positive(0, 0)),
            (-1, 0, not_positive(-1, 0)),
            (0, -1, not_positive(0, -1)),
            (-1, -1, not_positive(-1, -1)),
            (1, -1, malformed(1, -1)),
            (-1, 1, malformed(-1, 1)),
            (0, 1_000_000_000, malformed(0, 1_000_000_000)),
            (MAX_SECONDS + 1, 0, malformed(MAX_SECONDS + 1, 0)),
            (i64::MAX, i32::MAX, malformed(i64::MAX, i32::MAX)),
            (i64::MIN, i32::MIN, malformed(i64::MIN, i32::MIN)),
        ] {
            assert_eq!(
                check_ttl(prost_types::Duration { seconds, nanos }),
                expected,
                "{seconds} s {nanos} ns"
            );
        }
    }

    #[test]
    fn batches_have_at_most_10000_items() {
        let check =
            |length| check_all("keys", vec!["k".to_owned(); length], check_key).map(|keys| keys.len());
        assert_eq!(check(0), Ok(0));
        assert_eq!(check(10_000), Ok(10_000));
        assert_eq!(check(10_001), Err(LimitError::Batch { field: "keys", length: 10_001 }));
    }

    #[test]
    fn the_first_wrong_item_of_a_batch_is_named() {
        let keys = vec!["a".to_owned(), String::new(), String::new()];
        let error = check_all("keys", keys, check_key).unwrap_err();
        assert_eq!(error.to_string(), "keys[1]: key is 0 bytes, must be 1 to 250");
    }
}
