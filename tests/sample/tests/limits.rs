//! How long a message, an error text and metadata may be.

use plugin_sdk::MAX_MESSAGE_BYTES;
use support::{LIMIT, sample, start};
use tokio_stream::{StreamExt, pending};
use tonic::{Code, Request};

mod support;

#[tokio::test]
async fn a_message_over_the_limit_is_refused_by_its_receiver_and_taken_where_the_limit_is_raised() {
    let message = vec![7; 5_000_000];
    let raised = 2 * MAX_MESSAGE_BYTES;
    let refused = |status: tonic::Status| {
        assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
        let text = status.message();
        assert!(text.contains("message length too large") && text.contains("4194304"), "{text}");
    };

    // By the plugin.
    let (plugin, mut client) = start(&sample().arg("--default-limits")).await;
    refused(client.echo(message.clone()).await.unwrap_err());
    assert_eq!(client.echo(vec![1]).await.unwrap().into_inner(), [1]);
    plugin.shutdown().await;

    // By the host, of a plugin that takes more.
    let (plugin, mut client) = start(&sample()).await;
    refused(client.echo(message.clone()).await.unwrap_err());
    let mut client = client.max_decoding_message_size(raised);
    assert!(client.echo(message.clone()).await.unwrap().into_inner() == message);
    plugin.shutdown().await;
}

#[tokio::test]
async fn streams_that_nobody_reads_do_not_hold_up_other_calls() {
    let (plugin, mut client) = start(&sample()).await;
    let mut unread = Vec::new();
    for _ in 0..8 {
        // More than one stream may have unread, in either direction.
        let words = tokio_stream::iter(vec!["x".repeat(1 << 20); 6]).chain(pending());
        unread.push(client.chat(words).await.unwrap());
    }
    // One after the other, so that all that can be sent on the streams has been.
    for _ in 0..100 {
        let who = tokio::time::timeout(LIMIT, client.who(())).await.expect("an answer");
        assert_eq!(who.unwrap().into_inner(), "rust 1");
        assert!(client.echo(vec![7; 100_000]).await.unwrap().into_inner().len() == 100_000);
    }
    drop(unread);
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_long_error_text_reaches_the_host_whole() {
    let (plugin, mut client) = start(&sample()).await;
    let word = "word".repeat(25_000);
    let status = client.die(word.clone()).await.unwrap_err();
    assert_eq!(
        status.code(),
        Code::InvalidArgument,
        "{}",
        &status.message()[..200.min(status.message().len())]
    );
    assert!(status.message().contains(&word));
    plugin.shutdown().await;
}

#[tokio::test]
async fn long_metadata_reaches_the_plugin() {
    let (plugin, mut client) = start(&sample()).await;
    let mut request = Request::new(vec![1]);
    request.metadata_mut().insert("long", "x".repeat(100_000).parse().unwrap());
    assert_eq!(client.echo(request).await.unwrap().into_inner(), [1]);
    plugin.shutdown().await;
}
