//! What hosts have to do, with plugins that are old, poor or wrong: shell scripts, and one that is made without the SDK.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use plugin_sdk::host::{Contract, Environment, ExitKind, Launch, LaunchError, Security, StopStep, Waiting};
use plugin_sdk::{BrokerError, LineProblem, MagicCookie, PortRange};
use rustix::process::Signal;
use sample_plugin::Greeter;
use sample_plugin::sample_client::SampleClient;
use sample_plugin::sample_server::SampleServer;
use support::logged::Logged;
use support::{
    BARE, LIMIT, SAMPLE, contract, is_running, launch_of, pid, sample, script, signal, socket_dir, start,
    until,
};
use tonic::Code;
use tonic::service::Routes;
use tracing::Level;

mod support;

/// Far less than a grace time that is never used, and far more than a test machine needs.
const NO_HURRY: Duration = Duration::from_secs(300);

/// A script that writes its process id beside itself, prints `line` and stays.
fn printing(dir: &Path, line: &str) -> Launch {
    std::fs::write(dir.join("line"), line).expect("there is room");
    let dir_name = dir.display();
    script(dir, &format!("echo $$ > {dir_name}/pid; cat {dir_name}/line; exec >&-; exec sleep 60"))
}

/// What is wrong with the line of a plugin that must not start, after a look that its process is gone.
async fn problem(dir: &Path, launch: &Launch) -> LineProblem {
    let error = launch.start().await.expect_err("it must not start");
    let LaunchError::Handshake { problem, .. } = error else { panic!("{error:?}") };
    assert!(!is_running(written_pid(dir)), "{problem:?}");
    problem
}

/// The process of a script that was [printing].
fn written_pid(dir: &Path) -> u32 {
    let pid = std::fs::read_to_string(dir.join("pid")).expect("the script has written it");
    pid.trim().parse().expect("it is a number")
}

fn bare(args: &[&str]) -> Launch {
    launch_of(BARE).args(args.iter().copied())
}

#[tokio::test]
async fn a_contract_without_a_cookie_or_a_version_starts_nothing() {
    for cookie in [MagicCookie::new("", "value"), MagicCookie::new("KEY", "")] {
        let error = Launch::new(SAMPLE, Contract::new(cookie, [1])).start().await.unwrap_err();
        assert!(matches!(error, LaunchError::UnusableCookie) && error.is_permanent(), "{error:?}");
    }
    let error = Launch::new(SAMPLE, contract(&[])).start().await.unwrap_err();
    assert!(matches!(error, LaunchError::NoVersion), "{error:?}");
}

#[tokio::test]
async fn a_relative_program_is_the_hosts_and_not_the_plugins() {
    let depth = std::env::current_dir().unwrap().components().count() - 1;
    let program = "../".repeat(depth) + SAMPLE.strip_prefix('/').unwrap();
    let dir = tempfile::tempdir().unwrap();
    // From so deep the path leads nowhere.
    let deep = dir.path().join("deep/".repeat(depth));
    std::fs::create_dir_all(&deep).unwrap();
    let (plugin, _) = start(&launch_of(program).current_dir(&deep)).await;
    let its_own = std::fs::read_link(format!("/proc/{}/cwd", pid(&plugin))).unwrap();
    assert_eq!(its_own, deep.canonicalize().unwrap());
    plugin.shutdown().await;
}

#[tokio::test]
async fn what_is_no_fault_of_the_program_is_not_blamed_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let (missing, file) = (dir.path().join("missing"), dir.path().join("file"));
    std::fs::write(&file, "").unwrap();
    for (launch, cause, permanent) in [
        (sample().current_dir(&missing), "/missing cannot be entered: No such file or directory", false),
        (sample().current_dir(&file), "/file cannot be entered: not a directory", false),
        (sample().arg("fine").arg("a\0b"), "its argument 2 has a NUL byte in it", true),
        (sample().env("TOKEN", "secret\0"), "its environment variable TOKEN has a NUL byte in it", true),
    ] {
        let error = launch.start().await.unwrap_err();
        let told = plugin_sdk::one_line(&error).to_string();
        assert!(told.contains(cause) && !told.contains("secret"), "{told}");
        assert_eq!(error.is_permanent(), permanent, "{told}");
    }
}

