//! A plugin that its operator has told to grants leases: numbers that are asked for often do not cross to it every time, and
//! no lease outlives the instance that has granted it.

use e2e::load::Load;
use e2e::wait::{wait_for, wait_until};
use e2e::{Server, process, rogue};
use rustix::process::Signal;

const MEMORY: &str = "--cache-plugin-path=memory";
/// For longer than a test takes.
const MAX_AGE: &str = "--cache-plugin-arg=--max-age=1m";
const EXPIRATION: &str = "--cache-expiration=10m";

#[test]
fn hot_number_costs_the_plugin_one_lookup_for_as_long_as_its_lease_lasts() {
    let server = Server::start_with_plugin([MEMORY, MAX_AGE, EXPIRATION]);
    wait_for_lease(&server, 20);
    let before = lookups(&server);
    for _ in 0..50 {
        let response = server.fib(20);
        assert_eq!(response.text(), "{\"result\":6765}\n");
        assert!(is_leased(response.cache_status()), "{}", response.cache_status());
    }
    assert_eq!(lookups(&server), before);
    // The header says how long the number is valid, and not the lease.
    let ttl = wait_for("the time that is left to go down", || {
        let ttl = ttl(server.fib(20).cache_status());
        Some(ttl).filter(|ttl| *ttl < 600)
    });
    wait_until("it to go down further", || self::ttl(server.fib(20).cache_status()) < ttl);
    assert_eq!(lookups(&server), before);
}

#[test]
fn plugin_that_was_not_told_to_is_asked_every_time() {
    let server = Server::start_with_plugin([MEMORY, EXPIRATION]);
    server.wait_for_hit(20);
    let before = lookups(&server);
    for _ in 0..20 {
        let status = server.fib(20).cache_status().to_owned();
        assert!(status.starts_with("fib; hit; ttl=") && !is_leased(&status), "{status}");
    }
    assert_eq!(lookups(&server), before + 20);
}

#[test]
fn plugin_is_asked_again_when_the_lease_is_over() {
    let server = Server::start_with_plugin([MEMORY, EXPIRATION, "--cache-plugin-arg=--max-age=500ms"]);
    for _ in 0..2 {
        wait_for_lease(&server, 20);
        let before = lookups(&server);
        wait_until("the lease to be over", || !is_leased(server.fib(20).cache_status()));
        assert_eq!(lookups(&server), before + 1);
    }
}

#[test]
fn leases_end_with_the_instance_that_has_granted_them() {
    let server = Server::start_with_plugin([MEMORY, MAX_AGE, EXPIRATION, "--plugin-settle=100ms"]);
    for order in ["restart", "reload"] {
        wait_for_lease(&server, 20);
        server.order(order);
        // The new one has nothing yet.
        assert_eq!(server.fib(20).cache_status(), "fib; fwd=miss", "{order}");
    }
    wait_for_lease(&server, 20);
    let pid = server.plugin_pid();
    process::signal(pid, Signal::KILL);
    server.wait_for_plugin_after(pid);
    assert_eq!(server.fib(20).cache_status(), "fib; fwd=miss");
}

#[test]
fn leases_are_not_used_while_no_instance_serves() {
    let server = Server::start_with_plugin([MEMORY, MAX_AGE, EXPIRATION]);
    wait_for_lease(&server, 20);
    server.order("disable");
    assert_eq!(server.fib(20).cache_status(), "fib; fwd=bypass; detail=unavailable");
    server.order("enable");
    wait_until("the plugin to serve", || server.plugin_state() == "serving");
    assert_eq!(server.fib(20).cache_status(), "fib; fwd=miss");
}

#[test]
fn load_on_leased_numbers_gets_right_answers_while_the_plugin_is_reloaded_and_killed() {
    let server = Server::start_for_load([
        MEMORY,
        "--cache-plugin-arg=--max-age=20ms",
        "--cache-expiration=200ms",
        "--plugin-settle=100ms",
    ]);
    let load = Load::start(server.address(), 8);
    for _ in 0..3 {
        let before = load.answered();
        wait_until("answers", || load.answered() > before + 200);
        server.order("reload");
        let pid = server.plugin_pid();
        process::signal(pid, Signal::KILL);
        server.wait_for_plugin_after(pid);
    }
    load.stop().is_flawless();
}

#[test]
fn lease_for_a_time_that_makes_no_sense_is_none_and_does_no_harm() {
    for max_age in [
        "0s0",
        "-1s0",
        "0s-1",
        "1s-1",
        "1s1000000000",
        "9223372036854775807s2147483647",
        "-9223372036854775808s-2147483648",
    ] {
        let server = Server::start_with_plugin(rogue(&format!("max-age={max_age}")));
        server.wait_for_hit(18);
        for _ in 0..5 {
            let response = server.fib(18);
            assert_eq!(response.text(), "{\"result\":2584}\n");
            assert_eq!(response.cache_status(), "fib; hit", "{max_age}");
        }
    }
}

#[test]
fn lease_for_an_eternity_is_one_for_less() {
    let server = Server::start_with_plugin(rogue("max-age=9223372036854775807s999999999"));
    assert_eq!(wait_for_lease(&server, 18), "fib; hit; detail=lease");
    assert_eq!(server.fib(18).text(), "{\"result\":2584}\n");
}

/// Asks until the number comes from the server's own memory, and gives the header.
#[track_caller]
fn wait_for_lease(server: &Server, n: u32) -> String {
    wait_for("a lease", || Some(server.fib(n).cache_status().to_owned()).filter(|status| is_leased(status)))
}

fn is_leased(status: &str) -> bool {
    status.starts_with("fib; hit") && status.ends_with("; detail=lease")
}

/// How long the number is valid, in seconds.
#[track_caller]
fn ttl(status: &str) -> u64 {
    let ttl = status.split("; ").find_map(|part| part.strip_prefix("ttl=")?.parse().ok());
    ttl.unwrap_or_else(|| panic!("no time: {status}"))
}

/// Keys that the plugin has looked up.
fn lookups(server: &Server) -> u64 {
    let stats = &server.plugin()["stats"];
    let count = |name: &str| stats[name].as_u64().expect("the plugin counts");
    count("hits") + count("misses")
}
