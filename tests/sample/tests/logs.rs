//! What a plugin writes to stderr, in the host's log and in the copy of it, and what the host says of it itself.

use std::sync::{Arc, Mutex};

use plugin_sdk::host::{LaunchError, Supervisor};
use rustix::process::Signal;
use sample_plugin::sample_client::SampleClient;
use support::logged::{Line, Logged};
use support::{sample, script, signal};
use tracing::Level;

mod support;

#[tokio::test]
async fn stderr_becomes_events_with_all_they_hold_and_a_raw_copy() {
    let logged = Logged::begin();
    let entry = r#"{"@level":"warn","@message":"careful","@module":"m","@timestamp":"2026-01-02T03:04:05.000006Z","n":5}"#;
    let over_long = format!(r#"{{"@level":"error","@message":"{}"}}"#, "x".repeat(70_000));
    let text = format!("text\n\n{entry}\n{over_long}\nunfinished");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("text"), &text).unwrap();

    let copied = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&copied);
    let launch = script(dir.path(), &format!("cat {}/text >&2; exit 3", dir.path().display()))
        .name("noisy")
        .stderr_copy(move |bytes| sink.lock().unwrap().extend_from_slice(bytes));
    let error = launch.start().await.unwrap_err();
    assert!(matches!(error, LaunchError::Exited { .. }), "{error:?}");

    assert!(*copied.lock().unwrap() == format!("{text}\n").as_bytes());
    let lines = logged.said("");
    let said: Vec<_> = lines.iter().map(|line| (line.level, line.message())).collect();
    let expected = [
        (Level::DEBUG, "text"),
        (Level::DEBUG, ""),
        (Level::WARN, "careful"),
        (Level::DEBUG, &over_long[..65_536]),
        (Level::DEBUG, &over_long[65_536..]),
        (Level::DEBUG, "unfinished"),
    ];
    assert!(said == expected, "{said:#?}");
    let fields = ["plugin", "module", "timestamp", "fields"].map(|name| lines[2].field(name));
    assert_eq!(fields, ["noisy", "m", "2026-01-02T03:04:05.000006Z", r#"{"n":5}"#]);
}

#[tokio::test]
async fn the_end_of_a_plugin_is_logged_with_what_it_has_said_last() {
    let logged = Logged::begin();
    let plugin = Supervisor::launch(sample().name("talkative")).start();
    plugin.ready().await.unwrap();
    let mut client = SampleClient::new(plugin.channel());
    client.log("the index\u{1b}[31m is damaged".to_owned()).await.unwrap();
    assert!(client.die("abort".to_owned()).await.is_err());
    let ended = logged.line(|line| line.field("event") == "ended").await;
    assert_eq!(ended.level, Level::WARN);
    let end = ended.message().strip_prefix("plugin: exited: signal 6 (SIGABRT)").expect("it was killed so");
    assert!(
        end.contains(r#"; its stderr ends with "#) && end.ends_with(r#""the index\u{1b}[31m is damaged""#),
        "{end}"
    );
    plugin.shutdown().await;
}

#[tokio::test]
async fn reports_that_cannot_be_written_are_told_at_once_and_with_each_crash() {
    let logged = Logged::begin();
    let supervisor = Supervisor::launch(sample().name("unlucky")).crash_dir("/no/such/directory");
    assert!(supervisor.check().is_err());
    let plugin = supervisor.start();
    let of_reports = |line: &Line| line.message().starts_with("crash reports cannot be written: ");
    let first = logged.line(of_reports).await;
    assert_eq!((first.level, first.field("plugin")), (Level::WARN, "unlucky"));
    assert!(first.message().contains("/no/such/directory: No such file"), "{}", first.message());

    let live = plugin.ready().await.unwrap();
    signal(live.pid.unwrap(), Signal::KILL);
    let second = logged.line(|line| line.message() == "a crash report cannot be written").await;
    assert_eq!((second.level, second.field("plugin")), (Level::WARN, "unlucky"));
    plugin.shutdown().await;
}
