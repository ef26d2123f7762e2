//! What goes on until something ends it.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout};

use e2e::process::signal;
use rustix::process::Signal;

use crate::host::{Host, Machine};

fn one() -> (Machine, Host) {
    let machine = Machine::new();
    let host = machine.start([machine.plugin("cache")]);
    (machine, host)
}

/// Reads lines until one has this part.
#[track_caller]
fn read_until(stdout: &mut BufReader<ChildStdout>, part: &str) -> String {
    loop {
        let mut line = String::new();
        assert!(stdout.read_line(&mut line).expect("it is text") > 0, "it ended before {part}");
        if line.contains(part) {
            return line;
        }
    }
}

fn reader(child: &mut Child) -> BufReader<ChildStdout> {
    BufReader::new(child.stdout.take().expect("it is piped"))
}

#[test]
fn logs_are_followed_until_the_host_ends() {
    let (machine, mut host) = one();
    let mut child = machine.begin("logs -f");
    let mut json = machine.begin("logs -f -o json");
    let (mut lines, mut objects) = (reader(&mut child), reader(&mut json));
    host.tell("log cache look");
    assert!(read_until(&mut lines, "look").contains("WARN"));
    let object: serde_json::Value = serde_json::from_str(&read_until(&mut objects, "look")).expect("JSON");
    assert_eq!((&object["level"], &object["fields"]["answer"]), (&"warn".into(), &42.into()));
    host.end();
    for child in [child, json] {
        let ran = machine.finish(child);
        assert_eq!(ran.code, Some(4), "{ran:?}");
        assert!(ran.stderr.contains("the host is stopping"), "{ran:?}");
    }
}

#[test]
fn events_are_followed_until_the_host_is_killed() {
    let (machine, host) = one();
    let mut child = machine.begin("events -f");
    let mut events = reader(&mut child);
    read_until(&mut events, "serving");
    machine.run("restart").worked();
    read_until(&mut events, "an operator orders: restart");
    drop(host);
    let ran = machine.finish(child);
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(ran.stderr.contains("the connection to the host broke"), "{ran:?}");
}

#[test]
fn a_signal_ends_what_goes_on_at_once() {
    let (machine, host) = one();
    for (line, sent, code) in [
        ("events -f", Signal::INT, 130),
        ("top --interval 1h", Signal::INT, 130),
        ("events -f", Signal::TERM, 143),
    ] {
        let mut child = machine.begin(line);
        let mut stdout = reader(&mut child);
        read_until(&mut stdout, "cache");
        signal(child.id(), sent);
        let ran = machine.finish(child);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(code), ""), "{line}");
    }
    host.end();
}

#[test]
fn a_reader_that_goes_away_is_no_fault() {
    let (machine, mut host) = one();
    let mut child = machine.begin("events -f");
    let mut events = reader(&mut child);
    read_until(&mut events, "serving");
    drop(events);
    host.tell("log cache x");
    machine.run("restart").worked();
    let ran = machine.finish(child);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(141), ""));
    host.end();
}

#[test]
fn top_shows_so_many_tables() {
    let (machine, host) = one();
    let text = machine.run("top --count 3 --interval 10ms").worked();
    assert_eq!(text.matches("CPU").count(), 3, "{text}");
    let lines = machine.run("top --count 2 --interval 10ms -o json").json();
    assert_eq!(lines.len(), 2);
    assert!(lines[0]["plugins"][0]["cpu_percent"].is_null());
    assert!(lines[1]["plugins"][0]["cpu_percent"].is_number());
    host.end();
}

#[test]
fn an_order_that_takes_too_long_is_given_all_the_same() {
    let (machine, host) = one();
    // It takes some seconds to end a plugin that stands still.
    let pid = &machine.run("status -o json").json()[0]["instance"]["pid"];
    signal(pid.as_u64().and_then(|pid| pid.try_into().ok()).expect("it has a process"), Signal::STOP);
    let ran = machine.run("restart --timeout 300ms");
    assert!(ran.failed().contains("not known within 300ms"), "{ran:?}");
    e2e::wait::wait_until("the restart", || machine.run("status").code == Some(0));
    assert!(machine.run("list -o json").json()[0]["plugins"][0]["starts"] == 2);
    host.end();
}
