//! The promises, but those about Pipe. Each function wants a plugin with an empty cache, and panics where a promise is broken.

use std::time::{Duration, Instant};

use cache_proto::get_response::Outcome;
use cache_proto::{Hit, MAX_BATCH_KEYS, SetRequest};
use tonic::Code;

use crate::{Plugin, streams};

/// Something to store, for as long as it is there if no time is given.
pub fn entry(key: &str, value: impl Into<Vec<u8>>, ttl: Option<Duration>) -> SetRequest {
    let ttl = ttl.map(|ttl| prost_types::Duration {
        seconds: i64::try_from(ttl.as_secs()).expect("a duration of the contract"),
        nanos: ttl.subsec_nanos().cast_signed(),
    });
    SetRequest { key: key.into(), value: value.into().into(), ttl }
}

/// The value of a hit, and `None` for a miss, whatever its reason.
pub fn value(outcome: Outcome) -> Option<Vec<u8>> {
    match outcome {
        Outcome::Hit(Hit { value, .. }) => Some(value.to_vec()),
        Outcome::Miss(_) => None,
    }
}

/// Looks a key up that must not fail.
pub async fn get(plugin: &Plugin, key: &str) -> Option<Vec<u8>> {
    value(plugin.get(key).await.expect("an answer"))
}

/// Looks a key up in each way, and gives the hits.
async fn hits(plugin: &Plugin, key: &str) -> Vec<Hit> {
    let mut outcomes = plugin.get_many(keys(&[key])).await.expect("an answer");
    outcomes.push(plugin.get(key).await.expect("an answer"));
    outcomes.extend(streams::look_up(plugin, key).await);
    let hit = |outcome| match outcome {
        Outcome::Hit(hit) => hit,
        Outcome::Miss(miss) => panic!("{key} is a miss: {miss:?}"),
    };
    outcomes.into_iter().map(hit).collect()
}

/// The time that a hit on this key has left.
async fn remaining(plugin: &Plugin, key: &str) -> Option<Duration> {
    match plugin.get(key).await.expect("an answer") {
        Outcome::Hit(hit) => hit.ttl_remaining.map(|left| left.try_into().expect("it is not negative")),
        Outcome::Miss(miss) => panic!("{key} is a miss: {miss:?}"),
    }
}

fn keys(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|&key| key.into()).collect()
}

#[expect(missing_docs, reason = "their names say it")]
mod named {
    use super::*;

    pub async fn a_value_comes_back_byte_for_byte(plugin: &Plugin) {
        let every_byte: Vec<u8> = (0..=255).collect();
        for (key, value) in [
            ("é\0\n", every_byte),
            ("empty", vec![]),
            (" * ? [a]\\", b"\r\n$-1\r\n".to_vec()),
            (&*"k".repeat(250), vec![b'x'; 1 << 20]),
        ] {
            plugin.set(entry(key, value.clone(), None)).await.expect("it is within the limits");
            assert_eq!(get(plugin, key).await, Some(value), "{key:?}");
        }
        assert_eq!(get(plugin, "other").await, None);
    }

    pub async fn a_set_replaces_value_and_time(plugin: &Plugin) {
        let hour = Duration::from_secs(3600);
        for (value, ttl) in [("1", None), ("2", Some(hour)), ("3", None), ("4", Some(hour / 2))] {
            plugin.set(entry("k", value, ttl)).await.expect("it is within the limits");
            assert_eq!(get(plugin, "k").await.as_deref(), Some(value.as_bytes()));
            let left = remaining(plugin, "k").await;
            assert_eq!(left.is_some(), ttl.is_some(), "{value}");
            assert!(left <= ttl && left > ttl.map(|ttl| ttl - Duration::from_secs(60)) || ttl.is_none());
        }
    }

