//! The broker's limits of 5 s, and connections that are made again. What has to wait does so at the same time.
#![allow(clippy::unwrap_used, reason = "all of it is tests, parts of one among them")]

use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::time::Duration;

use plugin_sdk::host::{Launch, Plugin, Security};
use plugin_sdk::{BrokerError, BrokeredServer};
use sample_plugin::Greeter;
use sample_plugin::sample_client::SampleClient;
use sample_plugin::sample_server::SampleServer;
use support::{sample, socket, socket_dir, start, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, sleep};
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};

mod support;

/// What both sides wait for.
const PATIENCE: Duration = Duration::from_secs(5);

/// More than go-plugin keeps an announcement.
const STALE: Duration = Duration::from_millis(5_500);

/// A plugin with a server that the host lends it.
async fn lent_to(launch: &Launch) -> (Plugin, SampleClient<Channel>, BrokeredServer) {
    let (plugin, client) = start(launch).await;
    let server = serve(&plugin, plugin.broker().next_id()).await;
    (plugin, client, server)
}

async fn serve(plugin: &Plugin, id: u32) -> BrokeredServer {
    let routes = Routes::new(SampleServer::new(Greeter));
    plugin.broker().accept_and_serve(id, routes).await.expect("the broker is open")
}

/// Ends what the host has lent, and waits until nobody can connect to it any more.
async fn end(plugin: &Plugin, server: BrokeredServer) {
    drop(server);
    until("its socket is gone", async || brokered_sockets(plugin).is_empty()).await;
}

/// All sockets of both sides but the plugin's own.
fn brokered_sockets(plugin: &Plugin) -> Vec<PathBuf> {
    let main = socket(plugin);
    let entries = std::fs::read_dir(socket_dir(plugin)).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| *path != main).collect()
}

async fn lend(client: &mut SampleClient<Channel>) -> u32 {
    client.lend(()).await.expect("the plugin lends").into_inner()
}

/// Whether the error is that of a dial that was waited for in vain.
fn timed_out(error: &BrokerError) -> bool {
    matches!(error, BrokerError::TimedOut { .. })
        || plugin_sdk::one_line(error).to_string().contains("within 5s")
}

async fn works(plugin: &Plugin, client: &mut SampleClient<Channel>) {
    let lent = lend(client).await;
    let mut borrowed = SampleClient::new(plugin.broker().dial(lent).await.expect("it is there"));
    assert_eq!(borrowed.who(()).await.expect("it answers").into_inner(), "rust 1");
    let server = serve(plugin, plugin.broker().next_id()).await;
    let answer = client.call_back(server.id()).await.expect("it answers");
    assert_eq!(answer.into_inner(), b"host got from plugin");
}

#[tokio::test]
async fn waits_of_five_seconds() {
    tokio::join!(
        nothing_is_offered_to_the_plugin(false),
        nothing_is_offered_to_the_plugin(true),
        what_is_served_can_be_dialled_late_and_again(false),
        what_is_served_can_be_dialled_late_and_again(true),
        a_number_can_be_served_anew(false),
        a_number_can_be_served_anew(true),
        dials_of_one_number_wait_together(false),
        dials_of_one_number_wait_together(true),
        a_knock_may_come_before_the_server(),
        a_knock_that_was_given_up_is_in_nobodys_way(),
        a_host_that_takes_its_time_is_waited_for(),
    );
}

async fn nothing_is_offered_to_the_plugin(multiplexing: bool) {
    let (plugin, mut client) = start(&sample().multiplexing(multiplexing)).await;
    let begun = Instant::now();
    let status = client.call_back(99).await.unwrap_err();
    assert!(begun.elapsed() >= PATIENCE && status.message().contains("99"), "{status}");
    works(&plugin, &mut client).await;
    plugin.shutdown().await;
}

async fn what_is_served_can_be_dialled_late_and_again(multiplexing: bool) {
    let (plugin, mut client, server) = lent_to(&sample().multiplexing(multiplexing)).await;
    let lent = lend(&mut client).await;
    sleep(STALE).await;
    for _ in 0..2 {
        let (at_plugin, at_host) = tokio::join!(client.call_back(server.id()), plugin.broker().dial(lent));
        assert_eq!(at_plugin.unwrap().into_inner(), b"host got from plugin", "multiplexing {multiplexing}");
        let mut borrowed = SampleClient::new(at_host.unwrap());
        assert_eq!(borrowed.who(()).await.unwrap().into_inner(), "rust 1", "multiplexing {multiplexing}");
    }
    plugin.shutdown().await;
}

/// As with go-plugin, where each dial takes an announcement of its own.
async fn a_number_can_be_served_anew(multiplexing: bool) {
    let (plugin, mut client, mut server) = lent_to(&sample().multiplexing(multiplexing)).await;
    let id = server.id();
    client.call_back(id).await.unwrap();
    for _ in 0..3 {
        end(&plugin, server).await;
        server = loop {
            let routes = Routes::new(SampleServer::new(Greeter));
            match plugin.broker().accept_and_serve(id, routes).await {
                // With multiplexing the old one has no socket, and is still ending.
                Err(BrokerError::InUse(_)) => tokio::task::yield_now().await,
                served => break served.unwrap(),
            }
        };
        assert_eq!(client.call_back(id).await.unwrap().into_inner(), b"host got from plugin");
    }
    if !multiplexing {
        // It is known where it was, and still waited for.
        end(&plugin, server).await;
        let begun = Instant::now();
        assert!(client.call_back(id).await.is_err());
        assert!(begun.elapsed() >= PATIENCE);
    }
    plugin.shutdown().await;
}

