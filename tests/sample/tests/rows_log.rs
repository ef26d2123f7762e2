//! What a plugin says, on every way that it can, and what its host makes of it.

use std::io::Write;

use plugin_sdk::plugin::PluginBuilder;
use plugin_sdk::{InMemory, MagicCookie};
use sample_plugin::Greeter;
use sample_plugin::sample_server::SampleServer;
use support::logged::{Line, Logged};
use support::{contract, sample, script, start, until};
use tonic::service::Routes;
use tracing::Level;

mod support;

/// Longer than any line that is read as one.
const LONG: usize = 150_000;

/// Lets a plugin say `text` on stderr, until `lines` lines of it have been logged.
async fn on_stderr(text: &str, lines: usize) -> Vec<Line> {
    let logged = Logged::begin();
    let dir = tempfile::tempdir().expect("there is room");
    std::fs::write(dir.path().join("text"), text).expect("there is room");
    let launch = script(dir.path(), &format!("cat {}/text >&2; exec sleep 60", dir.path().display()));
    let starting = tokio::spawn(async move { launch.start().await });
    until("all lines are logged", async || logged.said("").len() >= lines).await;
    starting.abort();
    logged.said("")
}

#[tokio::test]
async fn each_line_of_stderr_is_an_event_at_its_own_level() {
    let cases = [
        ("plain text", Level::DEBUG, "plain text"),
        ("[WARN] tagged", Level::WARN, "[WARN] tagged"),
        ("[ERROR] tagged", Level::ERROR, "[ERROR] tagged"),
        (
            r#"{"@level":"info","@message":"an entry","@timestamp":"2026-01-02T03:04:05.000006Z"}"#,
            Level::INFO,
            "an entry",
        ),
        (r#"{"@level":"warn","@message":"odd time","@timestamp":"yesterday"}"#, Level::WARN, "odd time"),
        (
            r#"{"@level":"warn","@message":"three digits","@timestamp":"2026-01-02T03:04:05.006+01:00"}"#,
            Level::WARN,
            "three digits",
        ),
        (r#"{"@level":"error","@message":"no time"}"#, Level::ERROR, "no time"),
        (r#"{"some":"json"}"#, Level::DEBUG, r#"{"some":"json"}"#),
        (r#"{"@level":5,"@message":"x"}"#, Level::DEBUG, r#"{"@level":5,"@message":"x"}"#),
        (r#"{"@level":"info","@message":["x"]}"#, Level::DEBUG, r#"{"@level":"info","@message":["x"]}"#),
        (r#"{"@level":"info","@timestamp":7}"#, Level::DEBUG, r#"{"@level":"info","@timestamp":7}"#),
        ("panic: out of ideas", Level::ERROR, "panic: out of ideas"),
        ("goroutine 1 [running]:", Level::ERROR, "goroutine 1 [running]:"),
    ];
    let text: String = cases.iter().map(|(line, ..)| format!("{line}\n")).collect();
    let logged = on_stderr(&text, cases.len()).await;
    let found: Vec<_> = logged.iter().map(|line| (line.level, line.message())).collect();
    let expected: Vec<_> = cases.iter().map(|(_, level, message)| (*level, *message)).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn long_lines_come_whole_in_pieces_whatever_they_hold() {
    let entry = format!(r#"{{"@level":"error","@message":"{}"}}"#, "y".repeat(LONG));
    let text = "x".repeat(LONG);
    let logged = on_stderr(&format!("{text}\n{entry}\n[WARN] after\n"), 7).await;
    let (after, pieces) = logged.split_last().unwrap();
    assert_eq!((after.level, after.message()), (Level::WARN, "[WARN] after"));
    assert!(pieces.iter().all(|piece| piece.level == Level::DEBUG && piece.message().len() <= 64 * 1024));
    let joined: String = pieces.iter().map(Line::message).collect();
    // Quotation marks stay as they are in an event.
    assert!(joined == format!("{text}{entry}"), "{} of {} bytes", joined.len(), text.len() + entry.len());
}

#[tokio::test]
async fn an_entry_of_a_plugin_has_its_level_and_its_pairs_at_the_host() {
    let logged = Logged::begin();
    let (plugin, mut client) = start(&sample().name("talker")).await;
    client.log("something is odd".to_owned()).await.unwrap();
    let line = logged.line(|line| line.message() == "something is odd").await;
    assert_eq!((line.level, line.target.as_str()), (Level::WARN, "plugin"));
    assert_eq!((line.field("plugin"), line.field("module")), ("talker", "sample_plugin.service"));
    assert_eq!(line.field("fields"), r#"{"answer":42}"#);
    plugin.shutdown().await;
}

#[tokio::test]
async fn both_streams_of_stdio_arrive_as_they_were_written() {
    let logged = Logged::begin();
    let (tell, told) = std::sync::mpsc::channel();
    let cookie = MagicCookie::new("COOKIE", "value");
    let plugin = PluginBuilder::new(cookie).version(1, move |context| {
        tell.send((context.stdout(), context.stderr())).expect("the test is there");
        Routes::new(SampleServer::new(Greeter))
    });
    let running = InMemory::start(plugin, &contract(&[1])).await.unwrap();
    let (mut stdout, mut stderr) = told.recv().unwrap();
    let long = "z".repeat(5_000);
    // A line in two halves, with the other stream between them; one of several chunks; and one without its end.
    stdout.write_all(b"half a").unwrap();
    stderr.write_all(b"mind your ").unwrap();
    stdout.write_all(b" line\n").unwrap();
    stderr.write_all(b"step\n").unwrap();
    stdout.write_all(format!("{long}\n").as_bytes()).unwrap();
    stderr.write_all(b"unfinished").unwrap();
    logged.line(|line| line.message() == "half a line").await;
    // At the last moment, too.
    stdout.write_all(b"last words\n").unwrap();
    running.stop().await.unwrap();
    let said = |stream| logged.said(stream).iter().map(|line| line.message().to_owned()).collect::<Vec<_>>();
    assert_eq!(said("stdout"), ["half a line", long.as_str(), "last words"]);
    assert_eq!(said("stderr"), ["mind your step", "unfinished"]);
}

#[tokio::test]
async fn what_is_printed_last_is_not_lost() {
    for _ in 0..5 {
        let logged = Logged::begin();
        let (plugin, mut client) = start(&sample()).await;
        for number in 0..20 {
            client.print(number.to_string()).await.unwrap();
        }
        assert!(plugin.shutdown().await.is_success());
        let said: Vec<_> = logged.said("stdout").iter().map(|line| line.message().to_owned()).collect();
        let expected: Vec<_> = (0..20).map(|number| number.to_string()).collect();
        assert_eq!(said, expected);
    }
}

#[tokio::test]
async fn lines_that_a_handler_prints_without_a_pause_are_not_lost() {
    const LINES: usize = 20_000;
    let logged = Logged::begin();
    let (plugin, mut client) = start(&sample()).await;
    let mut request = tonic::Request::new("a line".to_owned());
    request.metadata_mut().insert("times", LINES.into());
    client.print(request).await.unwrap();
    until("all lines are logged", async || logged.said("stdout").len() == LINES).await;
    assert!(plugin.shutdown().await.is_success());
}

#[tokio::test]
async fn lines_that_a_handler_writes_without_a_pause_are_not_lost() {
    const LINES: usize = 60_000;
    let logged = Logged::begin();
    let (tell, told) = std::sync::mpsc::channel();
    let plugin = PluginBuilder::new(sample_plugin::cookie()).version(1, move |context| {
        tell.send(context.stdout()).expect("the test is there");
        Routes::new(SampleServer::new(Greeter))
    });
    let running = InMemory::start(plugin, &contract(&[1])).await.unwrap();
    let mut stdout = told.recv().unwrap();
    writeln!(stdout, "the first line").unwrap();
    until("the host to read", async || logged.said("stdout").len() == 1).await;
    // Nothing else of this thread goes on meanwhile, as in a plugin's only one.
    for number in 0..LINES {
        writeln!(stdout, "this is line {number}").unwrap();
    }
    // How much of it the end of a plugin waits for is limited in time.
    until("all lines are logged", async || logged.said("stdout").len() == 1 + LINES).await;
    running.stop().await.unwrap();
}
