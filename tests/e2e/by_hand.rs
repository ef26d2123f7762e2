//! People start these programs too: a plugin without a host, a server with the flags they know.

use std::process::Command;

use e2e::process::{signal, wait_for_exit};
use e2e::wait::wait_until;
use e2e::{Server, binary, run};
use rustix::process::Signal;

#[test]
fn plugin_started_by_hand_explains_itself() {
    let output = run::<&str>(binary("fib-cache-memory"), []);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(output.stdout.is_empty(), "stdout is for the handshake");
    assert!(stderr.contains("plugin"), "{stderr}");
    assert!(!stderr.contains("{\""), "text for people, not a log line: {stderr}");
}

#[test]
fn plugin_has_help_and_version() {
    for flag in ["--help", "--version"] {
        let output = run(binary("fib-cache-memory"), [flag]);
        assert_eq!(output.status.code(), Some(0), "{flag}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("fib-cache-memory"), "{flag}");
        assert!(output.stderr.is_empty(), "{flag}");
    }
}

#[test]
fn plugin_can_be_a_service_of_its_own_with_arguments_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("cache.sock");
    let mut command = Command::new(binary("fib-cache-memory"));
    command.arg(format!("--listen=unix:{}", socket.display())).args(["--max-entries", "5"]);
    #[expect(clippy::disallowed_methods, reason = "no host starts a service")]
    let mut service = command.spawn().unwrap();
    wait_until("the service listens", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    signal(service.id(), Signal::TERM);
    assert!(wait_for_exit(&mut service, "the service").success());
    assert!(!socket.exists());
}

#[test]
fn server_has_help_and_version() {
    let help = run(binary("fib-server"), ["--help"]);
    let text = String::from_utf8_lossy(&help.stdout);
    assert_eq!(help.status.code(), Some(0));
    for flag in ["--port", "--cache-plugin-path", "--cache-expiration", "FIB_PORT"] {
        assert!(text.contains(flag), "{flag} is missing in:\n{text}");
    }
    assert_eq!(run(binary("fib-server"), ["--version"]).status.code(), Some(0));
}

#[test]
fn unknown_flag_is_a_usage_error() {
    let output = run(binary("fib-server"), ["--prot=0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--port"), "the nearest name is offered");
}

#[test]
fn flags_of_the_go_server_still_work() {
    let plugin = format!("-cache-plugin-path={}", binary("fib-cache-memory").display());
    let server = Server::start_with_all_flags([
        "-port=0",
        "-log-level=debug",
        "-cache-expiration=15s",
        plugin.as_str(),
    ]);
    server.fib(10);
    let hit = server.wait_for_hit(10);
    let ttl = hit.cache_status().rsplit_once("ttl=").and_then(|(_, seconds)| seconds.parse::<u64>().ok());
    assert!(ttl.is_some_and(|seconds| seconds <= 15), "{}", hit.cache_status());
}

#[test]
fn flags_of_the_go_server_may_have_their_value_apart() {
    let server = Server::start_with_all_flags(["-port", "0", "-log-level", "debug"]);
    assert_eq!(server.fib(7).text(), "{\"result\":13}\n");
}
