//! Several in one Redis: plugins that share their entries, plugins that do not, and programs that have nothing to do with
//! them.

mod support;

use std::time::Duration;

use cache_contract::{entry, get};
use redis::Value;
use support::{Redis, free_port};

#[tokio::test]
async fn what_one_plugin_stores_another_finds() {
    let Some(redis) = Redis::start("what_one_plugin_stores_another_finds") else { return };
    let (one, other) = (redis.plugin(&[]).await, redis.plugin(&[]).await);
    one.set(entry("k", "v", Some(Duration::from_secs(3600)))).await.expect("Redis is there");
    assert_eq!(get(&other, "k").await.as_deref(), Some(&b"v"[..]));
    other.flush().await.expect("Redis is there");
    assert_eq!(get(&one, "k").await, None);
    one.end().await;
    other.end().await;
}

#[tokio::test]
async fn an_entry_outlives_its_plugin_and_is_what_it_looks_like() {
    let Some(redis) = Redis::start("an_entry_outlives_its_plugin_and_is_what_it_looks_like") else { return };
    let plugin = redis.plugin(&[]).await;
    plugin.set(entry("30", "832040", Some(Duration::from_secs(3600)))).await.expect("Redis is there");
    plugin.end().await;
    assert_eq!(redis.command::<String>(&["GET", "fib:30"]), "832040");
    let seconds: i64 = redis.command(&["TTL", "fib:30"]);
    assert!((3000..=3600).contains(&seconds), "{seconds}");

    let _: Value = redis.command(&["SET", "fib:31", "1346269"]);
    let plugin = redis.plugin(&[]).await;
    for (key, value) in [("30", "832040"), ("31", "1346269")] {
        assert_eq!(get(&plugin, key).await.as_deref(), Some(value.as_bytes()));
    }
    plugin.end().await;
}

#[tokio::test]
async fn prefixes_keep_plugins_apart_and_flush_leaves_what_is_not_its_own() {
    let Some(redis) = Redis::start("prefixes_keep_plugins_apart") else { return };
    // The first is a pattern that matches the others, and the second begins with the first.
    let mut plugins = Vec::new();
    for prefix in ["a*", "a*b:", "abc:"] {
        let plugin = redis.plugin(&["--key-prefix", prefix]).await;
        plugin
            .set_many((0..3000).map(|n| entry(&n.to_string(), prefix, None)).collect())
            .await
            .expect("stored");
        plugins.push((prefix, plugin));
    }
    let _: Value = redis.command(&["SET", "mine", "v"]);
    let _: Value = redis.command(&["HSET", "ab", "field", "v"]);
    for (prefix, plugin) in &plugins {
        assert_eq!(get(plugin, "7").await.as_deref(), Some(prefix.as_bytes()));
    }

    plugins[1].1.flush().await.expect("Redis is there");
    assert_eq!(get(&plugins[1].1, "7").await, None);
    assert_eq!(get(&plugins[0].1, "7").await.as_deref(), Some(&b"a*"[..]));
    assert_eq!(redis.command::<usize>(&["DBSIZE"]), 6002);
    plugins[0].1.flush().await.expect("Redis is there");
    assert_eq!(get(&plugins[2].1, "7").await.as_deref(), Some(&b"abc:"[..]));
    assert_eq!(redis.command::<usize>(&["DBSIZE"]), 3002);
}

#[tokio::test]
async fn a_key_of_another_type_is_a_miss_and_can_be_replaced() {
    let Some(redis) = Redis::start("a_key_of_another_type_is_a_miss_and_can_be_replaced") else { return };
    let plugin = redis.plugin(&[]).await;
    for command in [
        &["HSET", "fib:hash", "f", "v"][..],
        &["RPUSH", "fib:list", "v"],
        &["XADD", "fib:stream", "*", "f", "v"],
    ] {
        let _: Value = redis.command(command);
    }
    plugin.set(entry("string", "v", None)).await.expect("Redis is there");
    let asked = ["hash", "string", "list", "stream"].map(str::to_owned).to_vec();
    let results = plugin.get_many(asked).await.expect("an answer");
    let values: Vec<_> = results.into_iter().map(cache_contract::value).collect();
    assert_eq!(values, [None, Some(b"v".to_vec()), None, None]);
    plugin.set(entry("hash", "v", None)).await.expect("Redis is there");
    assert_eq!(get(&plugin, "hash").await.as_deref(), Some(&b"v"[..]));
    plugin.end().await;
}

#[tokio::test]
async fn a_value_that_is_larger_than_any_entry_is_a_miss() {
    let Some(redis) = Redis::start("a_value_that_is_larger_than_any_entry_is_a_miss") else { return };
    let plugin = redis.plugin(&[]).await;
    let _: Value = redis.command(&["SETRANGE", "fib:k", "8000000", "v"]);
    assert_eq!(get(&plugin, "k").await, None);
    assert_eq!(plugin.get_many(vec!["k".into(); 3]).await.expect("an answer").len(), 3);
    plugin.end().await;
}

#[tokio::test]
async fn over_tcp_and_in_another_database() {
    let Some(mut redis) = Redis::down("over_tcp_and_in_another_database") else { return };
    let port = free_port();
    redis.args(&["--port", &port]);
    redis.up();
    let url = format!("--url=redis://127.0.0.1:{port}/3");
    let plugin = cache_contract::Plugin::start(support::PROGRAM, [&*url, "--timeout=30s"]).await;
    plugin.set(entry("k", "v", None)).await.expect("Redis is there");
    assert_eq!(get(&plugin, "k").await.as_deref(), Some(&b"v"[..]));
    assert_eq!(redis.command::<usize>(&["DBSIZE"]), 0);
    plugin.end().await;
}