#[tokio::test]
async fn a_plugin_on_tcp_keeps_to_the_ports_it_is_given() {
    // Whatever else runs on this machine, some of them are free.
    let ports = PortRange::new(23_000, 23_100).unwrap();
    let (plugin, _) = start(&sample().arg("--tcp").ports(ports)).await;
    let address = plugin.address().to_string();
    let port: u16 = address.strip_prefix("127.0.0.1:").unwrap().parse().unwrap();
    assert!((23_000..=23_100).contains(&port), "{address}");
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_plugin_works_with_nothing_in_its_environment() {
    let (plugin, mut client) = start(&sample().environment(Environment::Empty)).await;
    for name in ["PATH", "HOME", "TMPDIR"] {
        assert_eq!(client.env(name.to_owned()).await.unwrap_err().code(), Code::NotFound, "{name}");
    }
    let id = plugin.broker().next_id();
    let _server =
        plugin.broker().accept_and_serve(id, Routes::new(SampleServer::new(Greeter))).await.unwrap();
    assert_eq!(client.call_back(id).await.unwrap().into_inner(), b"host got from plugin");
    let lent = client.lend(()).await.unwrap().into_inner();
    let mut borrowed = SampleClient::new(plugin.broker().dial(lent).await.unwrap());
    assert_eq!(borrowed.who(()).await.unwrap().into_inner(), "rust 1");
    assert!(plugin.shutdown().await.is_success());
}

#[tokio::test]
async fn all_sockets_are_in_the_hosts_directory_which_goes_with_the_plugin() {
    let (plugin, mut client) = start(&sample()).await;
    client.lend(()).await.unwrap();
    let id = plugin.broker().next_id();
    let _server =
        plugin.broker().accept_and_serve(id, Routes::new(SampleServer::new(Greeter))).await.unwrap();
    let dir = socket_dir(&plugin);
    assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    // The plugin's own, the one that it lends, and the host's.
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 3);
    signal(pid(&plugin), Signal::KILL);
    plugin.exited().await;
    assert!(!dir.exists());
}

#[tokio::test]
async fn lines_that_no_host_can_follow_are_refused_and_their_process_killed() {
    use LineProblem as P;
    let long = "M".repeat(60);
    for (line, expected) in [
        ("1|1|tcp|:1234".to_owned(), P::NetRpc),
        ("1|1|unix|/tmp/x|netrpc|".to_owned(), P::NetRpc),
        ("1|1|unix|/tmp/x|GRPC|".to_owned(), P::Protocol { found: "GRPC".into() }),
        ("2|1|unix|/tmp/x|grpc|".to_owned(), P::CoreVersion { found: "2".into() }),
        ("1|one|unix|/tmp/x|grpc|".to_owned(), P::AppVersionText { found: "one".into() }),
        (format!("1|1|unix|/tmp/x|grpc|{}", "*".repeat(60)), P::Certificate),
        (format!("1|1|unix|/tmp/x|grpc|{long}"), P::UnexpectedCertificate),
        (format!("1|1|unix|/tmp/{}|grpc|", "x".repeat(70_000)), P::TooLong),
    ] {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(problem(dir.path(), &printing(dir.path(), &line)).await, expected, "{line:.80}");
    }
    let dir = tempfile::tempdir().unwrap();
    let unknown = problem(dir.path(), &printing(dir.path(), "1|1|udp|/tmp/x|grpc|")).await;
    assert!(matches!(unknown, P::Address(_)), "{unknown:?}");
    let version = problem(dir.path(), &printing(dir.path(), "1|9|unix|/tmp/x|grpc|")).await;
    assert!(matches!(version, P::AppVersion { .. }), "{version:?}");
}

#[tokio::test]
async fn junk_as_the_first_line_is_quoted_and_nothing_is_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let launch = printing(dir.path(), "loading config\n1|1|unix|/tmp/x|grpc|\n");
    let error = launch.start().await.unwrap_err();
    let LaunchError::Handshake { line, problem: LineProblem::TooFewFields { fields: 1 }, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(line, "loading config");
    assert!(!is_running(written_pid(dir.path())));
    assert!(error.to_string().contains("\"loading config\""), "{error}");
}

#[tokio::test]
async fn a_plugin_that_ends_without_a_line_is_told_by_its_exit_and_its_words() {
    let dir = tempfile::tempdir().unwrap();
    let error = script(dir.path(), "echo no licence >&2; exit 3").start().await.unwrap_err();
    let LaunchError::Exited { exit, stderr_tail } = error else { panic!("{error:?}") };
    assert_eq!((exit.status, stderr_tail.lines()), (ExitKind::Code(3), &["no licence".to_owned()][..]));
}