/// Of dials that wait for one number none is left out.
async fn dials_of_one_number_wait_together(multiplexing: bool) {
    let (plugin, client) = start(&sample().multiplexing(multiplexing)).await;
    let id = plugin.broker().next_id();
    let dialled = (0..2).map(|_| {
        let mut client = client.clone();
        tokio::spawn(async move { client.call_back(id).await })
    });
    let dialled: Vec<_> = dialled.collect();
    // Most likely both wait by now, which cannot be seen from here; a dial that comes later is answered as well.
    sleep(Duration::from_secs(1)).await;
    let _server = serve(&plugin, id).await;
    for dialled in dialled {
        assert_eq!(dialled.await.unwrap().unwrap().into_inner(), b"host got from plugin");
    }
    plugin.shutdown().await;
}

async fn a_knock_may_come_before_the_server() {
    for security in [Security::Plain, Security::AutoMtls] {
        let (plugin, mut client) = start(&sample().security(security).multiplexing(true)).await;
        // The plugin counts from 1: it is known beforehand what it will lend first.
        let early = tokio::spawn({
            let broker = plugin.broker().clone();
            async move { broker.dial(1).await }
        });
        sleep(Duration::from_secs(1)).await;
        assert_eq!(lend(&mut client).await, 1);
        let mut borrowed = SampleClient::new(early.await.unwrap().unwrap());
        assert_eq!(borrowed.who(()).await.unwrap().into_inner(), "rust 1");

        let id = plugin.broker().next_id();
        let mut caller = client.clone();
        let early = tokio::spawn(async move { caller.call_back(id).await });
        sleep(Duration::from_secs(1)).await;
        let _server = serve(&plugin, id).await;
        assert_eq!(early.await.unwrap().unwrap().into_inner(), b"host got from plugin");
        plugin.shutdown().await;
    }
}

async fn a_knock_that_was_given_up_is_in_nobodys_way() {
    let (plugin, mut client) = start(&sample().multiplexing(true)).await;
    let id = plugin.broker().next_id();
    let (at_plugin, at_host) = tokio::join!(client.call_back(id), plugin.broker().dial(1));
    assert!(at_plugin.is_err());
    assert!(timed_out(&at_host.unwrap_err()));
    // Both come too late for those who knocked. go-plugin's broker is blocked from here on.
    let _server = serve(&plugin, id).await;
    assert_eq!(lend(&mut client).await, 1);
    works(&plugin, &mut client).await;
    // And can still be had.
    assert!(plugin.broker().dial(1).await.is_ok());
    assert!(client.call_back(id).await.is_ok());
    plugin.shutdown().await;
}

/// A plugin on go-plugin ends when its host does not connect within 5 s.
async fn a_host_that_takes_its_time_is_waited_for() {
    let announced = sample().multiplexing(true).spawn().await.unwrap().handshake().await.unwrap();
    sleep(STALE).await;
    let plugin = Box::pin(announced.connect()).await.unwrap();
    works(&plugin, &mut SampleClient::new(plugin.channel())).await;
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_brokered_server_can_be_connected_to_again() {
    let (plugin, mut client, server) = lent_to(&sample()).await;
    assert_eq!(client.call_back(server.id()).await.unwrap().into_inner(), b"host got from plugin");
    let lent = lend(&mut client).await;
    drop(plugin.broker().dial(lent).await.unwrap());
    let brokered = brokered_sockets(&plugin);
    assert_eq!(brokered.len(), 2, "{brokered:?}");
    let mut answers = Vec::new();
    for path in brokered {
        assert!(path.metadata().unwrap().file_type().is_socket());
        // As a channel does it that has lost its connection.
        for _ in 0..2 {
            let channel = Endpoint::from_shared(format!("unix:{}", path.display())).unwrap();
            let mut again = SampleClient::new(channel.connect().await.unwrap());
            answers.push(again.echo(b"x".to_vec()).await.unwrap().into_inner());
        }
    }
    answers.sort_unstable();
    assert_eq!(answers, [&b"host got x"[..], b"host got x", b"x", b"x"]);
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_host_answers_pings_of_a_multiplexed_connection() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("plugin.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    // The plugin is a script that leads to this test.
    let line = format!("1|1|unix|{}|grpc||true", socket.display());
    let launch = support::script(dir.path(), &format!("echo '{line}'; exec sleep 60"));
    let starting = tokio::spawn(async move { launch.multiplexing(true).peer_check(false).start().await });
    let (mut connection, _) = listener.accept().await.unwrap();
    // Version 0, type 2 (ping), flag 1 (SYN), stream 0, then a number to be sent back.
    connection.write_all(&[0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7]).await.unwrap();
    let answered = tokio::time::timeout(Duration::from_secs(8), async {
        loop {
            let frame = next_frame(&mut connection).await;
            if frame[1] == 2 {
                return frame;
            }
        }
    });
    // Flag 2 (ACK).
    let answer = answered.await.expect("go-plugin gives up after 10 s");
    assert_eq!(answer, [0, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7]);
    starting.abort();
}

/// The header of the next yamux frame, past its data.
async fn next_frame(connection: &mut UnixStream) -> [u8; 12] {
    let mut header = [0; 12];
    connection.read_exact(&mut header).await.expect("the host goes on");
    if header[1] == 0 {
        let length = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
        let mut data = vec![0; length as usize];
        connection.read_exact(&mut data).await.expect("the host goes on");
    }
    header
}
