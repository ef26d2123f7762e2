//! `Duration::MAX` means "no limit" to whoever sets it, in every setting that takes a duration.

use std::time::Duration;

use plugin_sdk::host::{
    Attach, Backoff, Intensity, PluginHandle, PluginState, Probe, RestartPolicy, Supervisor, Swap, kill_all,
};
use rustix::process::Signal;
use sample_plugin::sample_client::SampleClient;
use support::{LIMIT, contract, sample, signal, start, until};

mod support;

/// The instance that serves, by its process id; one after `before` if there is one.
async fn serving(handle: &PluginHandle, before: Option<u32>) -> u32 {
    let next = |state: &PluginState| match state {
        PluginState::Serving(live) => live.pid.filter(|pid| Some(*pid) != before),
        _ => None,
    };
    let mut status = handle.status();
    let reached = status.wait_for(|status| next(&status.state).is_some());
    let reached = tokio::time::timeout(LIMIT, reached).await.expect("it serves in time");
    next(&reached.expect("the supervisor is there").state).expect("it serves")
}

#[tokio::test]
async fn every_duration_of_a_host_can_be_without_limit() {
    let launch = sample().start_timeout(Duration::MAX).shutdown_grace(Duration::MAX);
    let (plugin, _) = start(&launch).await;
    let address = plugin.address().clone();
    let attached = Attach::to(address, contract(&[1])).timeout(Duration::MAX).connect().await.unwrap();
    attached.shutdown().await;
    plugin.shutdown().await;

    let policy = RestartPolicy {
        backoff: Backoff::constant(Duration::MAX),
        intensity: Some(Intensity { restarts: 5, within: Duration::MAX }),
        stable_after: Duration::ZERO,
        ..RestartPolicy::default()
    };
    let supervised = Supervisor::launch(launch)
        .policy(policy)
        .probe(Probe { interval: Duration::MAX, timeout: Duration::MAX, ..Probe::default() })
        .swap(Swap { settle: Duration::MAX, drain: Duration::MAX })
        .idle_after(Duration::MAX)
        .start();
    let handle = supervised.handle();
    let first = serving(handle, None).await;
    let channel = handle.channel().timeout(Some(Duration::MAX));
    assert_eq!(SampleClient::new(channel).who(()).await.unwrap().into_inner(), "rust 1");
    let reload = tokio::spawn({
        let handle = handle.clone();
        async move { handle.reload(None).await }
    });
    let settles = |handle: &PluginHandle| {
        handle.events().kept().iter().any(|event| event.entry.what.name() == "swap-settling")
    };
    until("the next instance settles", async || settles(handle)).await;
    signal(first, Signal::KILL);
    let second = serving(handle, Some(first)).await;
    reload.await.unwrap().unwrap();
    signal(second, Signal::KILL);
    serving(handle, Some(second)).await;
    supervised.shutdown().await;

    assert_eq!(tokio::task::spawn_blocking(|| kill_all(Duration::MAX)).await.unwrap(), 0);
}
