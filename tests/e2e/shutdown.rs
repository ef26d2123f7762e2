//! A server that is told to stop finishes what it has begun, and leaves no process and no file.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use e2e::wait::{wait_for, wait_until};
use e2e::{Server, http, process, rogue};
use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;

const MEMORY: &str = "--cache-plugin-path=memory";

/// For tests in which a request has to be finished, however slow the machine is.
const PATIENT: &str = "--drain-timeout=2m";

#[test]
fn sigterm_leaves_no_process_and_no_file() {
    let mut server = Server::start_with_plugin([MEMORY]);
    server.wait_for_hit(10);
    assert_eq!(server.processes().len(), 2, "server and plugin");
    assert!(!server.files().is_empty(), "the socket is in the server's directory for temporary files");
    server.signal(Signal::TERM);
    ends_without_a_trace(&mut server);
}

#[test]
fn sigint_to_the_whole_group_leaves_no_process_and_no_file() {
    let mut server = Server::start_with_plugin([MEMORY]);
    process::signal_group(server.pid(), Signal::INT);
    ends_without_a_trace(&mut server);
}

#[test]
fn sigint_to_server_and_plugin_leaves_no_process_and_no_file() {
    let mut server = Server::start_with_plugin([MEMORY]);
    for pid in server.processes() {
        process::signal(pid, Signal::INT);
    }
    ends_without_a_trace(&mut server);
}

#[test]
fn end_of_the_terminal_lets_requests_finish_and_leaves_no_process_and_no_file() {
    let mut server = Server::start_with_plugin([MEMORY, PATIENT]);
    if process::ignores(server.pid(), Signal::HUP) {
        return e2e::skip_as(
            "end_of_the_terminal_lets_requests_finish_and_leaves_no_process_and_no_file",
            "the tests run under nohup",
        );
    }
    let address = server.address();
    let caller = thread::spawn(move || http::send(address, "GET", "/fib/40"));
    server.wait_until_calculating();
    server.signal(Signal::HUP);
    wait_until("the server to refuse connections", || http::connect(address).is_err());
    // Shell and kernel send one each.
    server.signal(Signal::HUP);
    let response = caller.join().expect("the caller does not panic").expect("the caller is answered");
    assert_eq!(response.text(), "{\"result\":102334155}\n");
    ends_without_a_trace(&mut server);
}

#[test]
fn server_under_nohup_ignores_the_end_of_the_terminal() {
    let mut server = Server::start_with_plugin_after("trap '' HUP", [MEMORY]);
    assert!(process::ignores(server.pid(), Signal::HUP));
    server.signal(Signal::HUP);
    server.fib(10);
    server.signal(Signal::TERM);
    ends_without_a_trace(&mut server);
}

#[test]
fn server_ends_while_it_looks_its_host_name_up() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let aliases = directory.path().join("aliases");
    let status = Command::new("mkfifo").arg(&aliases).status().expect("mkfifo can be run");
    assert!(status.success());
    // glibc reads this file before it asks for a name without a dot, and reading it does not end.
    let prelude = format!("export HOSTALIASES='{}'", aliases.display());
    let mut server = Server::begin_after(&prelude, ["--host=nonesuch", "--port=0"]);
    let opened = wait_for("the server to look the name up", || {
        let writer = rustix::fs::open(&aliases, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty());
        if server.has_ended() { Some(None) } else { writer.ok().map(Some) }
    });
    let Some(_writer) = opened else {
        return e2e::skip_as(
            "server_ends_while_it_looks_its_host_name_up",
            "no glibc, or no DNS in nsswitch.conf",
        );
    };
    server.signal(Signal::TERM);
    ends_without_a_trace(&mut server);
}

#[test]
fn server_without_a_plugin_ends_too() {
    let mut server = Server::start::<&str>([]);
    server.signal(Signal::TERM);
    ends_without_a_trace(&mut server);
}

#[test]
fn plugin_that_ignores_sigterm_is_killed() {
    let mut server = Server::start_with_plugin(rogue("ignore-term"));
    server.signal(Signal::TERM);
    ends_without_a_trace(&mut server);
}

#[test]
fn stopped_plugin_is_killed() {
    let mut server = Server::start_with_plugin([MEMORY]);
    process::signal(server.plugin_pid(), Signal::STOP);
    server.signal(Signal::TERM);
    ends_without_a_trace(&mut server);
}

#[test]
fn grandchildren_of_the_server_are_killed() {
    let mut server = Server::start_with_plugin(rogue("fork-grandchild"));
    wait_until("server, plugin and grandchild", || server.processes().len() == 3);
    server.signal(Signal::TERM);
    ends_without_a_trace(&mut server);
}

#[test]
fn server_that_runs_out_of_descriptors_leaves_no_file() {
    for limit in 8..24 {
        let args = [MEMORY, "--port=0", "--plugin-backoff=1ms"];
        let mut server = Server::begin_after(&format!("ulimit -n {limit}"), args);
        wait_until("the plugin to be started, or that to fail", || {
            let log = server.log();
            let has_tried = log.events("start-failed") + log.events("serving") > 0;
            has_tried || server.has_ended()
        });
        server.signal(Signal::TERM);
        server.wait_for_exit();
        assert_eq!(server.files(), Vec::<PathBuf>::new(), "with {limit} descriptors");
        assert_eq!(server.processes(), Vec::<u32>::new(), "with {limit} descriptors");
    }
}

