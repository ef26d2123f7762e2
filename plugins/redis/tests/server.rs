//! `fib-server` with this plugin: whatever Redis does, each answer is right.

mod support;

use e2e::Server;
use e2e::load::Load;
use e2e::wait::wait_until;
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
