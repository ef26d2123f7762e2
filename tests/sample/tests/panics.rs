//! A handler that panics: an answer for its caller, a line in the host's log, and nothing else.

use serde_json::Value;
use support::logged::{Line, Logged};
use support::{sample, start};
use tonic::Code;
use tracing::Level;

mod support;

fn is_panic(line: &Line) -> bool {
    line.message().starts_with("panic: ")
}

fn fields(line: &Line) -> Value {
    serde_json::from_str(line.field("fields")).expect("fields are JSON")
}

#[tokio::test]
async fn a_panic_in_a_handler_is_an_internal_status_and_one_error_line_and_the_plugin_lives_on() {
    let logged = Logged::begin();
    let (plugin, mut client) = start(&sample()).await;

    let status = client.die("panic the\nend".to_owned()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Internal, r"the handler panicked: the\nend"));
    assert_eq!(client.echo(vec![1]).await.unwrap().into_inner(), [1]);

    let line = logged.line(is_panic).await;
    assert_eq!((line.level, line.message()), (Level::ERROR, r"panic: the\nend"));
    let fields = fields(&line);
    let (file, number) = fields["location"].as_str().unwrap().rsplit_once(':').unwrap();
    assert!(file.ends_with("src/service.rs") && number.parse::<u32>().is_ok(), "{fields}");
    assert_eq!(fields["thread"], "main");
    assert!(fields.get("backtrace").is_none());
    assert!(plugin.shutdown().await.is_success());
    assert_eq!(logged.said("").iter().filter(|line| line.level == Level::ERROR).count(), 1);
}

#[tokio::test]
async fn a_panic_is_logged_with_its_backtrace_where_that_is_asked_for() {
    let logged = Logged::begin();
    let (plugin, mut client) = start(&sample().env("RUST_BACKTRACE", "1")).await;
    assert!(client.die("panic".to_owned()).await.is_err());
    let fields = fields(&logged.line(is_panic).await);
    assert!(fields["backtrace"].as_str().unwrap().contains("sample"), "{fields}");
    plugin.shutdown().await;
}

#[tokio::test]
async fn the_longest_panic_is_one_line_and_one_status() {
    let logged = Logged::begin();
    let (plugin, mut client) = start(&sample()).await;
    let status = client.die(format!("panic {}", "\u{1}".repeat(1_000_000))).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    let line = logged.line(is_panic).await;
    assert_eq!(line.level, Level::ERROR);
    assert!(fields(&line)["location"].is_string());
    plugin.shutdown().await;
}