    pub async fn an_entry_is_gone_when_its_time_is_over(plugin: &Plugin) {
        let ttl = Duration::from_millis(300);
        let begun = Instant::now();
        plugin.set(entry("k", "v", Some(ttl))).await.expect("it is within the limits");
        loop {
            let asked = Instant::now();
            let Outcome::Hit(hit) = plugin.get("k").await.expect("an answer") else { break };
            assert_eq!(&hit.value[..], b"v");
            let left: Duration =
                hit.ttl_remaining.expect("it expires").try_into().expect("it is not negative");
            assert!(left <= ttl);
            // The time begins to run at the latest with the answer to Set; the rest is what processes do to each other.
            assert!(asked.duration_since(begun) < ttl + Duration::from_secs(10), "it never expires");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // A time that is shorter than the plugin can measure is over, and so is what was there before.
        plugin.set(entry("k", "before", None)).await.expect("it is within the limits");
        plugin.set(entry("k", "v", Some(Duration::from_nanos(1)))).await.expect("it is within the limits");
        assert_eq!(get(plugin, "k").await, None);
    }

    pub async fn any_time_of_the_contract_can_be_stored(plugin: &Plugin) {
        let most = Duration::new(315_576_000_000, 999_999_999);
        for ttl in [Duration::from_millis(60_001), Duration::from_nanos(60_000_999_999), most] {
            plugin.set(entry("k", "v", Some(ttl))).await.expect("it is within the limits");
            let left = remaining(plugin, "k").await.expect("it expires");
            // A plugin may cut down what nobody lives to see.
            let least = ttl.min(Duration::from_secs(365 * 24 * 3600)) - Duration::from_secs(50);
            assert!(left <= ttl && left >= least, "{ttl:?}: {left:?}");
        }
        for (seconds, nanos) in [
            (0, 0),
            (-1, 0),
            (0, -1),
            (1, -1),
            (-1, 1),
            (i64::MAX, 0),
            (i64::MIN, i32::MIN),
            (1, 1_000_000_000),
        ] {
            let ttl = Some(prost_types::Duration { seconds, nanos });
            let status =
                plugin.set(SetRequest { ttl, ..entry("k", "new", None) }).await.expect_err("no time");
            assert_eq!(status.code(), Code::InvalidArgument, "{seconds} {nanos}: {status:?}");
        }
        assert_eq!(get(plugin, "k").await.as_deref(), Some(&b"v"[..]));
    }

    pub async fn a_broken_limit_is_an_invalid_argument_and_changes_nothing(plugin: &Plugin) {
        plugin.set(entry("a", "old", None)).await.expect("it is within the limits");
        let long = "k".repeat(251);
        let large = || entry("b", vec![0; (1 << 20) + 1], None);
        for result in [
            plugin.get("").await.map(drop),
            plugin.get(&long).await.map(drop),
            plugin.get_many(keys(&["a", &long])).await.map(drop),
            plugin.delete(keys(&["a", ""])).await.map(drop),
            plugin.set(entry("", "v", None)).await,
            plugin.set(large()).await,
            plugin.set_many(vec![entry("a", "new", None), entry(&long, "v", None)]).await,
            plugin.set_many(vec![entry("a", "new", None), large()]).await,
        ] {
            let status = result.expect_err("a limit is broken");
            assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        }
        assert_eq!(get(plugin, "a").await.as_deref(), Some(&b"old"[..]));
        assert_eq!(get(plugin, "b").await, None);
    }

    pub async fn a_batch_of_more_than_the_most_is_an_invalid_argument_and_changes_nothing(plugin: &Plugin) {
        plugin.set(entry("k", "old", None)).await.expect("it is within the limits");
        let too_many = MAX_BATCH_KEYS + 1;
        for result in [
            plugin.get_many(vec!["k".into(); too_many]).await.map(drop),
            plugin.set_many(vec![entry("k", "new", None); too_many]).await,
            plugin.delete(vec!["k".into(); too_many]).await.map(drop),
        ] {
            assert_eq!(result.expect_err("it is too many").code(), Code::InvalidArgument);
        }
        assert_eq!(get(plugin, "k").await.as_deref(), Some(&b"old"[..]));
    }

    pub async fn batches_keep_order_and_repetitions_and_the_later_entry_wins(plugin: &Plugin) {
        let entries = vec![entry("a", "1", None), entry("b", "2", None), entry("a", "3", None)];
        plugin.set_many(entries).await.expect("it is within the limits");
        let results = plugin.get_many(keys(&["b", "none", "a", "b"])).await.expect("an answer");
        let values: Vec<_> = results.into_iter().map(value).collect();
        assert_eq!(values, [Some(b"2".to_vec()), None, Some(b"3".to_vec()), Some(b"2".to_vec())]);
        assert_eq!(plugin.get_many(vec![]).await.expect("an answer"), []);
        plugin.set_many(vec![]).await.expect("nothing is within the limits");

        let many = |value: &str| (0..MAX_BATCH_KEYS).map(|n| entry(&n.to_string(), value, None)).collect();
        plugin.set_many(many("v")).await.expect("it is within the limits");
        let names = (0..MAX_BATCH_KEYS).map(|n| n.to_string()).collect();
        let results = plugin.get_many(names).await.expect("an answer");
        assert_eq!(results.len(), MAX_BATCH_KEYS);
        assert!(results.into_iter().all(|result| value(result).as_deref() == Some(b"v")));
    }

    pub async fn an_answer_to_many_keys_fits_into_one_message(plugin: &Plugin) {
        plugin.set(entry("large", vec![0; 1 << 20], None)).await.expect("it is within the limits");
        plugin.set(entry("empty", "", None)).await.expect("it is within the limits");
        let asked = keys(&["large", "large", "large", "large", "empty"]);
        let results = plugin.get_many(asked).await.expect("it fits");
        let values: Vec<_> = results.into_iter().map(value).collect();
        assert!(values[..3].iter().all(|value| value.as_ref().is_some_and(|value| value.len() == 1 << 20)));
        assert_eq!(values[3..], [None, Some(vec![])]);

        let ttl = Some(Duration::from_millis(60_001));
        plugin.set(entry("small", vec![0; 1000], ttl)).await.expect("it is within the limits");
        for key in ["large", "small", "empty", "none"] {
            let results = plugin.get_many(vec![key.into(); MAX_BATCH_KEYS]).await.expect("it fits");
            assert_eq!(results.len(), MAX_BATCH_KEYS);
        }
    }

    pub async fn delete_counts_what_was_there(plugin: &Plugin) {
        plugin.set_many(vec![entry("a", "1", None), entry("b", "2", None)]).await.expect("within the limits");
        assert_eq!(plugin.delete(keys(&["a", "none", "a", "b"])).await.expect("an answer"), 2);
        assert_eq!(plugin.delete(keys(&["a"])).await.expect("an answer"), 0);
        assert_eq!(plugin.delete(vec![]).await.expect("an answer"), 0);
        assert_eq!(get(plugin, "a").await, None);
        let all = (0..MAX_BATCH_KEYS).map(|n| n.to_string()).collect();
        assert_eq!(plugin.delete(all).await.expect("an answer"), 0);
    }

    pub async fn flush_removes_everything_before_it_answers(plugin: &Plugin) {
        let entries = (0..5000).map(|n| entry(&n.to_string(), "v", None)).collect();
        plugin.set_many(entries).await.expect("it is within the limits");
        plugin.flush().await.expect("an answer");
        let names = (0..5000).map(|n| n.to_string()).collect();
        let results = plugin.get_many(names).await.expect("an answer");
        assert_eq!(results.into_iter().filter_map(value).count(), 0);
        plugin.flush().await.expect("nothing can be removed, too");
        plugin.set(entry("7", "new", None)).await.expect("it is within the limits");
        assert_eq!(get(plugin, "7").await.as_deref(), Some(&b"new"[..]));
    }

    pub async fn stats_count_what_was_looked_up(plugin: &Plugin) {
        plugin.set(entry("k", "v", None)).await.expect("it is within the limits");
        plugin.get("k").await.expect("an answer");
        plugin.get("none").await.expect("an answer");
        plugin.get_many(keys(&["k", "none", "k"])).await.expect("an answer");
        let stats = plugin.stats().await.expect("an answer");
        assert_eq!((stats.hits, stats.misses), (3, 2));
    }

    pub async fn a_get_sees_the_set_that_was_answered_before(plugin: &Plugin) {
        let one = async |key: &str| {
            for round in 0..100 {
                plugin.set(entry(key, round.to_string(), None)).await.expect("it is within the limits");
                assert_eq!(get(plugin, key).await, Some(round.to_string().into_bytes()), "{key}");
            }
        };
        tokio::join!(one("a"), one("b"), one("c"), one("d"), one("e"), one("f"), one("g"), one("h"));
    }

    pub async fn nothing_is_leased_unless_asked_for(plugin: &Plugin) {
        for ttl in [None, Some(Duration::from_secs(3600))] {
            plugin.set(entry("k", "v", ttl)).await.expect("it is within the limits");
            for hit in hits(plugin, "k").await {
                assert_eq!(hit.max_age, None);
            }
        }
    }

    pub async fn a_lease_is_a_minute_if_asked_for_and_no_longer_than_its_entry(plugin: &Plugin) {
        let minute = prost_types::Duration { seconds: 60, nanos: 0 };
        for ttl in [None, Some(Duration::from_secs(3600))] {
            plugin.set(entry("long", "v", ttl)).await.expect("it is within the limits");
            for hit in hits(plugin, "long").await {
                assert_eq!(hit.max_age, Some(minute));
            }
        }
        plugin.set(entry("short", "v", Some(Duration::from_secs(30)))).await.expect("within the limits");
        for hit in hits(plugin, "short").await {
            assert!(hit.max_age.is_some() && hit.max_age == hit.ttl_remaining, "{hit:?}");
        }
    }
}

pub use named::*;
