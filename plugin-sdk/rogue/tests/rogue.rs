//! Each fault, as our own host sees it.

use std::time::Duration;

use plugin_sdk::host::{Contract, ExitKind, Launch, LaunchError, Plugin, StopStep};
use plugin_sdk::{LineProblem, MagicCookie};
use plugin_testkit::process::children_of;
use plugin_testkit::{Logged, Traces, program, until};
use sample_plugin::sample_client::SampleClient;
use tonic::Code;

/// The rogue for any contract.
const ROGUE: &str = env!("CARGO_BIN_EXE_plugin-rogue");

fn launch(fault: &str) -> Launch {
    let contract = Contract::new(MagicCookie::new("ANY_CONTRACT", "at all"), [4, 7]);
    Launch::new(ROGUE, contract).arg(fault).start_timeout(Duration::from_secs(5))
}

async fn start(fault: &str) -> Plugin {
    launch(fault).start().await.unwrap_or_else(|error| panic!("{fault}: {}", plugin_sdk::one_line(&error)))
}

#[tokio::test]
async fn without_a_fault_it_fits_every_contract() {
    for fault in ["ok", "no-health"] {
        let plugin = start(fault).await;
        assert_eq!(plugin.app_version().get(), 7, "{fault}");
        assert_eq!(SampleClient::new(plugin.channel()).who(()).await.unwrap().into_inner(), "", "{fault}");
        let exit = plugin.shutdown().await;
        assert_eq!((exit.status, exit.after), (ExitKind::Code(0), StopStep::Shutdown), "{fault}");
    }
}

#[tokio::test]
async fn it_can_be_made_to_fit_one_contract() {
    let of_sample = |cookie, fault| {
        let launch = Launch::new(program("sample-rogue"), Contract::new(cookie, [1, 2, 3]));
        launch.arg(fault).start_timeout(Duration::from_secs(5))
    };
    let plugin = of_sample(sample_plugin::cookie(), "ok").start().await.unwrap();
    assert_eq!(plugin.app_version().get(), 2);
    let mut client = SampleClient::new(plugin.channel());
    assert_eq!(client.who(()).await.unwrap().into_inner(), "a liar");
    assert_eq!(client.echo(vec![]).await.unwrap_err().code(), Code::Unimplemented);
    // One that comes in many frames, too.
    let texts = ["", "a", &*"b".repeat(100_000), "c"].map(str::to_owned);
    let mut answers = client.chat(tokio_stream::iter(texts.clone())).await.unwrap().into_inner();
    for text in texts {
        assert_eq!(answers.message().await.unwrap().unwrap(), text);
    }
    assert!(answers.message().await.unwrap().is_none());
    plugin.shutdown().await;
    // Its faults are those of all.
    assert!(of_sample(sample_plugin::cookie(), "netrpc").start().await.is_err());
    let error = of_sample(MagicCookie::new("SAMPLE_PLUGIN", "another"), "ok").start().await.unwrap_err();
    assert!(matches!(error, LaunchError::Exited { exit, .. } if exit.status == ExitKind::Code(1)));
}

#[tokio::test]
async fn it_can_die_before_it_serves() {
    let error = launch("exit-before-handshake=3").start().await.unwrap_err();
    let LaunchError::Exited { exit, stderr_tail } = error else { panic!("{error:?}") };
    assert_eq!(exit.status, ExitKind::Code(3));
    assert!(!stderr_tail.lines().is_empty());
    assert!(launch("crash-after-handshake").start().await.is_err());
}

#[tokio::test]
async fn it_can_say_a_wrong_line() {
    let problem = async |fault: &str| match launch(fault).start().await {
        Err(LaunchError::Handshake { problem, .. }) => problem,
        other => panic!("{fault}: {other:?}"),
    };
    for fault in ["rubbish", "empty-line", "bad-utf8", "junk-70k", "core-version=2", "network=udp", "netrpc"]
    {
        problem(fault).await;
    }
    assert!(matches!(problem("unasked-cert").await, LineProblem::UnexpectedCertificate));
    assert!(launch("app-version=9").start().await.is_err());
}

#[tokio::test]
async fn it_can_keep_a_host_waiting() {
    for fault in ["silent", "half-line", "deaf", "not-serving"] {
        assert!(launch(fault).start_timeout(Duration::from_millis(500)).start().await.is_err(), "{fault}");
    }
    for fault in ["close-stdout", "no-listen"] {
        assert!(launch(fault).start().await.is_err(), "{fault}");
    }
}

#[tokio::test]
async fn it_can_answer_badly_or_not_at_all() {
    for (fault, code) in [("status=8", Code::ResourceExhausted), ("garbage", Code::Internal)] {
        let plugin = start(fault).await;
        assert_eq!(SampleClient::new(plugin.channel()).who(()).await.unwrap_err().code(), code, "{fault}");
        plugin.shutdown().await;
    }
    for fault in ["hang", "slow=60000"] {
        let plugin = start(fault).await;
        let mut client = SampleClient::new(plugin.channel());
        assert!(tokio::time::timeout(Duration::from_millis(100), client.who(())).await.is_err(), "{fault}");
        plugin.shutdown().await;
    }
}

#[tokio::test]
async fn it_can_die_of_a_call() {
    let plugin = start("die-after=1").await;
    let mut client = SampleClient::new(plugin.channel());
    client.who(()).await.unwrap();
    assert!(client.who(()).await.is_err());
    assert_eq!(plugin.exited().await.status, ExitKind::Code(9));
}

#[tokio::test]
async fn it_can_refuse_to_end() {
    let exit = start("ignore-term").await.shutdown().await;
    assert_eq!(exit.after, StopStep::Kill);
}

#[tokio::test]
async fn it_can_leave_a_child_behind() {
    let plugin = start("fork-grandchild").await;
    let pid = plugin.pid().unwrap();
    until("it has a child", async || !children_of(pid).is_empty()).await;
    let traces = Traces::of(&plugin);
    assert_eq!(traces.left().len(), 3, "{traces:?}");
    plugin.shutdown().await;
    // The host has ended both.
    traces.gone().await;
}

#[tokio::test]
async fn it_can_write_without_end() {
    for (fault, part) in [("flood-stderr", "the sky is falling"), ("flood-stdout", "xxx")] {
        let logged = Logged::begin();
        let plugin = start(fault).await;
        until("it is heard", async || logged.of(&plugin).iter().any(|line| line.message().contains(part)))
            .await;
        SampleClient::new(plugin.channel()).who(()).await.unwrap();
        plugin.shutdown().await;
    }
}

#[tokio::test]
async fn it_says_so_when_it_does_not_know_the_fault() {
    let error = launch("no-such-fault").start().await.unwrap_err();
    assert!(matches!(error, LaunchError::Exited { exit, .. } if exit.status == ExitKind::Code(64)));
}
