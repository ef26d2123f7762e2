//! What a plugin writes to stderr, in the host's log and in the copy of it.

mod events;

use std::sync::{Arc, Mutex};

use events::Events;
use plugin_sdk::host::{Contract, Launch, LaunchError};
use sample_plugin::sample_client::SampleClient;
use tracing::Level;

#[tokio::test]
async fn stderr_becomes_events_at_their_level_and_a_raw_copy() {
    let (events, _guard) = Events::collect();
    let entry = r#"{"@level":"warn","@message":"careful","@module":"m","@timestamp":"2026-01-02T03:04:05.000006Z","n":5}"#;
    let over_long = format!(r#"{{"@level":"error","@message":"{}"}}"#, "x".repeat(70_000));
    let said =
        format!("text\n{entry}\n[INFO] tagged\n{over_long}\n{{\"no\":\"entry\"}}\npanic: oh\ngoroutine 1");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("said");
    std::fs::write(&path, &said).unwrap();

    let copied = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&copied);
    let contract = Contract::new(sample_plugin::cookie(), [1]);
    let error = Launch::new("/bin/sh", contract)
        .args(["-c", "cat \"$0\" >&2; exit 3"])
        .arg(&path)
        .name("noisy")
        .stderr_copy(move |bytes| sink.lock().unwrap().extend_from_slice(bytes))
        .start()
        .await
        .unwrap_err();
    assert!(matches!(error, LaunchError::Exited { .. }), "{error:?}");

    assert!(*copied.lock().unwrap() == format!("{said}\n").as_bytes());
    let seen = events.seen();
    let said: Vec<_> = seen.iter().map(|seen| (seen.level, seen.message())).collect();
    let expected = [
        (Level::DEBUG, "text"),
        (Level::WARN, "careful"),
        (Level::INFO, "[INFO] tagged"),
        (Level::DEBUG, &over_long[..65_536]),
        (Level::DEBUG, &over_long[65_536..]),
        (Level::DEBUG, r#"{"no":"entry"}"#),
        (Level::ERROR, "panic: oh"),
        (Level::ERROR, "goroutine 1"),
    ];
    assert!(said == expected, "{said:#?}");
    let fields = &seen[1].fields;
    assert_eq!(fields["plugin"], "noisy");
    assert_eq!(fields["module"], "m");
    assert_eq!(fields["timestamp"], "2026-01-02T03:04:05.000006Z");
    assert_eq!(fields["fields"], r#"{"n":5}"#);
}

#[tokio::test]
async fn an_event_of_a_plugin_is_an_event_of_its_host() {
    let (events, _guard) = Events::collect();
    let contract = Contract::new(sample_plugin::cookie(), [1]);
    let plugin = Launch::new(env!("CARGO_BIN_EXE_sample-plugin"), contract).start().await.unwrap();
    SampleClient::new(plugin.channel()).log("a\nb".to_owned()).await.unwrap();
    let seen = events.until(|seen| seen.message() == r"a\nb").await;
    assert_eq!(seen.level, Level::WARN);
    assert_eq!(seen.fields["fields"], r#"{"answer":42}"#);
    assert_eq!(seen.fields["module"], "sample_plugin");
    assert!(seen.fields["timestamp"].ends_with('Z'));
    plugin.shutdown().await;
}
