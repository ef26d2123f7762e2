//! Calls that are running when the plugin is to end: streams that end in time, and calls that are given their time.
#![allow(clippy::unwrap_used, reason = "all of it is tests, parts of one among them")]

use plugin_sdk::InMemory;
use plugin_sdk::host::{Launch, StopStep};
use plugin_sdk::plugin::PluginBuilder;
use sample_plugin::Service;
use sample_plugin::sample_client::SampleClient;
use sample_plugin::sample_server::SampleServer;
use support::logged::Logged;
use support::{LIMIT, contract, sample, start};
use tokio_stream::{StreamExt, pending};
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Request, Streaming};

mod support;

/// What a plugin warns of at its end.
const BROKEN_OFF: &str = "broken off";

/// A plugin in this process, which would wait for its calls for a long time.
async fn in_memory() -> (InMemory, SampleClient<Channel>) {
    let plugin = PluginBuilder::new(sample_plugin::cookie())
        .drain_limit(4 * LIMIT)
        .version(1, |context| Routes::new(SampleServer::new(Service::new(context))));
    let running = InMemory::start(plugin, &contract(&[1])).await.unwrap();
    let client = SampleClient::new(running.plugin().channel());
    (running, client)
}

/// A stream that has begun, and that the host never ends.
async fn talk(client: &mut SampleClient<Channel>) -> Streaming<String> {
    let words = tokio_stream::once("word".to_owned()).chain(pending());
    let mut answers = client.chat(words).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().as_deref(), Some("word"));
    answers
}

/// Stops the plugin while a call of one and a half seconds is running, longer than calls get unless more is asked for.
async fn stop_during_a_call(launch: Launch) -> (bool, StopStep) {
    let (plugin, mut client) = start(&launch.shutdown_grace(LIMIT)).await;
    let mut call = Request::new(());
    call.metadata_mut().insert("millis", "1500".parse().unwrap());
    let mut other = client.clone();
    let (answer, exit) = tokio::join!(client.hang(call), async {
        // Was sent after the call, over the same connection.
        other.who(()).await.unwrap();
        plugin.shutdown().await
    });
    (answer.is_ok(), exit.after)
}

#[tokio::test]
async fn a_stream_that_hears_of_the_end_does_not_hold_it_up() {
    let logged = Logged::begin();
    let (plugin, mut client) = start(&sample()).await;
    let mut answers = talk(&mut client).await;
    let (end, exit) = tokio::join!(answers.message(), plugin.shutdown());
    assert_eq!(end.unwrap(), None, "it ends as if there was no more to say");
    assert!(exit.is_success() && exit.after == StopStep::Shutdown, "{exit}");
    assert!(!logged.lines().iter().any(|line| line.message().contains(BROKEN_OFF)));
}

#[tokio::test]
async fn blocking_work_does_not_hold_the_end_up() {
    let (plugin, _client) = start(&sample().arg("--blocking").shutdown_grace(LIMIT)).await;
    let exit = plugin.shutdown().await;
    assert!(exit.is_success() && exit.after == StopStep::Shutdown, "{exit}");
}

#[tokio::test]
async fn a_stream_in_memory_that_hears_of_the_end_does_not_hold_it_up() {
    let (running, mut client) = in_memory().await;
    let mut answers = talk(&mut client).await;
    tokio::time::timeout(LIMIT, running.stop()).await.expect("nothing is waited for").unwrap();
    assert_eq!(answers.message().await.unwrap(), None);
}

#[tokio::test]
async fn services_hear_of_the_end_also_where_it_is_a_crash() {
    let (tell, told) = std::sync::mpsc::channel();
    let plugin = PluginBuilder::new(sample_plugin::cookie()).version(1, move |context| {
        tell.send(context.closing()).unwrap();
        Routes::default()
    });
    let running = InMemory::start(plugin, &contract(&[1])).await.unwrap();
    let closing = told.recv().unwrap();
    assert!(!closing.has_begun());
    running.crash();
    tokio::time::timeout(LIMIT, closing.begun()).await.unwrap();
    assert!(closing.has_begun());
}

#[tokio::test]
async fn a_call_is_given_the_time_that_the_plugin_gives_it() {
    let logged = Logged::begin();
    assert_eq!(stop_during_a_call(sample().arg("--long-drain")).await, (true, StopStep::Shutdown));
    assert!(!logged.lines().iter().any(|line| line.message().contains(BROKEN_OFF)));
    // A host that waits longer than the plugin does not help.
    assert_eq!(stop_during_a_call(sample()).await, (false, StopStep::Shutdown));
    logged.line(|line| line.message().contains(BROKEN_OFF)).await;
}
