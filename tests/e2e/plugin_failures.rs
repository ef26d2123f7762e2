//! A plugin that fails while it serves changes latency and the `Cache-Status` header, never an answer.

use std::time::{Duration, Instant};

use e2e::load::Load;
use e2e::log::Line;
use e2e::process;
use e2e::wait::wait_until;
use e2e::{Server, rogue};
use rustix::process::Signal;

#[test]
fn killed_plugin_under_load_costs_no_answer() {
    let server = Server::start_with_plugin(["--cache-plugin-path=memory"]);
    let load = Load::start(server.address(), 4);
    for _ in 0..3 {
        let pid = server.plugin_pid();
        let before = load.answered();
        wait_until("answers with the plugin", || load.answered() > before + 20);
        process::signal(pid, Signal::KILL);
        server.wait_for_plugin_after(pid);
    }
    load.stop().is_flawless();
    server.wait_for_hit(25);
}

#[test]
fn plugin_that_dies_again_and_again_costs_no_answer() {
    let server = Server::start_with_plugin(rogue("die-after=5"));
    let load = Load::start(server.address(), 2);
    wait_until("two restarts", || server.plugin()["restarts"].as_u64() >= Some(2));
    load.stop().is_flawless();
    let tells = |line: &Line| line.to_string().contains("exit status 9");
    wait_until("the log to say how the plugin ended", || server.log().find(tells).is_some());
}

#[test]
fn stopped_plugin_costs_no_answer_and_may_go_on() {
    let server = Server::start_with_plugin(["--cache-plugin-path=memory"]);
    server.wait_for_hit(13);
    process::signal(server.plugin_pid(), Signal::STOP);
    assert_eq!(server.fib(13).text(), "{\"result\":233}\n");
    process::signal(server.plugin_pid(), Signal::CONT);
    server.wait_for_hit(13);
}

#[test]
fn answer_does_not_wait_for_a_slow_plugin() {
    let mut args = rogue("slow=60000");
    args.push("--cache-timeout=50ms".to_owned());
    let server = Server::start_with_plugin(args);
    let asked = Instant::now();
    let response = server.fib(14);
    assert_eq!(response.text(), "{\"result\":377}\n");
    assert_eq!(response.cache_status(), "fib; fwd=bypass; detail=timeout");
    assert!(asked.elapsed() < Duration::from_secs(30), "the plugin takes a minute, the answer must not");
}

#[test]
fn error_of_the_plugin_is_not_the_callers() {
    let server = Server::start_with_plugin(rogue("error-on-get"));
    let response = server.fib(14);
    assert_eq!(response.text(), "{\"result\":377}\n");
    assert_eq!(response.cache_status(), "fib; fwd=bypass; detail=unavailable");
    wait_until("the fault in the log", || {
        server.log().find(|line| line.to_string().contains("the cache plugin fails to look up")).is_some()
    });
}

#[test]
fn death_is_seen_though_a_grandchild_holds_the_pipes() {
    let server = Server::start_with_plugin(rogue("fork-grandchild"));
    let first = server.plugin_pid();
    let grandchild = process::children_of(first);
    assert_eq!(grandchild.len(), 1);
    process::signal(first, Signal::KILL);
    server.wait_for_plugin_after(first);
    server.wait_for_hit(16);
    wait_until("the grandchild to be killed too", || !process::is_running(grandchild[0]));
}

#[test]
fn flood_on_stderr_does_not_stop_the_service() {
    keeps_serving("flood-stderr");
}

#[test]
fn flood_on_stdout_does_not_stop_the_service() {
    keeps_serving("flood-stdout");
}

#[test]
fn answers_with_a_wrong_number_cost_no_answer() {
    costs_no_answer("pipe=wrong-number", &["do not fit their questions"]);
}

#[test]
fn answers_with_too_few_results_cost_no_answer() {
    costs_no_answer("pipe=too-few", &["do not fit their questions"]);
}

#[test]
fn answers_with_too_many_results_cost_no_answer() {
    costs_no_answer("pipe=too-many", &["do not fit their questions"]);
}

#[test]
fn batches_that_are_answered_twice_are_answered() {
    costs_no_answer("pipe=twice", &["cache hit"]).wait_for_hit(20);
}

#[test]
fn batches_that_are_never_answered_cost_no_answer() {
    costs_no_answer("pipe=silent", &["does not answer; it is asked once a second"]);
}

#[test]
fn stream_that_ends_too_early_costs_no_answer() {
    costs_no_answer("pipe=ends", &["the stream to the cache plugin has ended"]).wait_for_hit(20);
}

#[test]
fn stream_that_fails_costs_no_answer() {
    costs_no_answer("pipe=fails", &["stream", "Internal"]).wait_for_hit(20);
}

#[test]
fn answer_that_is_too_large_costs_no_answer() {
    costs_no_answer("pipe=huge", &["stream", "OutOfRange"]).wait_for_hit(20);
}

#[test]
fn plugin_that_dies_of_a_batch_costs_no_answer() {
    let server = costs_no_answer("pipe=exits", &["exit status 9"]);
    wait_until("another start", || server.plugin()["restarts"].as_u64() >= Some(1));
}

/// Lets clients work until the log has a line with all of `cause`, and expects that each was answered, soon. If it is a
/// warning about the line to the plugin, there is one.
fn costs_no_answer(mode: &str, cause: &[&str]) -> Server {
    let server = Server::start_with_plugin(rogue(mode));
    let load = Load::start(server.address(), 16);
    let is_cause = |line: &Line| cause.iter().all(|part| line.to_string().contains(part));
    wait_until("answers", || load.answered() > 300);
    wait_until("the cause to be in the log", || server.log().find(is_cause).is_some());
    let report = load.stop();
    let slowest = report.is_flawless().quantile(1.0);
    // The plugin has a quarter of a second for each; the rest is what a busy machine makes of it.
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    let of_the_line = |line: &Line| line.level() == "WARN" && line.message().starts_with("the cache plugin");
    let told = server.log().lines().iter().filter(|line| of_the_line(line) && is_cause(line)).count();
    assert!(told <= 1, "{told} times {cause:?}");
    server
}

fn keeps_serving(mode: &str) {
    let server = Server::start_with_plugin(rogue(mode));
    let pid = server.plugin_pid();
    server.wait_for_hit(17);
    assert_eq!(server.plugin_pid(), pid, "the plugin has not been restarted");
}
