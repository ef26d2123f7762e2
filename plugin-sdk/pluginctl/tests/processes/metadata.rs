//! What goes with messages: metadata in both directions, and what a status holds beside its text.

use serde_json::json;

use crate::sample::call;
use crate::support::{Place, Ran};

/// Calls `Chat`, which sends back metadata whose name begins with `mirror-`, and each message; and for the message
/// `fail` a status with details and metadata.
fn chat(message: &str, headers: &[&str], more: &str) -> Ran {
    let headers = headers.iter().flat_map(|header| ["-H".into(), header.into()]);
    Place::new().run(call("Chat", &format!("{message:?}"), more).into_iter().chain(headers))
}

/// Of every kind: with a colon in its value, twice, and bytes.
const HEADERS: [&str; 4] = ["Mirror-Path: a: b", "mirror-twice: 1", "mirror-twice: 2", "mirror-bin: AP8="];

#[test]
fn metadata_reaches_the_plugin_and_comes_back_in_its_headers() {
    let ran = chat("hello", &HEADERS, "-o json");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let [headers, message, end] = &ran.json()[..] else { panic!("{ran:?}") };
    for (name, values) in [
        ("mirror-path", json!(["a: b"])),
        ("mirror-twice", json!(["1", "2"])),
        ("mirror-bin", json!(["AP8="])),
    ] {
        assert_eq!(headers["headers"][name], values, "{headers}");
    }
    assert_eq!(message["message"], "hello");
    assert_eq!((&end["status"]["code"], &end["trailers"]), (&"OK".into(), &json!({})), "{end}");
}

#[test]
fn metadata_that_is_not_asked_for_is_not_there() {
    let ran = chat("hello", &["other: 1"], "-o json");
    assert!(ran.json()[0]["headers"]["other"].is_null(), "{ran:?}");
}

#[test]
fn people_read_metadata_on_stderr_if_they_want_it() {
    let ran = chat("hello", &HEADERS, "-v");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "\"hello\"\n"), "{ran:?}");
    for line in [
        "header mirror-path: a: b",
        "header mirror-twice: 1",
        "header mirror-twice: 2",
        "header mirror-bin: AP8=",
    ] {
        assert!(ran.stderr.lines().any(|said| said == line), "{line} is not in {}", ran.stderr);
    }
    assert_eq!(chat("hello", &HEADERS, "").worked(), "\"hello\"\n");
}

#[test]
fn a_failure_has_its_details_and_trailers() {
    let cause =
        "pluginctl: the plugin answered FAILED_PRECONDITION: as asked (1 detail: google.rpc.ErrorInfo)";
    assert_eq!(chat("fail", &[], "").failed(), cause);

    let ran = chat("fail", &HEADERS, "-v");
    let said: Vec<_> = ran.stderr.lines().collect();
    for line in ["header mirror-bin: AP8=", "trailer reason: on purpose", "trailer reason-bin: AP8="] {
        assert!(said.contains(&line), "{line} is not in {said:#?}");
    }
    assert_eq!((ran.code, said.last()), (Some(1), Some(&cause)));

    let ran = chat("fail", &HEADERS, "-o json");
    assert_eq!(ran.failed(), cause);
    let [headers, end] = &ran.json()[..] else { panic!("{ran:?}") };
    assert_eq!(headers["headers"]["mirror-bin"], json!(["AP8="]));
    let status = json!({
        "code": "FAILED_PRECONDITION",
        "number": 9,
        "message": "as asked",
        "details": ["google.rpc.ErrorInfo"],
    });
    assert_eq!(end["status"], status);
    let trailers = &end["trailers"];
    assert_eq!(
        (&trailers["reason"], &trailers["reason-bin"]),
        (&json!(["on purpose"]), &json!(["AP8="])),
        "{trailers}"
    );
}

#[test]
fn metadata_that_cannot_be_sent_is_a_usage_error_without_its_value() {
    for header in ["secret", "content-type: secret", "name-bin: secret!"] {
        let ran = chat("hello", &[header], "");
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(!ran.stderr.contains("secret"), "{ran:?}");
    }
}
