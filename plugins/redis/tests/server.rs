//! `fib-server` with this plugin: whatever Redis does, each answer is right.

mod support;

use std::time::{Duration, Instant};

use e2e::Server;
use e2e::load::Load;
use e2e::wait::wait_until;
use redis::Value;
use rustix::process::Signal;
use support::{PROGRAM, Redis};

fn flags(redis: &Redis) -> Vec<String> {
    vec![format!("--cache-plugin-path={PROGRAM}"), format!("--cache-plugin-arg=--url={}", redis.url())]
}

#[test]
fn killed_redis_under_load_costs_no_answer_and_caching_comes_back() {
    let Some(mut redis) = Redis::start("killed_redis_under_load_costs_no_answer") else { return };
    let server = Server::start_with_plugin(flags(&redis));
    let plugin = server.plugin_pid();
    let load = Load::start(server.address(), 4);
    for _ in 0..3 {
        let before = load.answered();
        wait_until("answers with Redis", || load.answered() > before + 50);
        redis.kill();
        wait_until("the plugin to be unwell", || server.plugin_state() == "degraded");
        let before = load.answered();
        wait_until("answers without Redis", || load.answered() > before + 50);
        redis.up();
        wait_until("the plugin to be well", || server.plugin_state() == "serving");
    }
    load.stop().is_flawless();
    server.wait_for_hit(25);
    assert_eq!(server.plugin_pid(), plugin, "it is the same process");
}

#[test]
fn stopped_redis_under_load_costs_no_answer_and_caching_comes_back() {
    let Some(redis) = Redis::start("stopped_redis_under_load_costs_no_answer") else { return };
    let mut flags = flags(&redis);
    flags.push("--cache-plugin-arg=--timeout=100ms".to_owned());
    let server = Server::start_with_plugin(flags);
    server.wait_for_hit(25);
    let load = Load::start(server.address(), 4);
    redis.signal(Signal::STOP);
    wait_until("the plugin to be unwell", || server.plugin_state() == "degraded");
    let before = load.answered();
    wait_until("answers without Redis", || load.answered() > before + 50);
    redis.signal(Signal::CONT);
    wait_until("the plugin to be well", || server.plugin_state() == "serving");
    load.stop().is_flawless();
    server.wait_for_hit(25);
}

#[test]
fn two_servers_share_what_they_have_calculated() {
    let Some(redis) = Redis::start("two_servers_share_what_they_have_calculated") else { return };
    let (one, other) = (Server::start_with_plugin(flags(&redis)), Server::start_with_plugin(flags(&redis)));
    one.wait_for_hit(26);
    assert_eq!(one.calculations(), 1);
    let response = other.fib(26);
    assert!(response.cache_status().starts_with("fib; hit"), "{}", response.cache_status());
    assert_eq!(other.calculations(), 0);
}

#[test]
fn server_started_before_redis_caches_once_redis_is_there_however_long_that_takes() {
    let Some(mut redis) = Redis::down("server_started_before_redis_caches_once_redis_is_there") else {
        return;
    };
    let mut flags = flags(&redis);
    // One start that fails would be the last one of a plugin that crashes.
    flags.extend(
        ["--plugin-start-timeout=3s", "--plugin-max-starts=1", "--plugin-backoff=10ms"].map(str::to_owned),
    );
    let server = Server::start(flags);
    assert_eq!(server.fib(20).text(), "{\"result\":6765}\n");
    wait_until("some starts", || server.log().events("start-failed") >= 2);
    redis.up();
    server.wait_for_hit(20);
    assert_eq!(server.plugin_state(), "serving");
}

#[test]
fn what_others_change_in_redis_is_seen_when_the_lease_is_over_and_no_later() {
    let Some(redis) = Redis::start("what_others_change_in_redis_is_seen_when_the_lease_is_over") else {
        return;
    };
    let max_age = Duration::from_secs(1);
    let mut flags = flags(&redis);
    flags.extend(["--cache-plugin-arg=--max-age=1s", "--cache-expiration=10m"].map(str::to_owned));
    let (one, other) = (Server::start_with_plugin(&flags), Server::start_with_plugin(&flags));
    let servers = [&one, &other];
    for (change, expected) in [
        // Not the right number, so that it can be told apart: it is believed.
        (&["SET", "fib:20", "1"][..], "{\"result\":1}\n"),
        (&["FLUSHDB"], "{\"result\":6765}\n"),
    ] {
        for server in servers {
            wait_until("a lease", || server.fib(20).cache_status().ends_with("; detail=lease"));
        }
        let _: Value = redis.command(change);
        let latest = Instant::now() + max_age;
        for server in servers {
            ask_until(server, expected, latest);
        }
    }
}

/// Asks until this is the answer, as it has to be if asked from `latest` on.
#[track_caller]
fn ask_until(server: &Server, expected: &str, latest: Instant) {
    loop {
        let asked = Instant::now();
        let response = server.fib(20);
        if response.text() == expected {
            return;
        }
        assert!(asked < latest, "{} {}", response.cache_status(), response.text());
    }
}
