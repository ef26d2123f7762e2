//! A call's deadline reaches the plugin, which cancels the handler then.

use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::Signal;
use sample_plugin::sample_client::SampleClient;
use support::{pid, sample, signal, socket, start, until};
use tokio::net::UnixStream;
use tonic::transport::Channel;
use tonic::{Code, Request};

mod support;

/// Long enough for a call to reach its handler, on a machine that is busy.
const DEADLINE: Duration = Duration::from_millis(500);

async fn until_one_is_cancelled(client: &mut SampleClient<Channel>) {
    until("the handler is cancelled", async || {
        client.cancelled(()).await.expect("the plugin answers").into_inner() == 1
    })
    .await;
}

#[tokio::test]
async fn a_deadline_cancels_the_handler() {
    let (plugin, mut client) = start(&sample()).await;
    let mut request = Request::new(());
    request.set_timeout(DEADLINE);
    let status = client.hang(request).await.unwrap_err();
    // tonic's client has its own clock, and usually its own word for it.
    assert!(matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded), "{status:?}");
    until_one_is_cancelled(&mut client).await;
    assert_eq!(client.echo(vec![1]).await.unwrap().into_inner(), [1]);
    plugin.shutdown().await;
}

#[tokio::test]
async fn the_plugin_keeps_a_deadline_by_itself_and_says_so() {
    let (plugin, mut client) = start(&sample()).await;
    // A client that does nothing about its deadline but to tell it.
    let stream = TokioIo::new(UnixStream::connect(socket(&plugin)).await.unwrap());
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let request = tonic::codegen::http::Request::post("http://localhost/sample.v1.Sample/Hang")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "500m")
        .body("\0\0\0\0\0".to_owned())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], (Code::DeadlineExceeded as i32).to_string().as_str());
    until_one_is_cancelled(&mut client).await;
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_response_stream_ends_at_the_deadline() {
    let (plugin, mut client) = start(&sample()).await;
    let mut request = Request::new(tokio_stream::pending::<String>());
    request.set_timeout(DEADLINE);
    let mut answers = client.chat(request).await.unwrap().into_inner();
    let status = answers.message().await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_plugin_that_was_too_busy_to_see_calls_come_and_go_keeps_its_connection() {
    let (plugin, mut client) = start(&sample()).await;
    signal(pid(&plugin), Signal::STOP);
    for _ in 0..2_000 {
        assert!(tokio::time::timeout(Duration::from_micros(200), client.hang(())).await.is_err());
    }
    signal(pid(&plugin), Signal::CONT);
    assert_eq!(client.echo(vec![1]).await.unwrap().into_inner(), [1]);
    plugin.shutdown().await;
}
