//! A plugin that does not start: a mistake in the configuration ends the server with exit status 2; any other is
//! logged with its true cause, and the server works without a cache.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use e2e::file::{executable, foreign};
use e2e::wait::wait_for;
use e2e::{Server, binary, rogue, run};

#[test]
fn missing_file_is_a_usage_error() {
    refuses(Path::new("/nonexistent/fib-cache-memory"), &["/nonexistent/fib-cache-memory", "no such file"]);
}

#[test]
fn unknown_name_is_a_usage_error() {
    refuses(Path::new("nonesuch"), &["fib-cache-nonesuch"]);
}

#[test]
fn file_that_is_not_executable_is_a_usage_error() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let path = directory.path().join("plugin");
    fs::copy(binary("rogue-plugin"), &path).expect("a file can be copied");
    fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("its mode can be set");
    refuses(&path, &["not executable"]);
}

#[test]
fn program_for_another_machine_is_a_usage_error() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let (path, machine) = foreign(directory.path());
    refuses(&path, &[machine, std::env::consts::ARCH]);
}

#[test]
fn text_without_an_interpreter_is_a_usage_error() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    refuses(
        &executable(directory.path(), "plugin", b"echo hello\n"),
        &["neither an executable nor a script", "echo hello"],
    );
}

#[test]
fn script_whose_interpreter_is_missing_is_a_usage_error() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    refuses(
        &executable(directory.path(), "plugin", b"#!/nonexistent/python\n"),
        &["interpreter /nonexistent/python"],
    );
}

#[test]
fn empty_file_is_a_usage_error() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    refuses(&executable(directory.path(), "plugin", b""), &["empty"]);
}

#[test]
fn copy_that_was_broken_off_is_a_usage_error() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let whole = fs::read(binary("rogue-plugin")).expect("it was built");
    for bytes in [64, 100_000] {
        let part = executable(directory.path(), "plugin", &whole[..bytes]);
        refuses(&part, &["cut short", &format!("it has {bytes} bytes")]);
    }
}

#[test]
fn directory_is_a_usage_error() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    refuses(directory.path(), &["directory"]);
}

#[test]
fn what_a_plugin_says_is_for_the_log_and_not_for_clients() {
    let server = Server::start(rogue("exit-before-handshake=3"));
    let secret = "the cache directory is not mounted";
    wait_for("the log to have it", || server.log().find(|line| line.to_string().contains(secret)));
    let plugin =
        wait_for("the failure", || Some(server.plugin()).filter(|plugin| !plugin["last_error"].is_null()));
    assert_eq!(plugin["last_error"], "exited before it was ready: exit status 3");
    assert!(!plugin.to_string().contains("mounted"), "{plugin}");
}

/// The server does not start: exit status 2, and one line that names the flag and has all these words.
#[track_caller]
fn refuses(path: &Path, words: &[&str]) {
    let flag = format!("--cache-plugin-path={}", path.display());
    let output = run(binary("fib-server"), ["--port=0", &flag]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(output.stdout.is_empty());
    for word in ["--cache-plugin-path"].iter().chain(words) {
        assert!(stderr.contains(word), "{word:?} is missing in: {stderr}");
    }
}

/// Each test: the mode of the plugin, and what the warning must say for somebody to know what to mend.
macro_rules! degrades {
    ($($name:ident: $mode:literal, [$($word:literal),+];)+) => {
        $(
            #[test]
            fn $name() {
                serves_without_a_cache($mode, &[$($word),+]);
            }
        )+
    };
}

degrades! {
    exit_before_the_handshake: "exit-before-handshake=3", ["exit status 3", "the cache directory is not mounted"];
    rubbish_instead_of_a_handshake: "rubbish", ["hello I am not a plugin"];
    log_lines_before_the_handshake: "two-lines-of-log-first", ["INFO starting up"];
    empty_line: "empty-line", ["not a handshake"];
    seventy_kilobytes_in_one_line: "junk-70k", ["longer than"];
    line_that_is_not_utf8: "bad-utf8", ["UTF-8"];
    stdout_closed_without_a_line: "close-stdout", ["stdout"];
    nothing_printed: "silent", ["1s"];
    half_a_line: "half-line", ["1|1|unix|/tmp/plu", "1s"];
    net_rpc: "netrpc", ["net/rpc"];
    other_core_version: "core-version=2", ["2", "core"];
    other_app_version: "app-version=9", ["9", "1"];
    unknown_network: "network=udp", ["udp"];
    certificate_that_nobody_asked_for: "unasked-cert", ["certificate"];
    death_after_the_handshake: "crash-after-handshake", ["exit status 7", "the index is damaged"];
    socket_that_nobody_listens_on: "no-listen", ["rogue-", ".sock"];
    socket_that_never_answers: "deaf", ["1s"];
    health_not_serving: "not-serving", ["NOT_SERVING"];
}

#[track_caller]
fn serves_without_a_cache(mode: &str, words: &[&str]) {
    // Where the start timeout decides it should be short; elsewhere it must not decide on a slow machine.
    let waits = ["silent", "half-line", "deaf"].contains(&mode);
    let mut args = rogue(mode);
    args.push(format!("--plugin-start-timeout={}", if waits { "1s" } else { "20s" }));
    let server = Server::start(args);

    let response = server.fib(10);
    assert_eq!(response.text(), "{\"result\":55}\n");
    assert!(response.cache_status().starts_with("fib; fwd=bypass"), "{}", response.cache_status());

    let warning = wait_for("a warning", || server.log().find(|line| line.level() == "WARN")).to_string();
    for word in words {
        assert!(warning.contains(word), "{word:?} is missing in: {warning}");
    }
    assert_ne!(server.plugin_state(), "serving");
    assert_eq!(server.get("/readyz").status, 200, "a cache is optional");
}