#[test]
fn server_ends_while_its_plugin_is_starting() {
    let mut args = rogue("silent");
    args.extend(["--plugin-start-timeout=10m", "--port=0"].map(str::to_owned));
    let mut server = Server::launch(args);
    wait_until("the plugin process", || server.processes().len() == 2);
    server.signal(Signal::TERM);
    ends_without_a_trace(&mut server);
}

#[test]
fn request_in_flight_is_answered() {
    let mut server = Server::start_with_plugin([MEMORY, PATIENT]);
    let address = server.address();
    let caller = thread::spawn(move || http::send(address, "GET", "/fib/40"));
    server.wait_until_calculating();
    server.signal(Signal::TERM);
    let response = caller.join().expect("the caller does not panic").expect("the caller is answered");
    assert_eq!(response.text(), "{\"result\":102334155}\n");
    ends_without_a_trace(&mut server);
}

#[test]
fn drain_timeout_bounds_the_wait() {
    let mut server = Server::start_with_plugin([MEMORY, "--compute-timeout=10m", "--drain-timeout=100ms"]);
    let address = server.address();
    let caller = thread::spawn(move || http::send(address, "GET", "/fib/93"));
    server.wait_until_calculating();
    server.signal(Signal::TERM);
    ends_without_a_trace(&mut server);
    drop(caller.join());
}

#[test]
fn request_that_is_not_waited_for_is_refused_and_its_connection_not_reset() {
    let args = [MEMORY, "--compute-timeout=10m", "--drain-timeout=100ms"];
    let mut server = Server::start_with_plugin(args);
    let mut caller = http::connect(server.address()).expect("the server listens");
    let both = ["/fib/93", "/fib/10"].map(|path| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).concat();
    caller.write_all(both.as_bytes()).expect("the server listens");
    server.wait_until_calculating();
    server.signal(Signal::TERM);
    let mut answer = String::new();
    caller.read_to_string(&mut answer).expect("the connection is closed, and not reset");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    assert!(answer.contains("{\"error\":\"stopping\","), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    drop(caller);
    ends_without_a_trace(&mut server);
    assert_eq!(server.log().count("drain timeout over, connections cut"), 1);
    let line = server.log().find(|line| line.to_string().contains("/fib/93")).expect("it is logged");
    assert_eq!((line.message(), line.number("status")), ("request completed", Some(503)));
}

#[test]
fn connections_that_have_not_asked_do_not_hold_the_end_up() {
    let mut server = Server::start_with_plugin([MEMORY, "--header-timeout=10m", "--drain-timeout=10m"]);
    let connect = |sent: &[u8]| {
        let mut connection = http::connect(server.address()).expect("the server listens");
        connection.write_all(sent).expect("the server listens");
        connection
    };
    let mut again = http::Connection::open(server.address()).expect("the server listens");
    again.get("/fib/10").expect("it is answered");
    let idle = [connect(b""), connect(b"GET /fib/1 HTTP/1.1\r\nHo"), connect(b"\r\n")];
    again.send(b"GET /fib/1 HTTP/1.1\r\nHo").expect("it is open");
    // What was sent before this has arrived.
    server.fib(10);
    server.signal(Signal::TERM);
    ends_without_a_trace(&mut server);
    assert_eq!(server.log().count("drain timeout over, connections cut"), 0);
    drop((idle, again));
}

#[test]
fn plugin_that_hangs_does_not_hold_the_end_up_for_as_long_as_calls_may_take() {
    let mut server = Server::start_with_plugin([
        MEMORY,
        "--cache-timeout=10m",
        "--plugin-probe-interval=10m",
        "--drain-timeout=100ms",
    ]);
    server.wait_for_hit(10);
    process::signal(server.plugin_pid(), Signal::STOP);
    let before = process::sockets(server.pid());
    let address = server.address();
    let caller = thread::spawn(move || http::send(address, "GET", "/fib/10"));
    wait_until("the caller to be connected", || !process::sockets(server.pid()).is_subset(&before));
    server.signal(Signal::TERM);
    ends_without_a_trace(&mut server);
    drop(caller.join());
}

#[test]
fn second_signal_ends_the_server_at_once() {
    let mut server = Server::start_with_plugin([MEMORY, "--compute-timeout=10m", "--drain-timeout=10m"]);
    let address = server.address();
    let caller = thread::spawn(move || http::send(address, "GET", "/fib/93"));
    server.wait_until_calculating();
    server.signal(Signal::TERM);
    wait_until("the server to refuse connections", || http::connect(address).is_err());
    assert!(!server.has_ended(), "the first signal lets the request go on");
    server.signal(Signal::TERM);
    assert_eq!(server.wait_for_exit().code(), Some(143));
    wait_until("no process to be left", || server.processes().is_empty());
    assert_eq!(server.files(), Vec::<PathBuf>::new());
    drop(caller.join());
}

#[test]
fn plugin_does_not_outlive_a_killed_server() {
    let mut server = Server::start_with_plugin([MEMORY]);
    server.signal(Signal::KILL);
    server.wait_for_exit();
    wait_until("the plugin to end", || server.processes().is_empty());
}

/// The server ends with exit status 0; when it has ended, nothing is left.
#[track_caller]
fn ends_without_a_trace(server: &mut Server) {
    let status = server.wait_for_exit();
    assert_eq!(server.processes(), Vec::<u32>::new());
    assert_eq!(server.files(), Vec::<PathBuf>::new());
    assert_eq!(status.code(), Some(0), "{status}");
}
