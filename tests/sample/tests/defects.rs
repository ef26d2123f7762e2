//! What goes wrong with go-plugin and must not with us: one test for each, named by what a user would see.
#![allow(clippy::unwrap_used, reason = "all of it is tests, parts of them among them")]

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::task::Poll;
use std::time::Duration;

use plugin_sdk::host::{
    Attach, Checksum, ChecksumError, Environment, ExitKind, LaunchError, Plugin, StopStep,
};
use plugin_sdk::{LineProblem, ReattachConfig};
use rustix::process::Signal;
use sample_plugin::Greeter;
use sample_plugin::sample_client::SampleClient;
use sample_plugin::sample_server::SampleServer;
use sha2::Digest;
use support::logged::Logged;
use support::{
    LIMIT, Stray, contract, launch_of, sample, script, signal, socket, socket_dir, start, until, who,
};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tonic::service::Routes;

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
async fn nothing_but_what_is_pinned_runs_though_a_start_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let ran = dir.path().join("ran");
    let digest: [u8; 32] = sha2::Sha256::digest(std::fs::read("/bin/true").unwrap()).into();
    // `true` does nothing with this argument, and `touch`, whose file gets the descriptor next, makes a file of it.
    let launch = launch_of("/bin/true").checksum(Checksum::sha256(digest)).arg(&ran);
    for _ in 0..100 {
        let mut spawn = Box::pin(launch.spawn());
        let mut polls = 0;
        std::future::poll_fn(|cx| {
            polls += 1;
            // The first begins the copy, which is verified, and the second the start.
            if spawn.as_mut().poll(cx).is_ready() || polls == 2 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        drop(spawn);
        let next = [(); 3].map(|()| std::fs::File::open("/usr/bin/touch").unwrap());
        // Time for what it should not do: no condition tells that it does nothing.
        std::thread::sleep(Duration::from_millis(3));
        drop(next);
    }
    assert!(!ran.exists());
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
    let Some(group) = another_group() else {
        return e2e::skip_as("a_group_may_be_given_the_sockets", "this user has no other group");
    };
    let plugin = launch_of(BINARY).socket_group(group.to_string()).start().await.unwrap();
    let plugin_sdk::PluginAddress::Unix(socket) = plugin.address().clone() else {
        panic!("not a Unix socket")
    };
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&socket), mode(socket.parent().unwrap())), (0o660, 0o770));
    let owner = |path: &Path| path.metadata().unwrap().gid();
    assert_eq!((owner(&socket), owner(socket.parent().unwrap())), (group, group));
    plugin.shutdown().await;
}

/// A group that files can be given to, and that they are not of anyhow.
fn another_group() -> Option<u32> {
    let own = rustix::process::getegid().as_raw();
    if rustix::process::geteuid().is_root() {
        return Some(own + 1);
    }
    let groups = rustix::process::getgroups().unwrap();
    groups.into_iter().map(rustix::process::Gid::as_raw).find(|group| *group != own)
}

/// A plugin with these arguments and variables, as somebody else would start it, and the first line that it prints.
async fn started(program: &str, args: &[&str], variables: &[(&str, &Path)]) -> (Stray, String) {
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(variables.iter().copied());
    let mut child = Stray::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()));
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    tokio::time::timeout(LIMIT, stdout.read_line(&mut line)).await.expect("it prints a line").unwrap();
    // Given back, so that the pipe stays open.
    child.stdout = Some(stdout.into_inner());
    (child, line)
}

async fn in_test_mode() -> (Stray, ReattachConfig) {
    let (child, line) = started(BINARY, &["--test-mode"], &[]).await;
    (child, ReattachConfig::from_json(&line).unwrap())
}

#[tokio::test]
async fn what_a_plugin_prints_while_it_is_made_is_not_its_handshake() {
    let logged = Logged::begin();
    let (plugin, _) = start(&sample().arg("--chatty")).await;
    assert_eq!(who(&plugin).await, "rust 1");
    logged.line(|line| line.field("stream") == "stdout" && line.message() == "ready to serve").await;
    assert!(plugin.shutdown().await.is_success());
}

#[tokio::test]
async fn an_explicit_variable_wins_over_the_hosts_own() {
    let launch = sample().environment(Environment::Inherit).env("PATH", "/explicit");
    let (plugin, mut client) = start(&launch).await;
    assert_eq!(client.env("PATH".to_owned()).await.unwrap().into_inner(), "/explicit");
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_plugin_that_is_gone_when_its_host_connects_is_not_taken_for_connected() {
    let dir = tempfile::tempdir().unwrap();
    let line = format!("1|1|unix|{}|grpc|", dir.path().join("nobody").display());
    let error = script(dir.path(), &format!("echo '{line}'; exit 4")).start().await.unwrap_err();
    assert!(
        matches!(&error, LaunchError::Exited { exit, .. } if exit.status == ExitKind::Code(4)),
        "{error:?}"
    );
    let error = script(dir.path(), &format!("echo '{line}'; sleep 20")).start().await.unwrap_err();
    assert!(matches!(error, LaunchError::Connect { .. }), "{error:?}");
}

/// It is the one connection of a plugin that multiplexes, and there is no second try that could go wrong in another way.
#[tokio::test]
async fn a_multiplexed_connection_that_fails_is_the_end_of_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("hangs-up");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let line = format!("1|1|unix|{}|grpc||true", socket.display());
    let launch = script(dir.path(), &format!("echo '{line}'; sleep 20")).multiplexing(true).peer_check(false);
    let starting = tokio::spawn(async move { launch.start().await });
    drop(listener.accept().await.unwrap());
    let error = starting.await.unwrap().unwrap_err();
    assert!(matches!(error, LaunchError::Connect { .. } | LaunchError::Unhealthy { .. }), "{error:?}");
}

