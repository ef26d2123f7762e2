//! The sample plugin, as an author would look at it.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use e2e::process::{children_of, is_running, signal};
use e2e::wait::{wait_for, wait_until};
use rustix::process::Signal;

use crate::support::{Place, Ran, words};

const PROTO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/sample/proto/sample/v1/sample.proto");

const COOKIE: &str = "SAMPLE_PLUGIN=a-sample-plugin-for-tests";

fn inspect(more: &str) -> Vec<OsString> {
    let start = ["inspect".into(), e2e::binary("sample-plugin").into(), "--cookie".into(), COOKIE.into()];
    start.into_iter().chain(words(more).into_iter().map(OsString::from)).collect()
}

pub(crate) fn call(method: &str, data: &str, more: &str) -> Vec<OsString> {
    let plugin = e2e::binary("sample-plugin");
    let method = format!("sample.v1.Sample/{method}");
    let start: [OsString; 9] = [
        "call".into(),
        plugin.into(),
        method.into(),
        "--cookie".into(),
        COOKIE.into(),
        "--proto".into(),
        PROTO.into(),
        "--data".into(),
        data.into(),
    ];
    start.into_iter().chain(words(more).into_iter().map(OsString::from)).collect()
}

fn run(args: Vec<OsString>) -> Ran {
    Place::new().run(args)
}

