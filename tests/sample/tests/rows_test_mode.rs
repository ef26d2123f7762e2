//! go-plugin's test mode, in the process that tests.

use std::io::Write;
use std::path::PathBuf;

use plugin_sdk::PluginAddress;
use plugin_sdk::host::{Attach, AttachError, ExitKind};
use plugin_sdk::plugin::PluginBuilder;
use sample_plugin::Greeter;
use sample_plugin::sample_client::SampleClient;
use sample_plugin::sample_server::SampleServer;
use support::contract;
use support::logged::Logged;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

mod support;

/// What this process has as stdin, stdout and stderr.
fn standard_streams() -> [Option<PathBuf>; 3] {
    [0, 1, 2].map(|descriptor| std::fs::read_link(format!("/proc/self/fd/{descriptor}")).ok())
}

#[tokio::test]
async fn hosts_in_turn_are_served_until_it_is_cancelled_and_nothing_else_is_touched() {
    let before = standard_streams();
    let logged = Logged::begin();
    let (tell, told) = std::sync::mpsc::channel();
    let builder = PluginBuilder::new(sample_plugin::cookie()).version(2, move |context| {
        tell.send((context.stdout(), context.stderr())).expect("the test is there");
        Routes::new(SampleServer::new(Greeter))
    });
    let cancel = CancellationToken::new();
    let (announce, announced) = oneshot::channel();
    let ready = move |config| announce.send(config).expect("the test is there");
    let serving = tokio::spawn(builder.serve_test(ready, cancel.clone()));

    let config = announced.await.unwrap();
    assert_eq!((config.pid, config.test), (Some(std::process::id()), true));
    assert_eq!(config.app_version.map(plugin_sdk::AppVersion::get), Some(2));
    let (mut stdout, mut stderr) = told.recv().unwrap();
    let attach = Attach::reattach(config.clone(), contract(&[1, 2]));
    for host in 0..3 {
        let plugin = attach.connect().await.unwrap();
        plugin.health().await.unwrap();
        let mut client = SampleClient::new(plugin.channel());
        assert_eq!(client.echo(b"x".to_vec()).await.unwrap().into_inner(), b"host got x");
        writeln!(stdout, "out {host}").unwrap();
        writeln!(stderr, "err {host}").unwrap();
        for (stream, text) in [("stdout", format!("out {host}")), ("stderr", format!("err {host}"))] {
            logged.line(|line| line.field("stream") == stream && line.message() == text).await;
        }
        assert_eq!(plugin.shutdown().await.status, ExitKind::LeftRunning);
    }
    assert_eq!(standard_streams(), before);

    let last = attach.connect().await.unwrap();
    cancel.cancel();
    serving.await.unwrap().unwrap();
    assert!(last.health().await.is_err());
    assert!(matches!(attach.connect().await, Err(AttachError::NotFound { .. })));
    let PluginAddress::Unix(socket) = config.address else { panic!("not a Unix socket") };
    assert!(!socket.exists());
}
