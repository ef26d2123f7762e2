//! Plugins that misbehave: the true cause in one line, in bounded time.

use std::time::{Duration, Instant};

use crate::support::{Place, Ran};

fn inspect(mode: &str) -> Ran {
    let rogue = e2e::binary("rogue-plugin");
    let begun = Instant::now();
    let args = ["--cookie", "ANY=thing", "--start-timeout", "1500ms", "-o", "json", "--arg", mode];
    let ran =
        Place::new().run(["inspect".as_ref(), rogue.as_os_str()].into_iter().chain(args.map(AsRef::as_ref)));
    // One and a half seconds to start, twice two to stop, and room for a slow machine.
    assert!(begun.elapsed() < Duration::from_secs(20), "{mode} took {:?}", begun.elapsed());
    ran
}

#[test]
fn the_true_cause_of_a_failed_start_is_told() {
    for (mode, cause) in [
        ("rubbish", "not a handshake"),
        ("exit-before-handshake=3", "exit status 3"),
        ("silent", "no handshake line"),
        ("half-line", "has no end"),
        ("crash-after-handshake", "exit status 7"),
        ("close-stdout", "closed its stdout"),
        ("netrpc", "net/rpc"),
        ("app-version=9", "try --app-versions 9"),
        ("unasked-cert", "try --auto-mtls"),
        ("no-listen", "cannot connect"),
        ("deaf", "health check"),
        ("not-serving", "NOT_SERVING"),
    ] {
        let ran = inspect(mode);
        assert!(ran.failed().contains(cause), "{mode}: {}", ran.stderr);
        let report = &ran.json()[0];
        assert!(report["error"].is_string() && report["pid"].is_u64(), "{mode}: {report}");
    }
}

#[test]
fn what_was_seen_before_a_failure_is_reported() {
    let report = inspect("not-serving").json().remove(0);
    assert_eq!(report["handshake"]["protocol"], "grpc", "{report}");
    assert!(report["health"].as_str().is_some_and(|health| health.contains("NOT_SERVING")), "{report}");
    let report = inspect("exit-before-handshake=3").json().remove(0);
    assert_eq!(report["log"]["lines"][0]["message"], "the cache directory is not mounted", "{report}");
}

#[test]
fn a_rude_plugin_is_inspected_and_gone_all_the_same() {
    for (mode, health, stopped_by) in [
        ("ok", "SERVING", "shutdown"),
        ("no-health", "none", "shutdown"),
        ("ignore-term", "SERVING", "kill"),
        ("fork-grandchild", "SERVING", "shutdown"),
        ("flood-stdout", "SERVING", "shutdown"),
        ("flood-stderr", "SERVING", "shutdown"),
    ] {
        let ran = inspect(mode);
        assert_eq!(ran.code, Some(0), "{mode}: {}", ran.stderr);
        let report = &ran.json()[0];
        let seen = (&report["health"], &report["reflection"], &report["end"]["after"]);
        assert_eq!(seen, (&health.into(), &"none".into(), &stopped_by.into()), "{mode}");
    }
}