#[test]
fn inspect_shows_the_whole_life() {
    let text = run(inspect("--app-versions 7,2,1")).worked();
    for part in [
        "core version  1",
        "app version   2",
        "network       unix",
        "SERVING",
        "exit status 0",
        "after Shutdown",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let ran = run(inspect("--arg --tcp -o json"));
    let report = &ran.json()[0];
    assert_eq!(report["handshake"]["network"], "tcp", "{report}");
    assert_eq!(
        (&report["health"], &report["end"]["after"]),
        (&"SERVING".into(), &"shutdown".into()),
        "{report}"
    );
    assert!(report["first_rpc_ms"].as_f64() >= report["handshake"]["after_ms"].as_f64(), "{report}");
}

#[test]
fn inspect_shows_the_certificate() {
    let ran = run(inspect("--auto-mtls --multiplex -o json"));
    let handshake = &ran.json()[0]["handshake"];
    assert_eq!(handshake["certificate"]["key"], "ECDSA P-256", "{handshake}");
    assert_eq!(handshake["certificate"]["fingerprint_sha256"].as_str().map(str::len), Some(64));
    assert_eq!(handshake["multiplexing"], true);
}

#[test]
fn inspect_shows_services_and_methods() {
    let ran = run(inspect("-o json"));
    let report = &ran.json()[0];
    let services = report["services"].as_array().expect("services are listed");
    let sample = services.iter().find(|service| service["name"] == "sample.v1.Sample").expect("it is there");
    let chat = sample["methods"].as_array().into_iter().flatten().find(|method| method["name"] == "Chat");
    let chat = chat.expect("it is described");
    assert_eq!((&chat["client_streaming"], &chat["server_streaming"]), (&true.into(), &true.into()));
}

#[test]
fn a_call_gives_the_answer_as_json() {
    assert_eq!(run(call("Who", "{}", "--app-versions 3")).worked(), "\"rust 3\"\n");
    assert_eq!(run(call("Echo", r#""AP8=""#, "--auto-mtls --multiplex")).worked(), "\"AP8=\"\n");
}

#[test]
fn messages_are_streamed_both_ways() {
    assert_eq!(run(call("Chat", r#""a" "b""c""#, "")).worked(), "\"a\"\n\"b\"\n\"c\"\n");
    assert_eq!(run(call("Chat", "", "")).worked(), "");
    let lines = run(call("Chat", r#""a""#, "-o json")).json();
    assert_eq!(lines[1]["message"], "a");
    assert_eq!(lines[2]["status"]["code"], "OK");
}

#[test]
fn each_message_goes_as_soon_as_it_is_read() {
    let place = Place::new();
    let mut child = place.start(call("Chat", "-", ""));
    let mut input = child.stdin.take().expect("it is piped");
    let mut answers = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    for word in ["\"one\"", "\"two\""] {
        writeln!(input, "{word}").expect("it reads");
        let answer = answers.next().expect("it answers").expect("it is text");
        assert_eq!(answer, word);
    }
    drop(input);
    place.finish(child).worked();
}

#[test]
fn half_of_the_messages_are_not_taken_for_the_whole() {
    let place = Place::new();
    let file = place.path().join("data.json");
    std::fs::write(&file, "\"one\" {").expect("it can be written");
    let ran = place.run(call("Chat", &format!("@{}", file.display()), "-o json"));
    assert!(ran.failed().contains("--data is not JSON"), "{ran:?}");
    assert!(ran.json().iter().all(|line| line.get("status").is_none()), "{ran:?}");
}

#[test]
fn a_status_of_the_plugin_is_shown_as_such() {
    let ran = run(call("Env", r#""NO_SUCH_VARIABLE""#, ""));
    assert_eq!(ran.failed(), "pluginctl: the plugin answered NOT_FOUND: not set");
    let ran = run(call("Env", r#""NO_SUCH_VARIABLE""#, "-o json"));
    assert_eq!(ran.code, Some(1));
    let status = &ran.json()[0]["status"];
    assert_eq!((&status["code"], &status["number"]), (&"NOT_FOUND".into(), &5.into()), "{status}");
}

#[test]
fn the_environment_is_passed_on_unless_it_is_cleaned() {
    let place = Place::new();
    let with_variable = |more: &str| {
        let mut command = place.command(call("Env", r#""OF_THE_CALLER""#, more));
        e2e::run_with(command.env("OF_THE_CALLER", "1"))
    };
    assert_eq!(with_variable("").stdout, b"\"1\"\n");
    assert_eq!(with_variable("--clean-env").status.code(), Some(1));
    assert_eq!(with_variable("--clean-env --env OF_THE_CALLER=2").stdout, b"\"2\"\n");
}

#[test]
fn values_of_variables_are_never_shown() {
    for args in [
        inspect("--env TOKEN=hunter2"),
        inspect("--env TOKEN=hunter2 -o json"),
        call("Who", "{}", "-v --env TOKEN=hunter2"),
    ] {
        let ran = run(args);
        assert_eq!(ran.code, Some(0));
        assert!(!format!("{ran:?}").contains("hunter2"), "{ran:?}");
    }
}

#[test]
fn what_the_plugin_logs_is_shown_when_asked_for() {
    let ran = run(call("Log", r#""look""#, "-v"));
    assert!(ran.stderr.contains("WARN") && ran.stderr.contains("look answer=42"), "{ran:?}");
    assert_eq!(run(call("Log", r#""look""#, "")).worked(), "{}\n");
}

#[test]
fn the_end_of_the_plugin_is_the_cause_of_a_call_that_broke_off() {
    let ran = run(call("Die", r#""exit 7""#, ""));
    assert!(ran.failed().contains("the plugin ended by itself: exit status 7"), "{ran:?}");
}

#[test]
fn a_call_has_a_time_limit() {
    let ran = run(call("Hang", "{}", "--timeout 300ms"));
    assert_eq!(ran.failed(), "pluginctl: the call was not complete within 300ms");
}

#[test]
fn a_plugin_that_stands_still_is_ended() {
    let ran = run(call("Die", r#""stop""#, "--timeout 300ms"));
    assert!(ran.failed().contains("not complete within 300ms"), "{ran:?}");
}

#[test]
fn a_wrong_service_or_method_is_told_with_what_there_is() {
    let ran = run(call("Nosuch", "{}", ""));
    assert!(ran.failed().contains("it has Echo, Chat, Who"), "{ran:?}");
}

#[test]
fn a_service_that_is_not_described_is_not_said_to_be_missing() {
    let plugin = e2e::binary("sample-plugin");
    let start =
        ["call".into(), plugin.into(), "sample.v1.Sample/Who".into(), "--cookie".into(), COOKIE.into()];
    let asked = |more: &str| {
        let start: [OsString; 5] = start.clone();
        run(start.into_iter().chain(words(more).into_iter().map(OsString::from)).collect())
    };
    let ran = asked("--arg --undescribed");
    let said = ran.failed();
    assert!(
        said.contains("reflection has no service sample.v1.Sample, it has grpc.health.v1.Health"),
        "{said}"
    );
    assert!(said.contains("--proto"), "{said}");
    // It is there.
    asked(&format!("--arg --undescribed --proto {PROTO}")).worked();
    let other = PROTO.replace("tests/sample/proto/sample/v1/sample.proto", "proto/cache/v1/cache.proto");
    let ran = asked(&format!("--proto {other}"));
    assert!(
        ran.failed().contains("the .proto files have no service sample.v1.Sample, they have cache"),
        "{ran:?}"
    );
}

#[test]
fn a_signal_stops_the_plugin_too() {
    for (sent, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let place = Place::new();
        let child = place.start(call("Chat", "-", ""));
        let plugin = wait_for("the plugin to run", || children_of(child.id()).first().copied());
        signal(child.id(), sent);
        let ran = place.finish(child);
        assert_eq!(ran.code, Some(code), "{ran:?}");
        wait_until("the plugin to be gone", || !is_running(plugin));
    }
}

#[test]
fn a_reader_that_goes_away_is_no_fault_and_stops_the_plugin() {
    let place = Place::new();
    let mut child = place.start(call("Chat", "-", ""));
    let mut input = child.stdin.take().expect("it is piped");
    input.write_all(b"\"one\"\n").expect("it reads");
    let mut stdout = child.stdout.take().expect("it is piped");
    let mut answer = [0; 6];
    stdout.read_exact(&mut answer).expect("it answers");
    drop(stdout);
    input.write_all(b"\"two\"\n").expect("it reads");
    let ran = place.finish(child);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(141), ""));
}

#[test]
fn a_relative_path_starts_at_the_working_directory() {
    let place = Place::new();
    let here = place.path().join("here");
    std::os::unix::fs::symlink(e2e::binary("sample-plugin"), &here).expect("it can be made");
    assert!(Path::new(&here).exists());
    let ran = place.run(words(&format!("inspect here --cookie {COOKIE}")));
    assert!(ran.worked().contains("SERVING"));
}
