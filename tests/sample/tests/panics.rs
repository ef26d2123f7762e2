//! A handler that panics: an answer for its caller, a line in the host's log, and nothing else.

mod events;

use events::{Events, Seen};
use plugin_sdk::host::{Contract, ExitKind, Launch};
use sample_plugin::sample_client::SampleClient;
use tonic::Code;
use tracing::Level;

fn launch() -> Launch {
    Launch::new(env!("CARGO_BIN_EXE_sample-plugin"), Contract::new(sample_plugin::cookie(), [1]))
}

fn is_panic(seen: &Seen) -> bool {
    seen.message().starts_with("panic: ")
}

#[tokio::test]
async fn a_panic_in_a_handler_is_an_internal_status_and_one_error_line_and_the_plugin_lives_on() {
    let (events, _guard) = Events::collect();
    let plugin = launch().start().await.unwrap();
    let mut client = SampleClient::new(plugin.channel());

    let status = client.die("panic the\nend".to_owned()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Internal, r"the handler panicked: the\nend"));
    assert_eq!(client.echo(vec![1]).await.unwrap().into_inner(), [1]);

    let line = events.until(is_panic).await;
    assert_eq!((line.level, line.message()), (Level::ERROR, r"panic: the\nend"));
    let fields: serde_json::Value = serde_json::from_str(&line.fields["fields"]).unwrap();
    let location = fields["location"].as_str().unwrap();
    let (file, number) = location.rsplit_once(':').unwrap();
    assert!(file.ends_with("src/main.rs") && number.parse::<u32>().is_ok(), "{location}");
    assert_eq!(fields["thread"], "main");
    assert!(fields.get("backtrace").is_none());
    assert_eq!(plugin.shutdown().await.status, ExitKind::Code(0));
    assert_eq!(events.seen().iter().filter(|seen| seen.level == Level::ERROR).count(), 1);
}

#[tokio::test]
async fn a_panic_is_logged_with_its_backtrace_where_that_is_asked_for() {
    let (events, _guard) = Events::collect();
    let plugin = launch().env("RUST_BACKTRACE", "1").start().await.unwrap();
    let mut client = SampleClient::new(plugin.channel());
    assert!(client.die("panic".to_owned()).await.is_err());
    let line = events.until(is_panic).await;
    let fields: serde_json::Value = serde_json::from_str(&line.fields["fields"]).unwrap();
    assert!(fields["backtrace"].as_str().unwrap().contains("sample"), "{fields}");
    plugin.shutdown().await;
}

#[tokio::test]
async fn the_longest_panic_is_one_line_and_one_status() {
    let (events, _guard) = Events::collect();
    let plugin = launch().start().await.unwrap();
    let mut client = SampleClient::new(plugin.channel());
    let status = client.die(format!("panic {}", "\u{1}".repeat(1_000_000))).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    let line = events.until(is_panic).await;
    assert_eq!(line.level, Level::ERROR);
    assert!(line.fields["fields"].contains("location"), "{line:?}");
    plugin.shutdown().await;
}
