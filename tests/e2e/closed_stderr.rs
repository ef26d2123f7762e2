//! Nobody has to read what the server says.

use std::process::{Command, Stdio};

use e2e::http::Connection;
use e2e::process::wait_for_exit;
use e2e::wait::{wait_for, wait_until};
use e2e::{Server, binary};

#[test]
fn server_whose_stderr_has_no_reader_any_more_keeps_answering() {
    let mut server = Server::start_with_plugin(["--cache-plugin-path=memory"]);
    server.log().hang_up();
    wait_until("the pipe to be closed", || {
        server.fib(10);
        server.log().has_ended()
    });
    for n in 0..20 {
        server.fib(n);
    }
    assert!(!server.has_ended());
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
}

/// Has the server log more than a pipe takes, and more than waits in memory for it.
fn log_megabytes(server: &Server) {
    let mut client = Connection::open(server.address()).expect("it listens");
    for _ in 0..4_000 {
        let response = client.get("/fib/10").expect("it answers though nobody reads its log");
        assert_eq!(response.status, 200);
    }
}

#[test]
fn server_whose_stderr_is_not_read_answers_and_tells_later_how_many_lines_are_missing() {
    let server = Server::start_with_plugin(["--cache-plugin-path=memory"]);
    let unread = server.log().hold();
    log_megabytes(&server);
    assert_eq!(server.get("/healthz").status, 200);
    drop(unread);
    let told = wait_for("the number of lines that are missing", || {
        server.log().find(|line| line.message().starts_with("log lines were dropped"))
    });
    assert!(told.number("dropped") > Some(0), "{told}");
    let logged = server.log().lines().len();
    server.fib(11);
    wait_until("lines to be logged again", || server.log().lines().len() > logged);
}

#[test]
fn server_whose_stderr_is_not_read_stops_when_told_to() {
    let mut server = Server::start_with_plugin(["--cache-plugin-path=memory"]);
    let log = server.log().clone();
    let _unread = log.hold();
    log_megabytes(&server);
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a command line that no harness is for")]
fn refusal_that_nobody_reads_is_still_a_usage_error() {
    let (reader, stderr) = std::io::pipe().expect("a pipe can be made");
    drop(reader);
    let mut command = Command::new(binary("fib-server"));
    let mut child = command.arg("--port=x").stdin(Stdio::null()).stderr(stderr).spawn().expect("it starts");
    assert_eq!(wait_for_exit(&mut child, "the server to refuse").code(), Some(2));
}
