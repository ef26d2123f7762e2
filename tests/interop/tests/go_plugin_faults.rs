//! What goes wrong with plugins on go-plugin, under our host: where a host on go-plugin hangs, crashes or leaves things
//! behind, ours does not.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use e2e::process::{command_line, is_running, signal};
use e2e::wait::wait_until;
use interop::{Go, Release, seen};
use plugin_sdk::MagicCookie;
use plugin_sdk::PluginAddress;
use plugin_sdk::host::{Contract, ExitKind, Launch, LaunchError, Plugin, Security, StopStep};
use rustix::process::Signal;
use sample_plugin::sample_client::SampleClient;

/// Far less than what would be a hang, and far more than what it takes.
const BOUND: Duration = Duration::from_secs(10);

/// The plugin, or `None` where there is no Go.
fn launch(test: &str) -> Option<Launch> {
    let go = Go::get(Release::V1_8_0, &format!("go_plugin_faults::{test}"))?;
    seen::begin();
    let contract = Contract::new(sample_plugin::cookie(), [1]);
    Some(Launch::new(go.plugin, contract).shutdown_grace(Duration::from_millis(500)))
}

fn pid(plugin: &Plugin) -> u32 {
    plugin.pid().expect("a plugin that was launched has a process")
}

/// Stops a process and waits until all of its threads stand still.
fn stop(pid: u32) {
    signal(pid, Signal::STOP);
    let stands =
        |thread: &Path| fs::read_to_string(thread.join("stat")).is_ok_and(|stat| stat.contains(") T "));
    wait_until("the plugin is stopped", || {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the plugin is there");
        threads.flatten().all(|thread| stands(&thread.path()))
    });
}

#[tokio::test]
async fn a_stopped_plugin_is_ended_in_bounded_time() {
    let Some(launch) = launch("a_stopped_plugin_is_ended_in_bounded_time") else { return };
    for (security, multiplexing) in [(Security::Plain, false), (Security::AutoMtls, true)] {
        let plugin = launch.clone().security(security).multiplexing(multiplexing).start().await.unwrap();
        let pid = pid(&plugin);
        stop(pid);
        let begun = Instant::now();
        let exit = plugin.shutdown().await;
        assert_eq!(exit.after, StopStep::Kill);
        assert!(begun.elapsed() < BOUND && !is_running(pid), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_stopped_plugin_is_not_well() {
    let Some(launch) = launch("a_stopped_plugin_is_not_well") else { return };
    let plugin = launch.start().await.unwrap();
    stop(pid(&plugin));
    let begun = Instant::now();
    assert!(plugin.health().await.is_err());
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_process_of_another_session_that_keeps_the_pipes_holds_up_nothing() {
    let test = "a_process_of_another_session_that_keeps_the_pipes_holds_up_nothing";
    let Some(launch) = launch(test) else { return };
    let plugin = launch.arg("-grandchild=session").start().await.unwrap();
    let grandchild = grandchild(&plugin).await;
    let begun = Instant::now();
    let exit = plugin.shutdown().await;
    // go-plugin's host takes it for a plugin that has not ended, and kills it.
    assert_eq!((exit.status, exit.after), (ExitKind::Code(0), StopStep::Shutdown));
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    assert!(!is_running(grandchild), "a stop ends all that the plugin has started");
}

#[tokio::test]
async fn a_process_of_the_plugins_group_ends_with_it() {
    let Some(launch) = launch("a_process_of_the_plugins_group_ends_with_it") else { return };
    let plugin = launch.arg("-grandchild=group").start().await.unwrap();
    let grandchild = grandchild(&plugin).await;
    assert!(plugin.shutdown().await.is_success());
    wait_until("the grandchild is gone", || !is_running(grandchild));
}

async fn grandchild(plugin: &Plugin) -> u32 {
    let line = seen::line(pid(plugin), |line| line.message() == "grandchild started").await;
    let fields: serde_json::Value = serde_json::from_str(line.field("fields")).expect("they are JSON");
    let grandchild = fields["grandchild"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    let grandchild = grandchild.expect("its id is logged");
    assert!(command_line(grandchild).starts_with("sleep"));
    grandchild
}

#[tokio::test]
async fn another_cookie_is_told_by_the_plugins_own_words() {
    let Some(go) =
        Go::get(Release::V1_8_0, "go_plugin_faults::another_cookie_is_told_by_the_plugins_own_words")
    else {
        return;
    };
    let contract = Contract::new(MagicCookie::new("SAMPLE_PLUGIN", "another"), [1]);
    match Launch::new(go.plugin, contract).start().await {
        Err(LaunchError::Exited { exit, stderr_tail }) => {
            assert_eq!(exit.status, ExitKind::Code(1));
            assert!(stderr_tail.lines().concat().contains("is a plugin"), "{stderr_tail}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn sockets_of_a_plugin_that_was_killed_are_removed() {
    let Some(launch) = launch("sockets_of_a_plugin_that_was_killed_are_removed") else { return };
    for multiplexing in [false, true] {
        let plugin = launch.clone().multiplexing(multiplexing).start().await.unwrap();
        let PluginAddress::Unix(socket) = plugin.address().clone() else { panic!("it is a Unix socket") };
        // A brokered one as well.
        SampleClient::new(plugin.channel()).lend(()).await.unwrap();
        signal(pid(&plugin), Signal::KILL);
        plugin.exited().await;
        assert!(!socket.parent().is_some_and(Path::exists));
    }
}

#[tokio::test]
async fn output_that_nobody_reads_does_not_hold_up_the_plugin() {
    let Some(launch) = launch("output_that_nobody_reads_does_not_hold_up_the_plugin") else { return };
    let plugin = launch.start().await.unwrap();
    let mut client = SampleClient::new(plugin.channel());
    // Far more than the pipe in the plugin, the pipe to the host, and one line of the host's log.
    for _ in 0..4 {
        client.print("x".repeat(300_000)).await.unwrap();
        client.log("y".repeat(300_000)).await.unwrap();
    }
    assert_eq!(client.echo(vec![1]).await.unwrap().into_inner(), [1]);
    assert!(plugin.shutdown().await.is_success());
}
