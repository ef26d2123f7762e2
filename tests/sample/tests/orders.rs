//! Orders to a supervised plugin that come while others are not done yet, and what is left to do when things happen at once.

use std::path::PathBuf;
use std::time::Duration;

use plugin_sdk::host::{
    Backoff, Launch, Live, OrderError, PluginHandle, PluginState, RestartPolicy, SourceInfo, StopReason,
    Supervised, Supervisor, Swap,
};
use rustix::process::Signal;
use support::{LIMIT, SAMPLE, sample, script, signal, until};

mod support;

fn supervise(launch: Launch, settle: Duration) -> Supervised {
    let backoff = Backoff::constant(Duration::from_millis(10));
    Supervisor::launch(launch)
        .policy(RestartPolicy { backoff, ..RestartPolicy::default() })
        .swap(Swap { settle, drain: LIMIT })
        .start()
}

/// The instance that serves, once one does that `wanted` takes.
async fn serving(handle: &PluginHandle, wanted: impl Fn(&Live) -> bool) -> Live {
    let serves = |state: &PluginState| matches!(state, PluginState::Serving(live) if wanted(live));
    let mut status = handle.status();
    let reached = tokio::time::timeout(LIMIT, status.wait_for(|status| serves(&status.state))).await;
    let status = reached.expect("it serves in time").expect("the supervisor is there").clone();
    status.state.live().expect("it serves").clone()
}

fn count(handle: &PluginHandle, name: &str) -> usize {
    handle.events().kept().iter().filter(|event| event.entry.what.name() == name).count()
}

type Reload = tokio::task::JoinHandle<Result<Option<Live>, OrderError>>;

/// Orders a reload, and returns once the supervisor has heard of it.
async fn order_reload(handle: &PluginHandle, program: Option<PathBuf>) -> Reload {
    let before = count(handle, "ordered");
    let reload = tokio::spawn({
        let handle = handle.clone();
        async move { handle.reload(program).await }
    });
    until("the order has arrived", async || count(handle, "ordered") > before).await;
    reload
}

/// What has become of it, in time.
async fn outcome(reload: Reload) -> Result<Option<Live>, OrderError> {
    tokio::time::timeout(LIMIT, reload).await.expect("it is answered in time").expect("it does not panic")
}

#[tokio::test]
async fn whoever_stops_a_plugin_stops_the_reloads_that_wait_as_well() {
    let plugin = supervise(sample(), Duration::from_secs(3_600));
    let handle = plugin.handle();
    for disables in [false, true] {
        handle.enable().await.unwrap();
        handle.start().await.unwrap();
        let under_way = order_reload(handle, None).await;
        let waiting = order_reload(handle, None).await;
        if disables {
            handle.disable().await.unwrap();
        } else {
            handle.stop().await.unwrap();
        }
        for reload in [under_way, waiting] {
            let outcome = outcome(reload).await;
            assert!(matches!(outcome, Err(OrderError::Superseded)), "{outcome:?}");
        }
        let state = handle.status().borrow().state.clone();
        let expected = if disables { "disabled" } else { "stopped" };
        assert_eq!(state.name(), expected, "it stays as the operator wants it");
        assert!(disables || matches!(state, PluginState::Stopped(StopReason::Operator)));
    }
    plugin.shutdown().await;
}

#[tokio::test]
async fn every_reload_that_waits_for_a_plugin_to_be_disabled_is_refused() {
    let plugin = supervise(sample(), Duration::from_millis(50));
    let handle = plugin.handle();
    serving(handle, |_| true).await;
    let disabling = tokio::spawn({
        let handle = handle.clone();
        async move { handle.disable().await }
    });
    until("the order has arrived", async || count(handle, "ordered") == 1).await;
    let reloads = [order_reload(handle, None).await, order_reload(handle, None).await];
    disabling.await.unwrap().unwrap();
    let ordered = handle.events().kept().into_iter().find(|event| event.entry.what.name() == "ordered");
    assert_eq!(ordered.unwrap().entry.what.to_string(), "the host orders: disable", "no operator does");
    for reload in reloads {
        let outcome = outcome(reload).await;
        assert!(matches!(outcome, Err(OrderError::Disabled)), "{outcome:?}");
    }
    assert_eq!(count(handle, "refused"), 2, "the log tells");
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_bad_replacement_does_not_end_the_good_program_that_crashes_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let crashed = dir.path().join("crashed");
    let bad = script(
        dir.path(),
        &format!("until [ -e {} ]; do sleep 0.05; done; echo '1|99|unix|/tmp/x|grpc|'", crashed.display()),
    );
    let plugin = supervise(sample(), Duration::from_millis(50));
    let handle = plugin.handle();
    let first = serving(handle, |_| true).await;
    let reload = order_reload(handle, Some(bad.program().to_path_buf())).await;
    signal(first.pid.unwrap(), Signal::KILL);
    until("the crash is known", async || count(handle, "ended") == 1).await;
    std::fs::write(crashed, "").unwrap();
    let outcome = outcome(reload).await;
    assert!(matches!(outcome, Err(OrderError::NotStarted(_))), "{outcome:?}");
    serving(handle, |live| live.instance > first.instance).await;
    assert_eq!(handle.status().borrow().source, SourceInfo::Program(SAMPLE.into()));
    let reports = handle.crashes().kept();
    let blamed: Vec<_> = reports.iter().map(|report| report.entry.program.clone().unwrap()).collect();
    assert_eq!(blamed, [PathBuf::from(SAMPLE), bad.program().to_path_buf()], "each for its own program");
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_reload_that_fails_leaves_a_plugin_that_does_not_run_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let named = |name: &str, text: &str| e2e::file::script(dir.path(), name, text);
    let (bad, worse) = (named("bad", "exit 3"), named("worse", "echo '1|99|unix|/tmp/x|grpc|'"));
    let mute = named("mute", "echo rubbish");
    for (own, backoff, expected) in [
        (PathBuf::from(SAMPLE), Duration::ZERO, "stopped"),
        (worse.clone(), Duration::ZERO, "gave-up"),
        (mute, Duration::from_secs(3_600), "backing-off"),
    ] {
        let policy = RestartPolicy { backoff: Backoff::constant(backoff), ..RestartPolicy::default() };
        let plugin = Supervisor::launch(support::launch_of(&own)).policy(policy).start();
        let handle = plugin.handle();
        if expected == "stopped" {
            serving(handle, |_| true).await;
            handle.stop().await.unwrap();
        }
        until("it does not run", async || handle.status().borrow().state.name() == expected).await;
        let before = format!("{:?}", handle.status().borrow().state);
        for program in [&bad, &worse, &dir.path().join("missing")] {
            let reload = tokio::time::timeout(LIMIT, handle.reload(Some(program.clone()))).await;
            let refused = reload.expect("it is answered in time");
            assert!(matches!(refused, Err(OrderError::NotStarted(_))), "{refused:?}");
            let status = handle.status().borrow().clone();
            assert_eq!(
                (format!("{:?}", status.state), status.source),
                (before.clone(), SourceInfo::Program(own.clone()))
            );
        }
        assert_eq!(count(handle, "swap-failed"), 3);
        assert!(handle.status().borrow().failed_reload.is_some());
        let live = handle.reload(Some(SAMPLE.into())).await.unwrap();
        assert!(live.is_some(), "a good one is taken");
        let status = handle.status().borrow().clone();
        assert_eq!(status.source, SourceInfo::Program(SAMPLE.into()));
        assert!(status.failed_reload.is_none());
        plugin.shutdown().await;
    }
}
