//! The broker in all its forms: both directions, plain and multiplexed, with and without AutoMTLS, Unix and TCP.

use plugin_sdk::BrokerError;
use plugin_sdk::host::{Contract, Launch, Plugin, Security};
use sample_plugin::Greeter;
use sample_plugin::sample_client::SampleClient;
use sample_plugin::sample_server::SampleServer;
use tokio_stream::StreamExt;
use tonic::service::Routes;
use tonic::transport::Channel;

fn launch() -> Launch {
    let contract = Contract::new(sample_plugin::cookie(), [1]);
    Launch::new(env!("CARGO_BIN_EXE_sample-plugin"), contract)
}

/// Every way to be connected.
fn ways() -> impl Iterator<Item = (String, Launch)> {
    [(false, false), (false, true), (true, false), (true, true)].into_iter().flat_map(
        |(tls, multiplexing)| {
            [false, true].map(|tcp| {
                let security = if tls { Security::AutoMtls } else { Security::Plain };
                let launch = launch().security(security).multiplexing(multiplexing);
                let launch = if tcp { launch.arg("--tcp") } else { launch };
                (format!("AutoMTLS {tls}, multiplexing {multiplexing}, TCP {tcp}"), launch)
            })
        },
    )
}

async fn start(way: &str, launch: &Launch) -> (Plugin, SampleClient<Channel>) {
    let plugin =
        launch.start().await.unwrap_or_else(|error| panic!("{way}: {}", plugin_sdk::one_line(&error)));
    let client = SampleClient::new(plugin.channel());
    (plugin, client)
}

#[tokio::test]
async fn calls_and_streams_work_in_every_way() {
    for (way, launch) in ways() {
        let (plugin, mut client) = start(&way, &launch).await;
        let large = vec![7; 3_000_000];
        assert_eq!(client.echo(large.clone()).await.unwrap().into_inner(), large, "{way}");
        let texts = ["a", "b", "c"].map(str::to_owned);
        let answers = client.chat(tokio_stream::iter(texts.clone())).await.unwrap().into_inner();
        let answers: Vec<String> = answers.map(|text| text.unwrap()).collect().await;
        assert_eq!(answers, texts, "{way}");
        assert!(plugin.shutdown().await.is_success(), "{way}");
    }
}

#[tokio::test]
async fn both_sides_serve_the_other_under_the_same_id_at_once() {
    for (way, launch) in ways() {
        let (plugin, mut client) = start(&way, &launch).await;
        let broker = plugin.broker();
        let id = broker.next_id();
        let _server = broker.accept_and_serve(id, Routes::new(SampleServer::new(Greeter))).await.unwrap();
        let lent = client.lend(()).await.unwrap().into_inner();
        assert_eq!((id, lent), (1, 1), "each side counts for itself");
        assert_eq!(client.call_back(id).await.unwrap().into_inner(), b"host got from plugin", "{way}");
        let mut borrowed = SampleClient::new(broker.dial(lent).await.unwrap());
        assert_eq!(borrowed.who(()).await.unwrap().into_inner(), "rust 1", "{way}");
        // And as often as anybody likes.
        assert_eq!(client.call_back(id).await.unwrap().into_inner(), b"host got from plugin", "{way}");
        let mut again = SampleClient::new(broker.dial(lent).await.unwrap());
        assert_eq!(again.who(()).await.unwrap().into_inner(), "rust 1", "{way}");
        assert!(plugin.shutdown().await.is_success(), "{way}");
    }
}

#[tokio::test]
async fn many_at_once_are_not_mixed_up() {
    for (way, launch) in ways() {
        let (plugin, client) = start(&way, &launch).await;
        let broker = plugin.broker();
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let (broker, mut client) = (broker.clone(), client.clone());
            calls.spawn(async move {
                let id = broker.next_id();
                let _server =
                    broker.accept_and_serve(id, Routes::new(SampleServer::new(Greeter))).await.unwrap();
                client.call_back(id).await.unwrap().into_inner()
            });
            let (broker, mut client) = (plugin.broker().clone(), SampleClient::new(plugin.channel()));
            calls.spawn(async move {
                let lent = client.lend(()).await.unwrap().into_inner();
                let mut borrowed = SampleClient::new(broker.dial(lent).await.unwrap());
                borrowed.echo(lent.to_string().into_bytes()).await.unwrap();
                b"host got from plugin".to_vec()
            });
        }
        while let Some(answer) = calls.join_next().await {
            assert_eq!(answer.unwrap(), b"host got from plugin", "{way}");
        }
        plugin.shutdown().await;
    }
}

#[tokio::test]
async fn what_is_not_offered_is_an_error_within_the_limit() {
    for multiplexing in [false, true] {
        let (plugin, mut client) = start("", &launch().multiplexing(multiplexing)).await;
        let error = plugin.broker().dial(99).await.unwrap_err();
        let timed_out = match &error {
            BrokerError::TimedOut { id: 99, .. } => true,
            // With multiplexing the wait is a part of connecting.
            BrokerError::Connect(_) => plugin_sdk::one_line(&error).to_string().contains("id 99"),
            _ => false,
        };
        assert!(timed_out, "{error:?}");
        // Later ones still work.
        let lent = client.lend(()).await.unwrap().into_inner();
        let mut borrowed = SampleClient::new(plugin.broker().dial(lent).await.unwrap());
        assert_eq!(borrowed.who(()).await.unwrap().into_inner(), "rust 1");
        plugin.shutdown().await;
    }
}

#[tokio::test]
async fn after_the_end_the_broker_is_closed() {
    let (plugin, _) = start("", &launch()).await;
    let broker = plugin.broker().clone();
    plugin.shutdown().await;
    assert!(matches!(broker.dial(1).await, Err(BrokerError::Closed)));
    let served = broker.accept_and_serve(1, Routes::new(SampleServer::new(Greeter))).await;
    assert!(matches!(served, Err(BrokerError::Closed)));
}