#[tokio::test]
async fn a_plugin_that_says_nothing_is_given_up_and_killed() {
    let dir = tempfile::tempdir().unwrap();
    let launch = script(dir.path(), "exec sleep 60").start_timeout(Duration::from_millis(300));
    let spawned = launch.spawn().await.unwrap();
    let pid = spawned.pid().unwrap();
    let error = spawned.handshake().await.unwrap_err();
    let LaunchError::TimedOut { waiting_for: Waiting::Line(begun), .. } = error else { panic!("{error:?}") };
    assert!(begun.is_empty() && !is_running(pid));
}

#[tokio::test]
async fn multiplexing_is_not_to_be_had_of_plugins_that_cannot() {
    for (tail, expected) in [
        ("", LineProblem::MultiplexingUnsupported),
        ("|", LineProblem::MultiplexingUnsupported),
        ("||false", LineProblem::MultiplexingUnsupported),
        ("||maybe", LineProblem::Multiplexing { found: "maybe".into() }),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let launch = printing(dir.path(), &format!("1|1|unix|/tmp/x|grpc{tail}")).multiplexing(true);
        assert_eq!(problem(dir.path(), &launch).await, expected, "{tail:?}");
    }
}

#[tokio::test]
async fn lines_of_all_ages_and_shapes_lead_to_a_plugin() {
    for args in [
        &["--line", "1|1|unix|{address}|grpc\n"][..],
        &["--line", "1|1|unix|{address}|grpc|\n"],
        &["--line", "1|1|unix|{address}|grpc||true\n"],
        &["--line", "1|1|unix|{address}|grpc||maybe|and|more\n"],
        &["--line", "1|1|unix|{address}|grpc|too short for a certificate\n"],
        &["--line", "  1|1|unix|{address}|grpc| \t\r\n"],
        &["--line", "1|1|unix|{address}|grpc|", "--close-stdout"],
    ] {
        let (plugin, mut client) = start(&bare(args)).await;
        assert_eq!(client.echo(b"x".to_vec()).await.unwrap().into_inner(), b"host got x", "{args:?}");
        assert_eq!(plugin.app_version().get(), 1);
        drop(plugin);
    }
}

#[tokio::test]
async fn a_plugin_of_one_version_is_matched_by_its_number() {
    let launch = Launch::new(BARE, contract(&[1, 2, 3])).args(["--line", "1|2|unix|{address}|grpc|\n"]);
    let (plugin, _) = start(&launch).await;
    assert_eq!(plugin.app_version().get(), 2);
}

#[tokio::test]
async fn a_plugin_without_any_service_of_the_sdk_works() {
    let logged = Logged::begin();
    let (plugin, mut client) = start(&bare(&[]).name("old")).await;
    assert_eq!(client.echo(b"x".to_vec()).await.unwrap().into_inner(), b"host got x");
    let is_told = |line: &support::logged::Line| line.message().contains("has no stdio service");
    logged.line(is_told).await;

    // Its broker ends calls at once.
    until("the broker is closed", async || matches!(plugin.broker().dial(1).await, Err(BrokerError::Closed)))
        .await;
    let served = plugin.broker().accept_and_serve(1, Routes::new(SampleServer::new(Greeter))).await;
    assert!(matches!(served, Err(BrokerError::Closed)), "{served:?}");
    assert_eq!(client.echo(b"y".to_vec()).await.unwrap().into_inner(), b"host got y");

    // Without a controller nobody waits for it to obey.
    let exit = plugin.shutdown().await;
    assert_eq!(exit.after, StopStep::Terminate);
    let told: Vec<_> = logged.lines().into_iter().filter(is_told).collect();
    assert_eq!((told.len(), told[0].level, told[0].field("plugin")), (1, Level::INFO, "old"));
}

#[tokio::test]
async fn streams_without_response_headers_hold_up_nothing() {
    let launch = bare(&["--silent"]).shutdown_grace(Duration::from_millis(100));
    let (plugin, mut client) = start(&launch).await;
    assert_eq!(client.echo(b"x".to_vec()).await.unwrap().into_inner(), b"host got x");
    // Its controller never answers either.
    assert_eq!(plugin.shutdown().await.after, StopStep::Terminate);
}

