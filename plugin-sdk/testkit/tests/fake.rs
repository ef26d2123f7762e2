//! The fake plugin, as the plugin of a host that is under test.

use std::time::{Duration, Instant};

use plugin_sdk::host::ExitKind;
use plugin_testkit::{FakePlugin, Reply, until};
use sample_plugin::sample_client::SampleClient;
use tokio_stream::StreamExt;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

const ECHO: &str = "sample.v1.Sample/Echo";
const CHAT: &str = "sample.v1.Sample/Chat";
const WHO: &str = "sample.v1.Sample/Who";

async fn fake() -> (FakePlugin, SampleClient<Channel>) {
    let fake = FakePlugin::start(3).await.expect("a plugin in memory starts");
    let host = SampleClient::new(fake.channel());
    (fake, host)
}

#[tokio::test]
async fn it_serves_the_version_that_it_was_given_and_is_well() {
    let (fake, _) = fake().await;
    assert_eq!(fake.plugin().app_version().get(), 3);
    fake.plugin().health().await.unwrap();
    fake.set_not_serving();
    assert!(fake.plugin().health().await.is_err());
    fake.set_serving();
    fake.plugin().health().await.unwrap();
    fake.stop().await.unwrap();
}

#[tokio::test]
async fn nothing_but_calls_is_counted() {
    let (fake, mut host) = fake().await;
    assert_eq!(fake.call_count(), 0);
    assert_eq!(host.who(()).await.unwrap_err().code(), Code::Unimplemented);
    assert_eq!((fake.call_count(), fake.calls(WHO).len(), fake.calls(ECHO).len()), (1, 1, 0));
}

#[tokio::test]
async fn replies_come_in_order_and_then_the_one_for_all() {
    let (fake, mut host) = fake().await;
    fake.answer(WHO, Reply::message(&"always".to_owned()));
    fake.answer_once(&format!("/{WHO}"), Reply::message(&"first".to_owned()));
    fake.answer_once(WHO, Reply::status(Status::unavailable("second")));
    assert_eq!(host.who(()).await.unwrap().into_inner(), "first");
    assert_eq!(host.who(()).await.unwrap_err().message(), "second");
    for _ in 0..2 {
        assert_eq!(host.who(()).await.unwrap().into_inner(), "always");
    }
    fake.answer(WHO, Reply::message(&"changed".to_owned()));
    assert_eq!(host.who(()).await.unwrap().into_inner(), "changed");
}

#[tokio::test]
async fn a_reply_can_depend_on_the_call() {
    let (fake, mut host) = fake().await;
    fake.answer_by(ECHO, |call| {
        let mut bytes: Vec<u8> = call.message().unwrap_or_default();
        bytes.reverse();
        Reply::message(&bytes)
    });
    assert_eq!(host.echo(vec![1, 2, 3]).await.unwrap().into_inner(), [3, 2, 1]);
}

#[tokio::test]
async fn what_the_host_sends_is_kept() {
    let (fake, mut host) = fake().await;
    fake.answer(ECHO, Reply::message(&Vec::<u8>::new()));
    let mut request = Request::new(vec![7]);
    request.metadata_mut().insert("trace", "abc".parse().unwrap());
    request.set_timeout(Duration::from_secs(60));
    host.echo(request).await.unwrap();
    let call = fake.calls(ECHO).remove(0);
    assert_eq!(call.metadata.get("trace").unwrap(), "abc");
    assert!(call.metadata.contains_key("grpc-timeout"));
    assert_eq!(call.message::<Vec<u8>>().unwrap(), [7]);
    assert!(call.message::<prost_types::Timestamp>().is_err());
    // Of any size: whether it is too large is for the host to say.
    host.echo(vec![0; 6_000_000]).await.unwrap();
    assert_eq!(fake.calls(ECHO)[1].message::<Vec<u8>>().unwrap().len(), 6_000_000);
}

#[tokio::test]
async fn streams_are_read_whole_and_may_break_off() {
    let (fake, mut host) = fake().await;
    let words = ["one".to_owned(), "two".to_owned()];
    let mut metadata = MetadataMap::new();
    metadata.insert("mood", "grim".parse().unwrap());
    fake.answer(CHAT, Reply::messages(&words).then(Status::data_loss("no more")).metadata(metadata));
    let answer = host.chat(tokio_stream::iter(words.clone())).await.unwrap();
    assert_eq!(answer.metadata().get("mood").unwrap(), "grim");
    let mut stream = answer.into_inner();
    for word in &words {
        assert_eq!(&stream.next().await.unwrap().unwrap(), word);
    }
    assert_eq!(stream.next().await.unwrap().unwrap_err().code(), Code::DataLoss);
    assert_eq!(fake.calls(CHAT)[0].messages.len(), 2);
}

#[tokio::test]
async fn a_stream_can_stay_open_until_the_plugin_dies() {
    let (fake, mut host) = fake().await;
    fake.answer(CHAT, Reply::message(&"one".to_owned()).then_never());
    let mut stream = host.chat(tokio_stream::empty()).await.unwrap().into_inner();
    assert_eq!(stream.next().await.unwrap().unwrap(), "one");
    assert!(tokio::time::timeout(Duration::from_millis(20), stream.next()).await.is_err());
    fake.crash();
    assert!(stream.next().await.unwrap().is_err());
}

#[tokio::test]
async fn bytes_need_not_be_a_message() {
    let (fake, mut host) = fake().await;
    fake.answer(WHO, Reply::bytes([0x0a, 0x7f]));
    assert_eq!(host.who(()).await.unwrap_err().code(), Code::Internal);
}

#[tokio::test]
async fn a_late_reply_comes_when_it_is_due_and_none_never() {
    let (fake, mut host) = fake().await;
    let delay = Duration::from_millis(100);
    fake.answer_once(WHO, Reply::message(&"late".to_owned()).after(delay));
    fake.answer(WHO, Reply::never());
    let begun = Instant::now();
    assert_eq!(host.who(()).await.unwrap().into_inner(), "late");
    assert!(begun.elapsed() >= delay);
    let mut request = Request::new(());
    request.set_timeout(delay);
    assert!(host.who(request).await.is_err());
    assert_eq!(fake.wait_for_calls(WHO, 2).await.len(), 2);
}

#[tokio::test]
async fn a_plugin_that_dies_breaks_its_calls_and_is_seen_to_end() {
    let (fake, mut host) = fake().await;
    fake.answer(ECHO, Reply::never());
    fake.answer(WHO, Reply::crash());
    let waiting = tokio::spawn({
        let mut host = host.clone();
        async move { host.echo(vec![1]).await }
    });
    fake.wait_for_calls(ECHO, 1).await;
    assert!(host.who(()).await.is_err());
    assert!(waiting.await.unwrap().is_err());
    assert_eq!(fake.plugin().exited().await.status, ExitKind::Unknown);
    assert!(fake.plugin().health().await.is_err());
    assert_eq!(fake.calls(WHO).len(), 1);
    fake.stop().await.unwrap();
}

#[tokio::test]
async fn a_death_of_the_tests_choice_is_like_it() {
    let (fake, mut host) = fake().await;
    fake.answer(WHO, Reply::message(&"alive".to_owned()));
    host.who(()).await.unwrap();
    fake.crash();
    until("calls fail", async || host.who(()).await.is_err()).await;
    fake.plugin().exited().await;
}
