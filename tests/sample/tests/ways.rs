//! The same binary in all the ways that it can run: as a child, as a service that hosts attach to, in test mode, and
//! handed over from one host to the next.

use std::process::Stdio;
use std::time::Duration;

use e2e::Authority;
use plugin_sdk::host::{Attach, AttachError, Contract, Exit, ExitKind, Launch, Plugin, Security, StopStep};
use plugin_sdk::{PluginAddress, ReattachConfig, TlsConfig};
use rustix::process::Signal;
use sample_plugin::sample_client::SampleClient;
use support::{Stray, until, who};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

mod support;

const BINARY: &str = env!("CARGO_BIN_EXE_sample-plugin");

fn contract(versions: &[u32]) -> Contract {
    Contract::new(sample_plugin::cookie(), versions.iter().copied())
}

fn service(args: &[&str], variables: &[(&str, &str)]) -> Stray {
    let mut command = Command::new(BINARY);
    command.args(args).envs(variables.iter().copied()).env_remove("SAMPLE_PLUGIN");
    Stray::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))
}

async fn attach(address: &str) -> Result<Plugin, AttachError> {
    let address = address.parse().expect("it is an address");
    Attach::to(address, contract(&[3])).connect().await
}

#[tokio::test]
async fn hosts_come_and_go_at_a_service_and_find_it_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let address = format!("unix:{}/sample.sock", dir.path().display());
    let mut running = service(&["--listen", &address], &[]);
    until("the service answers", async || attach(&address).await.is_ok()).await;

    let (first, second) = (attach(&address).await.unwrap(), attach(&address).await.unwrap());
    assert_eq!((who(&first).await.as_str(), who(&second).await.as_str()), ("rust 3", "rust 3"));
    assert!(first.pid().is_none());
    // Each host has a broker of its own.
    for host in [&first, &second] {
        let lent = SampleClient::new(host.channel()).lend(()).await.unwrap().into_inner();
        assert_eq!(lent, 1);
        let mut borrowed = SampleClient::new(host.broker().dial(lent).await.unwrap());
        assert_eq!(borrowed.who(()).await.unwrap().into_inner(), "rust 3");
    }
    // What was served for a host ends with it.
    let third = attach(&address).await.unwrap();
    let lent = SampleClient::new(third.channel()).lend(()).await.unwrap().into_inner();
    let mut borrowed = SampleClient::new(third.broker().dial(lent).await.unwrap());
    drop(third);
    until("the lent server has ended", async || borrowed.who(()).await.is_err()).await;
    // No host can end it.
    let Exit { status, .. } = first.shutdown().await;
    assert_eq!(status, ExitKind::LeftRunning);
    assert_eq!(who(&second).await, "rust 3");

    support::signal(running.id().unwrap(), Signal::TERM);
    assert!(running.wait().await.unwrap().success());
    assert!(second.health().await.is_err());
    let _again = service(&["--listen", &address], &[]);
    until("the old channel leads to the new process", async || who(&second).await == "rust 3").await;
}

#[tokio::test]
async fn a_service_on_tcp_is_for_those_with_a_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::generate();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (certificate, key) = authority.issue();
    let files = [write("ca", &authority.pem), write("cert", &certificate), write("key", &key)];
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let listen = format!("tcp:127.0.0.1:{port}");
    let _running = service(
        &["--listen", &listen, "--listen-tls-ca", &files[0]],
        &[("PLUGIN_LISTEN_TLS_CERT", &files[1]), ("PLUGIN_LISTEN_TLS_KEY", &files[2])],
    );
    let address: PluginAddress = listen.parse().unwrap();
    let (certificate, key) = authority.issue();
    let own = TlsConfig::from_pem(&authority.pem, &certificate, &key, "localhost").unwrap();
    let secured = Attach::to(address.clone(), contract(&[3])).security(Security::Tls(own));
    until("the service answers", async || secured.connect().await.is_ok()).await;
    assert_eq!(who(&secured.connect().await.unwrap()).await, "rust 3");

    let plain = Attach::to(address, contract(&[3])).timeout(Duration::from_secs(5)).connect().await;
    assert!(plain.is_err());
}

#[tokio::test]
async fn what_would_be_open_to_the_network_is_refused() {
    let mut refused = service(&["--listen", "tcp:0.0.0.0:0"], &[]);
    assert_eq!(refused.wait().await.unwrap().code(), Some(1));
}

#[tokio::test]
async fn a_socket_that_systemd_holds_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("activated.sock");
    let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    // As systemd does it: the socket is descriptor 3, and LISTEN_PID is the process itself. A shell does the numbers.
    let script = format!("exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec {BINARY}");
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &script]).stdin(Stdio::from(std::os::fd::OwnedFd::from(socket)));
    let _running = Stray::spawn(&mut command);
    // The first connection waits in the socket until the service is there.
    let plugin = attach(&format!("unix:{}", path.display())).await.unwrap();
    assert_eq!(who(&plugin).await, "rust 3");
}

