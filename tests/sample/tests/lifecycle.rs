//! Our host with our plugin, as processes: start, call, end.

use std::time::Duration;

use plugin_sdk::host::{Contract, Environment, ExitKind, Launch, LaunchError, Plugin, StopStep};
use plugin_sdk::{LineProblem, MagicCookie};
use sample_plugin::sample_client::SampleClient;
use support::{is_running, socket, until};
use tonic::transport::Channel;

mod support;

fn launch(versions: &[u32]) -> Launch {
    let contract = Contract::new(sample_plugin::cookie(), versions.iter().copied());
    Launch::new(env!("CARGO_BIN_EXE_sample-plugin"), contract)
}

async fn start() -> (Plugin, SampleClient<Channel>) {
    let plugin = launch(&[1]).start().await.expect("the sample plugin starts");
    let client = SampleClient::new(plugin.channel());
    (plugin, client)
}

#[tokio::test]
async fn a_plugin_is_started_called_and_stopped() {
    let (plugin, mut client) = start().await;
    assert_eq!(client.who(()).await.unwrap().into_inner(), "rust 1");
    assert_eq!(client.echo(vec![0, 255, 10]).await.unwrap().into_inner(), [0, 255, 10]);
    plugin.health().await.unwrap();
    let (pid, socket) = (plugin.pid().unwrap(), socket(&plugin));
    assert!(socket.exists());
    let exit = plugin.shutdown().await;
    assert_eq!((exit.status, exit.after), (ExitKind::Code(0), StopStep::Shutdown));
    assert!(!is_running(pid));
    assert!(!socket.exists() && !socket.parent().unwrap().exists());
}

#[tokio::test]
async fn one_launch_starts_any_number_of_instances() {
    let launch = launch(&[1]);
    let (first, second) = (launch.start().await.unwrap(), launch.start().await.unwrap());
    assert_ne!(first.pid(), second.pid());
    first.shutdown().await;
    let third = launch.start().await.unwrap();
    assert_eq!(SampleClient::new(third.channel()).who(()).await.unwrap().into_inner(), "rust 1");
    second.shutdown().await;
    third.shutdown().await;
}

#[tokio::test]
async fn the_highest_common_version_is_served() {
    for (host, served) in [(&[1][..], 1), (&[2, 1], 2), (&[1, 2, 3, 4, 5], 3)] {
        let plugin = launch(host).start().await.unwrap();
        assert_eq!(plugin.app_version().get(), served);
        let who = SampleClient::new(plugin.channel()).who(()).await.unwrap().into_inner();
        assert_eq!(who, format!("rust {served}"));
        plugin.shutdown().await;
    }
}

#[tokio::test]
async fn versions_that_do_not_meet_are_told_with_both_sides() {
    let error = launch(&[7, 8]).start().await.unwrap_err();
    let LaunchError::Handshake { problem: LineProblem::AppVersion { plugin, host }, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!((plugin.get(), host.to_string().as_str()), (1, "7,8"));
    assert!(error.is_permanent());
}

#[tokio::test]
async fn the_exit_status_of_a_crash_is_seen() {
    for (how, status) in
        [("exit 7", ExitKind::Code(7)), ("abort", ExitKind::Signal { number: 6, core_dumped: false })]
    {
        let (plugin, mut client) = start().await;
        assert!(client.die(how.to_owned()).await.is_err());
        let exit = plugin.exited().await;
        let same = match (exit.status, status) {
            (ExitKind::Signal { number, .. }, ExitKind::Signal { number: expected, .. }) => {
                number == expected
            }
            (found, expected) => found == expected,
        };
        assert!(same && exit.after == StopStep::Nothing, "{exit:?}");
        assert!(plugin.health().await.is_err());
    }
}

#[tokio::test]
async fn a_stopped_plugin_is_ended_in_bounded_time() {
    let plugin = launch(&[1]).shutdown_grace(Duration::from_millis(100)).start().await.unwrap();
    let _ = rustix::process::kill_process(
        rustix::process::Pid::from_raw(plugin.pid().unwrap().cast_signed()).unwrap(),
        rustix::process::Signal::STOP,
    );
    let exit = plugin.shutdown().await;
    assert_eq!(exit.after, StopStep::Kill);
}

#[tokio::test]
async fn dropping_a_plugin_kills_it() {
    let (plugin, _) = start().await;
    let (pid, socket) = (plugin.pid().unwrap(), socket(&plugin));
    drop(plugin);
    until("the process is gone", async || !is_running(pid)).await;
    until("the socket is gone", async || !socket.parent().unwrap().exists()).await;
}

#[tokio::test]
async fn a_start_that_is_given_up_leaves_nothing() {
    let launch = launch(&[1]);
    let spawned = launch.spawn().await.unwrap();
    let pid = spawned.pid().unwrap();
    drop(spawned.handshake());
    until("the process is gone", async || !is_running(pid)).await;
}

#[tokio::test]
async fn a_cancelled_call_reaches_the_handler_and_the_channel_survives_thousands() {
    const CALLS: u32 = 2_000;
    let (plugin, mut client) = start().await;
    for _ in 0..CALLS {
        let given_up = tokio::time::timeout(Duration::from_micros(200), client.hang(())).await;
        assert!(given_up.is_err());
    }
    assert_eq!(client.echo(vec![1]).await.unwrap().into_inner(), [1]);
    // Calls that were given up before they were sent are not counted by the plugin: any will do.
    until("the handler is cancelled", async || client.cancelled(()).await.unwrap().into_inner() > 0).await;
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_clean_environment_holds_no_secrets() {
    // The path of the test executable's package: set by cargo in our own environment, as a secret might be.
    let secret = "CARGO_MANIFEST_DIR";
    assert!(std::env::var(secret).is_ok());
    for (environment, seen) in
        [(Environment::Clean, false), (Environment::Empty, false), (Environment::Inherit, true)]
    {
        let plugin = launch(&[1]).environment(environment).env("GIVEN", "value").start().await.unwrap();
        let mut client = SampleClient::new(plugin.channel());
        assert_eq!(client.env(secret.to_owned()).await.is_ok(), seen, "{environment:?}");
        assert_eq!(client.env("GIVEN".to_owned()).await.unwrap().into_inner(), "value");
        assert_eq!(client.env("PATH".to_owned()).await.is_ok(), environment != Environment::Empty);
        plugin.shutdown().await;
    }
}

#[tokio::test]
async fn another_cookie_is_not_accepted() {
    let contract = Contract::new(MagicCookie::new("SAMPLE_PLUGIN", "another"), [1]);
    let error = Launch::new(env!("CARGO_BIN_EXE_sample-plugin"), contract).start().await.unwrap_err();
    let LaunchError::Exited { exit, stderr_tail } = error else { panic!("{error:?}") };
    assert_eq!(exit.status, ExitKind::Code(1));
    assert!(stderr_tail.lines()[0].contains("is a plugin"));
}
