//! What goes wrong with go-plugin and must not with us: one test for each, named by what a user would see.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use plugin_sdk::LineProblem;
use plugin_sdk::host::{Checksum, ChecksumError, ExitKind, LaunchError};
use sample_plugin::sample_client::SampleClient;
use sha2::Digest;
use support::{launch_of, script};

mod support;

const BINARY: &str = env!("CARGO_BIN_EXE_sample-plugin");

#[tokio::test]
async fn an_exit_is_seen_although_a_daemon_of_its_own_session_holds_the_pipes() {
    let dir = tempfile::tempdir().unwrap();
    // The script ends when its daemon has left the process group.
    let daemon = "setsid sh -c 'echo up > up; exec sleep 20' & while [ ! -e up ]; do :; done";
    let launch =
        script(dir.path(), &format!("cd {}; {daemon}; echo no licence >&2; exit 3", dir.path().display()));
    let error = launch.start().await.unwrap_err();
    let LaunchError::Exited { exit, stderr_tail } = error else { panic!("{error:?}") };
    assert_eq!(exit.status, ExitKind::Code(3));
    assert_eq!(stderr_tail.lines(), ["no licence"]);
}

#[tokio::test]
async fn an_unasked_certificate_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let line = format!("1|1|unix|/tmp/x|grpc|{}", "M".repeat(400));
    let error = script(dir.path(), &format!("echo '{line}'; sleep 20")).start().await.unwrap_err();
    assert!(
        matches!(error, LaunchError::Handshake { problem: LineProblem::UnexpectedCertificate, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_plugin_without_the_certificate_that_was_asked_for_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let launch = script(dir.path(), "echo '1|1|unix|/tmp/x|grpc|'; sleep 20");
    let error = launch.security(plugin_sdk::host::Security::AutoMtls).start().await.unwrap_err();
    assert!(
        matches!(error, LaunchError::Handshake { problem: LineProblem::MissingCertificate, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_line_without_its_end_counts_when_the_stream_ends() {
    let dir = tempfile::tempdir().unwrap();
    let error = script(dir.path(), "printf '1|1|udp|x|grpc'; exec >&-; sleep 20").start().await.unwrap_err();
    assert!(matches!(error, LaunchError::Handshake { problem: LineProblem::Address(_), .. }), "{error:?}");
}

#[tokio::test]
async fn a_socket_of_a_stranger_is_not_taken_for_the_plugins() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("stranger");
    // This test itself is the stranger: it is no descendant of the plugin.
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let launch = script(dir.path(), &format!("echo '1|1|unix|{}|grpc|'; sleep 20", socket.display()));
    let error = launch.start().await.unwrap_err();
    let told = plugin_sdk::one_line(&error).to_string();
    assert!(matches!(error, LaunchError::Connect { .. }) && told.contains("listens on the socket"), "{told}");
}

#[tokio::test]
async fn a_handler_that_prints_more_than_a_pipe_holds_is_not_held_up() {
    let plugin = launch_of(BINARY).start().await.unwrap();
    let mut client = SampleClient::new(plugin.channel());
    client.print("x".repeat(500_000)).await.unwrap();
    assert_eq!(client.who(()).await.unwrap().into_inner(), "rust 1");
    assert!(plugin.shutdown().await.is_success());
}

#[tokio::test]
async fn what_is_pinned_is_what_runs_at_every_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plugin");
    std::fs::copy(BINARY, &path).unwrap();
    let digest: [u8; 32] = sha2::Sha256::digest(std::fs::read(BINARY).unwrap()).into();
    let launch = launch_of(&path).checksum(Checksum::sha256(digest));
    for _ in 0..2 {
        let plugin = launch.start().await.unwrap();
        // The file can be replaced, and even rewritten, while the plugin runs from the bytes that were verified.
        std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        assert_eq!(SampleClient::new(plugin.channel()).who(()).await.unwrap().into_inner(), "rust 1");
        assert!(plugin.shutdown().await.is_success());
    }
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"x").unwrap();
    let error = launch.start().await.unwrap_err();
    assert!(
        matches!(error, LaunchError::Checksum { source: ChecksumError::Mismatch { .. }, .. }),
        "{error:?}"
    );
    assert!(error.is_permanent());
}

#[tokio::test]
async fn variables_of_a_launch_are_not_in_its_debug_output() {
    let launch = launch_of(BINARY).env("TOKEN", "hunter2");
    let plugin = launch.start().await.unwrap();
    let shown = format!("{launch:?} {plugin:?}");
    assert!(shown.contains("TOKEN") && !shown.contains("hunter2"), "{shown}");
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_group_may_be_given_the_sockets() {
    let group = rustix::process::getgid().as_raw().to_string();
    let plugin = launch_of(BINARY).socket_group(group).start().await.unwrap();
    let plugin_sdk::PluginAddress::Unix(socket) = plugin.address().clone() else {
        panic!("not a Unix socket")
    };
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&socket), mode(socket.parent().unwrap())), (0o660, 0o770));
    plugin.shutdown().await;
}