/// Starts the plugin in test mode, and gives what it says.
async fn in_test_mode(variables: &[(&str, &str)]) -> (Stray, ReattachConfig) {
    let mut running = service(&["--test-mode"], variables);
    let mut line = String::new();
    let stdout = running.stdout.take().expect("it has a pipe");
    BufReader::new(stdout).read_line(&mut line).await.expect("it says how to reattach");
    let config = ReattachConfig::from_json(&line).expect("it is a reattach configuration");
    (running, config)
}

#[tokio::test]
async fn test_mode_is_announced_and_survives_its_hosts() {
    let (mut running, config) = in_test_mode(&[("PLUGIN_PROTOCOL_VERSIONS", "2")]).await;
    assert_eq!((config.pid, config.test, config.app_version.unwrap().get()), (running.id(), true, 2));
    for _ in 0..3 {
        let plugin = Attach::reattach(config.clone(), contract(&[1, 2])).connect().await.unwrap();
        assert_eq!(who(&plugin).await, "rust 2");
        assert_eq!(plugin.reattach_config(), Some(&config));
        let lent = SampleClient::new(plugin.channel()).lend(()).await.unwrap().into_inner();
        assert!(plugin.broker().dial(lent).await.is_ok());
        assert_eq!(plugin.shutdown().await.status, ExitKind::LeftRunning);
    }
    assert!(running.try_wait().unwrap().is_none());
    let mut other = config;
    other.app_version = Some(9.into());
    let refused = Attach::reattach(other, contract(&[1, 2])).connect().await;
    assert!(matches!(refused, Err(AttachError::Version { .. })));
}

/// That the host with the certificate gets in is tested with one on go-plugin, which can go without checking the plugin's.
#[tokio::test]
async fn test_mode_with_the_certificate_of_a_host_is_closed_to_others() {
    let (authority, stranger) = (Authority::generate(), Authority::generate());
    let (_running, config) = in_test_mode(&[("PLUGIN_CLIENT_CERT", &authority.issue().0)]).await;
    let plain = Attach::reattach(config.clone(), contract(&[1]));
    assert!(plain.connect().await.is_err());
    for authority in [authority, stranger] {
        let (certificate, key) = authority.issue();
        let other = TlsConfig::from_pem(&authority.pem, &certificate, &key, "localhost").unwrap();
        assert!(plain.clone().security(Security::Tls(other)).connect().await.is_err());
    }
    let mut refused = service(&["--test-mode"], &[("PLUGIN_CLIENT_CERT", "garbage")]);
    assert_eq!(refused.wait().await.unwrap().code(), Some(1));
}

#[tokio::test]
async fn a_plugin_is_handed_over_to_another_host_which_ends_it() {
    let first = Launch::new(BINARY, contract(&[1, 2])).start().await.unwrap();
    let config = first.reattach_config().unwrap().clone();
    assert_eq!((config.pid, config.test, config.app_version.unwrap().get()), (first.pid(), false, 2));
    let second = Attach::reattach(config, contract(&[1, 2])).connect().await.unwrap();
    assert_eq!((who(&second).await.as_str(), second.pid()), ("rust 2", first.pid()));
    let exit = second.shutdown().await;
    assert_eq!((exit.status, exit.after), (ExitKind::Unknown, StopStep::Shutdown));
    // The first host, whose child it is, learns of it.
    assert_eq!(first.exited().await.status, ExitKind::Code(0));
}

#[tokio::test]
async fn reattaching_to_nothing_finds_nothing_and_kills_nobody() {
    let own = std::process::id();
    let dead = ReattachConfig {
        app_version: None,
        address: PluginAddress::Unix("/nowhere/plugin1".into()),
        pid: Some(own),
        test: false,
    };
    let found = Attach::reattach(dead.clone(), contract(&[1])).connect().await;
    assert!(matches!(found, Err(AttachError::NotFound { .. })));
    let no_process = ReattachConfig { pid: Some(u32::MAX / 4), ..dead };
    let found = Attach::reattach(no_process, contract(&[1])).connect().await;
    assert!(matches!(found, Err(AttachError::NoProcess { .. })));
}

#[tokio::test]
async fn a_number_that_belongs_to_another_process_now_is_not_believed() {
    let plugin = Launch::new(BINARY, contract(&[1])).start().await.unwrap();
    // Some process that is neither the plugin nor its parent.
    let mut bystander = service(&["--test-mode"], &[]);
    let config = ReattachConfig { pid: bystander.id(), ..plugin.reattach_config().unwrap().clone() };
    let found = Attach::reattach(config, contract(&[1])).connect().await;
    assert!(matches!(found, Err(AttachError::NotFound { .. })), "{found:?}");
    assert!(bystander.try_wait().unwrap().is_none());
    assert_eq!(who(&plugin).await, "rust 1");
}

#[tokio::test]
async fn what_cannot_be_reattached_to_is_not_offered() {
    for launch in [
        Launch::new(BINARY, contract(&[1])).security(Security::AutoMtls),
        Launch::new(BINARY, contract(&[1])).multiplexing(true),
    ] {
        let plugin = launch.start().await.unwrap();
        assert_eq!(plugin.reattach_config(), None);
        plugin.shutdown().await;
    }
    let address = PluginAddress::Unix("/x".into());
    let attach = Attach::to(address, contract(&[1])).security(Security::AutoMtls);
    assert!(matches!(attach.connect().await, Err(AttachError::AutoMtls)));
}
