//! What was calculated once is not calculated again, and a cache that fails never changes an answer.

use std::sync::{Arc, Barrier};
use std::thread;

use e2e::log::Line;
use e2e::wait::wait_until;
use e2e::{Server, http, rogue};

const MEMORY: &str = "--cache-plugin-path=memory";

#[test]
fn second_answer_comes_from_the_plugin() {
    let server = Server::start_with_plugin([MEMORY]);

    let first = server.fib(20);
    assert_eq!(first.text(), "{\"result\":6765}\n");
    assert_eq!(first.cache_status(), "fib; fwd=miss");
    // The value is stored after the answer has been sent.
    wait_until("the plugin to have an entry", || server.plugin()["stats"]["entries"] == 1);

    let second = server.fib(20);
    assert_eq!(second.body, first.body);
    assert!(second.cache_status().starts_with("fib; hit; ttl="), "{}", second.cache_status());
    wait_until("the plugin to count a hit", || server.plugin()["stats"]["hits"] == 1);
    assert_eq!(server.plugin()["stats"]["misses"], 1);
    wait_until("the calculation to be logged", || server.calculations() > 0);
    assert_eq!(server.calculations(), 1);
}

#[test]
fn spellings_of_one_number_share_an_entry() {
    let server = Server::start_with_plugin([MEMORY]);
    server.fib(9);
    server.wait_for_hit(9);
    for spelling in ["/fib/09", "/fib/+9", "/fib/%39"] {
        assert!(server.get(spelling).cache_status().starts_with("fib; hit"), "{spelling}");
    }
}

#[test]
fn callers_at_the_same_time_share_one_calculation() {
    let server = Server::start_with_plugin([MEMORY]);
    let all_connected = Arc::new(Barrier::new(64));
    let callers: Vec<_> = (0..64)
        .map(|_| {
            let (address, all_connected) = (server.address(), Arc::clone(&all_connected));
            thread::spawn(move || {
                all_connected.wait();
                http::send(address, "GET", "/fib/36")
            })
        })
        .collect();
    for caller in callers {
        let response = caller.join().expect("callers do not panic").expect("every caller is answered");
        assert_eq!(response.text(), "{\"result\":14930352}\n");
    }
    wait_until("the calculation to be logged", || server.calculations() > 0);
    assert_eq!(server.calculations(), 1);
}

#[test]
fn serves_without_a_plugin() {
    let server = Server::start::<&str>([]);
    for _ in 0..2 {
        let response = server.fib(10);
        assert_eq!(response.text(), "{\"result\":55}\n");
        assert_eq!(response.cache_status(), "fib; fwd=bypass; detail=no-plugin");
    }
}

#[test]
fn value_expires() {
    let server = Server::start_with_plugin([MEMORY, "--cache-expiration=1s"]);
    server.wait_for_hit(15);
    wait_until("the value to expire", || server.fib(15).cache_status().starts_with("fib; fwd=miss"));
    server.wait_for_hit(15);
}

#[test]
fn corrupt_value_is_a_miss_and_never_zero() {
    let server = Server::start_with_plugin(rogue("corrupt-values"));
    for _ in 0..3 {
        let response = server.fib(12);
        assert_eq!(response.text(), "{\"result\":144}\n");
        assert!(
            response.cache_status().starts_with("fib; fwd=miss; detail=corrupt"),
            "{}",
            response.cache_status()
        );
    }
    let of_number =
        |line: &Line| line.message() == "request completed" && line.to_string().contains("/fib/12");
    wait_until("the log to have all three", || {
        server.log().lines().iter().filter(|l| of_number(l)).count() == 3
    });
    let told =
        |line: &Line| line.message().starts_with("the cache plugin gives a value that is not a number");
    let lines: Vec<_> = server.log().lines().into_iter().filter(told).collect();
    assert!(matches!(lines.as_slice(), [once] if once.to_string().contains("forty-two")), "{}", lines.len());
}

#[test]
fn plugin_made_without_the_sdk_is_used() {
    let server = Server::start_with_plugin(rogue("ok"));
    assert_eq!(server.wait_for_hit(18).cache_status(), "fib; hit");
}

#[test]
fn plugin_without_a_health_service_is_used() {
    let server = Server::start_with_plugin(rogue("no-health"));
    assert_eq!(server.wait_for_hit(18).cache_status(), "fib; hit");
}

#[test]
fn plugin_with_only_the_mandatory_methods_is_enough() {
    let server = Server::start_with_plugin(rogue("unimplemented"));
    server.fib(11);
    assert_eq!(server.wait_for_hit(11).text(), "{\"result\":89}\n");
    assert_eq!(server.plugin()["stats"], "unsupported");
}