#[tokio::test]
async fn a_temporary_directory_that_is_too_long_for_a_socket_is_not_used() {
    let home = tempfile::tempdir().unwrap();
    let long = home.path().join("x".repeat(100));
    std::fs::create_dir(&long).unwrap();

    // Under a host that names no directory, as go-plugin's do.
    let cookie = ("SAMPLE_PLUGIN", Path::new("a-sample-plugin-for-tests"));
    let (mut plugin, line) = started(BINARY, &[], &[cookie, ("TMPDIR", &long)]).await;
    let announced = line.split('|').nth(3).map(PathBuf::from).unwrap();
    assert_eq!(announced.parent(), Some(Path::new("/tmp")), "{line}");
    signal(plugin.id().unwrap(), Signal::TERM);
    plugin.wait().await.unwrap();
    assert!(!announced.exists());

    let (_host, line) = started(support::HOST, &[BINARY], &[("TMPDIR", &long)]).await;
    assert!(line.starts_with("pid="), "{line}");
}

#[tokio::test]
async fn a_plugin_that_is_dead_and_not_yet_buried_is_gone() {
    let (child, config) = in_test_mode().await;
    // As a host would take it over for good.
    let plugin =
        Attach::reattach(ReattachConfig { test: false, ..config }, contract(&[1])).connect().await.unwrap();
    signal(child.id().unwrap(), Signal::KILL);
    let exit = tokio::time::timeout(LIMIT, plugin.exited()).await.expect("it is seen");
    assert_eq!(exit.status, ExitKind::Unknown);
    // Its parent, which is this test, has not asked for its status: it is a zombie.
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id().unwrap())).unwrap();
    assert!(stat.contains(") Z "), "{stat}");
    assert_eq!(plugin.shutdown().await.after, StopStep::Nothing);
}

#[tokio::test]
async fn hosts_at_the_same_time_have_a_broker_each() {
    let (_running, config) = in_test_mode().await;
    let attach = Attach::reattach(config, contract(&[1]));
    let [first, second] = [attach.connect().await.unwrap(), attach.connect().await.unwrap()];
    let both_ways = async |plugin: &Plugin| {
        let mut client = SampleClient::new(plugin.channel());
        for _ in 0..10 {
            let id = plugin.broker().next_id();
            let _server =
                plugin.broker().accept_and_serve(id, Routes::new(SampleServer::new(Greeter))).await.unwrap();
            assert_eq!(client.call_back(id).await.unwrap().into_inner(), b"host got from plugin");
            let lent = client.lend(()).await.unwrap().into_inner();
            // Each is counted for by itself.
            assert_eq!(lent, id);
            let mut borrowed = SampleClient::new(plugin.broker().dial(lent).await.unwrap());
            assert_eq!(borrowed.who(()).await.unwrap().into_inner(), "rust 1");
        }
    };
    tokio::join!(both_ways(&first), both_ways(&second));
    // One goes, the other stays.
    assert_eq!(first.shutdown().await.status, ExitKind::LeftRunning);
    let lent = SampleClient::new(second.channel()).lend(()).await.unwrap().into_inner();
    assert!(second.broker().dial(lent).await.is_ok());
}

#[tokio::test]
async fn brokered_servers_that_nobody_dialled_leave_nothing_when_they_are_dropped() {
    let (plugin, mut client) = start(&sample()).await;
    let main = socket(&plugin);
    let others = || {
        let entries = std::fs::read_dir(socket_dir(&plugin)).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| *path != main).count()
    };
    let mut servers = Vec::new();
    for _ in 0..20 {
        let id = plugin.broker().next_id();
        let routes = Routes::new(SampleServer::new(Greeter));
        servers.push(plugin.broker().accept_and_serve(id, routes).await.unwrap());
    }
    assert_eq!(others(), 20);
    servers.clear();
    until("their sockets are gone", async || others() == 0).await;
    assert_eq!(client.who(()).await.unwrap().into_inner(), "rust 1");
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_plugin_that_does_not_answer_is_not_well_within_a_limit() {
    let (plugin, _) = start(&sample().shutdown_grace(Duration::from_millis(200))).await;
    signal(support::pid(&plugin), Signal::STOP);
    let asked = tokio::time::timeout(LIMIT, plugin.health()).await.expect("the question has a limit");
    assert!(asked.is_err());
    assert_eq!(plugin.shutdown().await.after, StopStep::Kill);
}
