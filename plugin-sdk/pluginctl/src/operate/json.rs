//! What the host says, for programs. Names and meanings stay; new names may come.

use plugin_sdk::control::{
    Crash, Event, Failure, Host, Instance, Level, LogLine, Plugin, State, failure, plugin,
};
use serde_json::{Map, Value, json};

use super::time::{ago, moment, span};
use super::views::level_word;

pub(super) fn host(host: &Host) -> Value {
    json!({"name": host.name, "pid": host.pid, "since": moment(host.since)})
}

/// What is not there is null.
pub(super) fn plugin(plugin: &Plugin) -> Value {
    let (program, address) = match &plugin.source {
        Some(plugin::Source::Program(program)) => (Some(program), None),
        Some(plugin::Source::Address(address)) => (None, Some(address)),
        None => (None, None),
    };
    json!({
        "name": plugin.name,
        "program": program,
        "attached_to": address,
        "state": state_word(plugin.state),
        "reason": some_text(&plugin.reason),
        "since": moment(plugin.since),
        "instance": plugin.instance.as_ref().map(instance),
        "attempt": plugin.attempt,
        "next_start_in_seconds": span(plugin.next_start_in).map(|span| span.as_secs_f64()),
        "last_failure": plugin.last_failure.as_ref().map(failure),
        "starts": plugin.starts,
        "restarts": plugin.restarts,
        "reloads": plugin.swaps,
        "crashes": plugin.crashes,
        "log_level": level_word(plugin.log_level),
        "failed_reload": plugin.failed_reload.as_ref().map(|failed| json!({
            "at": moment(failed.at),
            "detail": failed.detail,
        })),
    })
}

fn instance(instance: &Instance) -> Value {
    json!({
        "number": instance.number,
        "pid": instance.pid,
        "app_version": instance.app_version,
        "address": instance.address,
        "since": moment(instance.since),
        "uptime_seconds": ago(instance.since).map(|uptime| uptime.as_secs_f64()),
        "cpu_seconds": span(instance.cpu_time).map(|time| time.as_secs_f64()),
        "resident_bytes": instance.resident_bytes,
    })
}

fn failure(failure: &Failure) -> Value {
    let (code, signal) = match failure.exit {
        Some(failure::Exit::Code(code)) => (Some(code), None),
        Some(failure::Exit::Signal(signal)) => (None, Some(signal)),
        None => (None, None),
    };
    json!({"summary": failure.summary, "detail": failure.detail, "exit_code": code, "signal": signal})
}

pub(super) fn line(line: &LogLine) -> Value {
    json!({
        "number": line.number,
        "at": moment(line.at),
        "pid": line.pid,
        "level": level_word(line.level),
        "stream": some_text(&line.stream),
        "module": some_text(&line.module),
        "message": line.message,
        "fields": fields(&line.fields),
    })
}

/// The plugin's own pairs, as they came.
fn fields(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::Object(Map::new()))
}

pub(super) fn event(plugin: &str, event: &Event) -> Value {
    json!({
        "plugin": plugin,
        "number": event.number,
        "at": moment(event.at),
        "instance": event.instance,
        "kind": event.kind,
        "text": event.text,
        "warning": event.warning,
    })
}

pub(super) fn crash(crash: &Crash) -> Value {
    json!({
        "number": crash.number,
        "plugin": crash.plugin,
        "instance": crash.instance,
        "pid": crash.pid,
        "program": some_text(&crash.program),
        "at": moment(crash.at),
        "failure": crash.failure.as_ref().map(failure),
        "out_of_memory": crash.out_of_memory,
        "uptime_seconds": span(crash.uptime).map(|uptime| uptime.as_secs_f64()),
        "open_calls": crash.open_calls,
    })
}

/// With what was written to stderr.
pub(super) fn whole_crash(report: &Crash) -> Value {
    let mut value = crash(report);
    value["stderr"] = json!(report.stderr);
    value
}

pub(super) fn state_word(state: i32) -> &'static str {
    State::try_from(state).unwrap_or_default().word()
}

pub(super) fn level(level: Level) -> &'static str {
    level_word(level.into())
}

fn some_text(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}
