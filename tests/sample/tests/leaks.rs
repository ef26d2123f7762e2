//! What a host is left with after plugins have come and gone. The only test of its process, which it counts things of.
#![allow(clippy::unwrap_used, reason = "all of it is a test, parts of it among them")]

use plugin_sdk::host::{Attach, AttachError, ExitKind, Launch, Security};
use plugin_sdk::{PluginAddress, ReattachConfig};
use sample_plugin::Greeter;
use sample_plugin::sample_client::SampleClient;
use sample_plugin::sample_server::SampleServer;
use support::{Count, contract, sample, start, until};
use tonic::service::Routes;

mod support;

/// A start, brokered servers on both sides, a second host that comes and goes, and the end.
async fn a_whole_life(launch: &Launch) {
    let (plugin, mut client) = start(launch).await;
    let id = plugin.broker().next_id();
    let lent = Routes::new(SampleServer::new(Greeter));
    let _server = plugin.broker().accept_and_serve(id, lent).await.unwrap();
    client.call_back(id).await.unwrap();
    let borrowed = plugin.broker().dial(client.lend(()).await.unwrap().into_inner()).await.unwrap();
    assert_eq!(SampleClient::new(borrowed).who(()).await.unwrap().into_inner(), "rust 1");
    if let Some(config) = plugin.reattach_config() {
        let visit = ReattachConfig { test: true, ..config.clone() };
        let visitor = Attach::reattach(visit, contract(&[1])).connect().await.unwrap();
        assert_eq!(visitor.shutdown().await.status, ExitKind::LeftRunning);
        let heir = Attach::reattach(config.clone(), contract(&[1])).connect().await.unwrap();
        assert_eq!(heir.shutdown().await.status, ExitKind::Unknown);
    }
    plugin.shutdown().await;
}

/// The process that was described runs, and does not listen any more: a supervisor tries that again and again.
async fn an_attach_that_fails() {
    let config = ReattachConfig {
        app_version: None,
        address: PluginAddress::Unix("/no/such/socket".into()),
        pid: Some(std::process::id()),
        test: false,
    };
    let failed = Attach::reattach(config, contract(&[1])).connect().await.unwrap_err();
    assert!(matches!(failed, AttachError::NotFound { .. }), "{failed}");
}

#[tokio::test]
async fn plugins_that_have_come_and_gone_leave_no_descriptor_no_thread_and_no_task() {
    let launches = [(Security::Plain, false), (Security::AutoMtls, false), (Security::AutoMtls, true)]
        .map(|(security, multiplexing)| sample().security(security).multiplexing(multiplexing));
    let before = Count::now();
    for launch in &launches {
        for _ in 0..5 {
            a_whole_life(launch).await;
        }
        // Some of it ends a moment after what it was for.
        until("all of it has gone", async || Count::now() == before).await;
    }
    for _ in 0..5 {
        an_attach_that_fails().await;
    }
    until("nothing watches the process of a failed attach", async || Count::now() == before).await;
}