#[tokio::test]
async fn a_plugin_that_ignores_shutdown_and_sigterm_is_killed_in_the_end() {
    let launch = bare(&["--silent", "--ignore-sigterm"]).shutdown_grace(Duration::from_millis(100));
    let (plugin, _) = start(&launch).await;
    let pid = pid(&plugin);
    let exit = plugin.shutdown().await;
    assert_eq!(exit.after, StopStep::Kill);
    assert!(matches!(exit.status, ExitKind::Signal { number: 9, .. }) && !is_running(pid));
}

#[tokio::test]
async fn stdout_is_drained_however_long_its_lines_are() {
    let logged = Logged::begin();
    let (plugin, mut client) = start(&bare(&["--flood"])).await;
    assert_eq!(client.echo(b"x".to_vec()).await.unwrap().into_inner(), b"host got x");
    let all = || logged.said("stdout").iter().map(|line| line.message().len()).sum::<usize>();
    until("all of it is read", async || all() == 1_000_000).await;
    drop(plugin);
}

#[tokio::test]
async fn a_method_that_the_plugin_does_not_have_is_unimplemented() {
    let (plugin, _) = start(&bare(&[])).await;
    let mut client = tonic::client::Grpc::new(plugin.channel());
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/no.such.Service/Method");
    let status = client.unary(tonic::Request::new(()), path, codec).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn limits_of_messages_are_the_clients() {
    let (plugin, client) = start(&sample()).await;
    let large = vec![7; 6 << 20];
    assert_eq!(client.clone().echo(large.clone()).await.unwrap_err().code(), Code::OutOfRange);
    let mut roomy = client.clone().max_decoding_message_size(8 << 20);
    assert_eq!(roomy.echo(large.clone()).await.unwrap().into_inner(), large);
    let mut narrow = client.max_decoding_message_size(1000);
    assert_eq!(narrow.echo(vec![7; 2000]).await.unwrap_err().code(), Code::OutOfRange);
    plugin.shutdown().await;
}

#[tokio::test]
async fn sigint_to_a_plugin_is_noted_and_survived() {
    let logged = Logged::begin();
    let (plugin, mut client) = start(&sample().env("RUST_LOG", "trace")).await;
    signal(pid(&plugin), Signal::INT);
    let line = logged.line(|line| line.target == "plugin" && line.message().contains("SIGINT")).await;
    assert_eq!(line.level, Level::TRACE);
    assert_eq!(client.who(()).await.unwrap().into_inner(), "rust 1");
    assert!(plugin.shutdown().await.is_success());
}

#[tokio::test]
async fn a_fresh_start_works_after_a_crash() {
    let launch = sample();
    let (crashed, mut client) = start(&launch).await;
    assert!(client.die("abort".to_owned()).await.is_err());
    crashed.exited().await;
    let (again, mut client) = start(&launch).await;
    assert_ne!(crashed.pid(), again.pid());
    assert_ne!(crashed.address(), again.address());
    let lent = client.lend(()).await.unwrap().into_inner();
    assert!(again.broker().dial(lent).await.is_ok());
    assert!(again.shutdown().await.is_success());
    // Asking the dead one to end is a matter of course.
    assert_eq!(crashed.shutdown().await.after, StopStep::Nothing);
}

#[tokio::test]
async fn what_was_never_started_has_nothing_to_end() {
    drop(sample());
    // Between its steps as well.
    let spawned = sample().spawn().await.unwrap();
    let first = spawned.pid().unwrap();
    drop(spawned);
    let announced = sample().spawn().await.unwrap().handshake().await.unwrap();
    let plugin_sdk::PluginAddress::Unix(path) = announced.line().address.clone() else { panic!("no path") };
    drop(announced);
    until("nothing is left", async || !is_running(first) && !path.exists()).await;
}

#[tokio::test]
async fn a_clean_end_leaves_no_warnings_in_the_log() {
    let logged = Logged::begin();
    for (security, multiplexing) in [(Security::Plain, false), (Security::AutoMtls, true)] {
        let launch = sample().security(security).multiplexing(multiplexing).shutdown_grace(NO_HURRY);
        let (plugin, mut client) = start(&launch).await;
        client.print("x".repeat(100_000)).await.unwrap();
        let lent = client.lend(()).await.unwrap().into_inner();
        let mut borrowed = SampleClient::new(plugin.broker().dial(lent).await.unwrap());
        borrowed.who(()).await.unwrap();
        assert!(tokio::time::timeout(LIMIT, plugin.shutdown()).await.unwrap().is_success());
    }
    let bad: Vec<_> = logged.lines().into_iter().filter(|line| line.level <= Level::WARN).collect();
    assert!(bad.is_empty(), "{bad:#?}");
}
