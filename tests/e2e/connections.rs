//! Connections that do nothing take room, and never the room that the plugin needs.

use std::net::TcpStream;

use e2e::wait::wait_until;
use e2e::{Server, http, process};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit, setrlimit};

const MEMORY: &str = "--cache-plugin-path=memory";

/// Descriptors that the test process itself needs for all else.
const OWN_RESERVE: u64 = 1000;

#[test]
fn plugin_is_restarted_though_idle_connections_take_all_there_is() {
    let server = Server::start_with_plugin_after("ulimit -n 128", [MEMORY, "--header-timeout=10m"]);
    let told = || server.log().count("the limit on open files allows fewer connections") == 1;
    wait_until("the operator to be told", told);
    let plugin = server.plugin_pid();
    let own = process::open_descriptors(server.pid());
    // There is room for 64; the others wait in the queue.
    let idle = connect(&server, 200);
    wait_until("the server to be full", || process::open_descriptors(server.pid()) >= own + 60);

    process::signal(plugin, Signal::KILL);
    wait_until("the plugin to serve again", || server.log().events("serving") == 2);
    drop(idle);
    assert_ne!(server.plugin_pid(), plugin);
    server.wait_for_hit(10);
}

#[test]
fn callers_are_served_when_idle_connections_have_timed_out() {
    let server = Server::start_with_plugin_after("ulimit -n 128", [MEMORY, "--header-timeout=1s"]);
    let idle = connect(&server, 200);
    assert_eq!(server.fib(10).text(), "{\"result\":55}\n");
    drop(idle);
}

#[test]
fn soft_limit_is_raised_as_far_as_the_connections_need() {
    let server = Server::start_with_plugin_after("ulimit -Sn 100", [MEMORY, "--max-connections=300"]);
    let idle = connect(&server, 250);
    wait_until("all to be accepted", || process::open_descriptors(server.pid()) > 250);
    assert_eq!(server.fib(10).text(), "{\"result\":55}\n");
    drop(idle);
}

#[test]
fn ten_thousand_idle_connections_or_what_the_hard_limit_allows_keep_nobody_out() {
    let hard = raise_own_limit();
    let number = hard.saturating_sub(OWN_RESERVE).min(10_000) as usize;
    eprintln!("with {number} idle connections");
    let room = format!("--max-connections={}", number + 100);
    let server = Server::start_with_plugin([MEMORY, "--header-timeout=10m", &room]);
    let idle = connect(&server, number);
    wait_until("all to be accepted", || process::open_descriptors(server.pid()) > number);

    assert_eq!(server.fib(10).text(), "{\"result\":55}\n");
    let plugin = server.plugin_pid();
    process::signal(plugin, Signal::KILL);
    server.wait_for_plugin_after(plugin);
    server.wait_for_hit(10);
    drop(idle);
}

#[test]
fn that_all_connections_are_taken_is_one_warning() {
    let server = Server::start(["--max-connections=2"]);
    let idle = connect(&server, 2);
    let warnings =
        || server.log().lines().iter().filter(|line| line.message().contains("--max-connections")).count();
    wait_until("a warning", || warnings() > 0);
    idle.into_iter().for_each(drop);
    for _ in 0..5 {
        let (one, other) = (connect(&server, 1), connect(&server, 1));
        drop(one);
        assert_eq!(server.fib(10).status, 200);
        drop(other);
    }
    assert_eq!(warnings(), 1);
}

#[test]
fn want_of_descriptors_is_one_warning_until_it_is_over() {
    const WARNING: &str = "cannot accept connections, trying again and again";
    let server = Server::start::<&str>([]);
    // Lower than the server has found it at its start.
    limit(server.pid(), process::open_descriptors(server.pid()) as u64 + 3);
    let idle = connect(&server, 20);
    wait_until("a warning", || server.log().count(WARNING) > 0);
    // Each that ends lets another one in, and the next is refused again.
    idle.into_iter().for_each(drop);
    wait_until("the end of it", || server.log().count("connections are accepted again") == 1);
    assert_eq!(server.log().count(WARNING), 1);
    assert_eq!(server.fib(10).text(), "{\"result\":55}\n");
}

fn connect(server: &Server, number: usize) -> Vec<TcpStream> {
    (0..number).map(|_| http::connect(server.address()).expect("the server listens")).collect()
}

/// Gives the test process all descriptors it may have, and says how many.
fn raise_own_limit() -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .expect("up to the hard limit is allowed");
    maximum.unwrap_or(u64::MAX)
}

/// Sets the soft limit on open files of another process.
fn limit(pid: u32, descriptors: u64) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let maximum = getrlimit(Resource::Nofile).maximum;
    prlimit(pid, Resource::Nofile, Rlimit { current: Some(descriptors), maximum }).expect("it is ours");
}
