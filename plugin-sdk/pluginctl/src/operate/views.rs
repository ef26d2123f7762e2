//! What the host says, for people.

use std::fmt::{Display, Write};

use plugin_sdk::control::{Crash, Event, Level, LogLine, Outcome, Plugin, State, plugin};

use super::order::OrderName;
use super::style::{Paint, Style};
use super::table::{Table, plain};
use super::time::{ago, moment, short, size, span};
use crate::escape::escaped;

/// Where there is nothing to say.
const NOTHING: &str = "-";

/// One row for each plugin.
pub(super) fn list(plugins: &[Plugin], style: Style) -> String {
    if plugins.is_empty() {
        return "the host has no plugins".to_owned();
    }
    let mut table =
        Table::new(style, ["NAME", "STATE", "PID", "VERSION", "RESTARTS", "UPTIME", "LAST FAILURE"]);
    for plugin in plugins {
        let instance = plugin.instance.as_ref();
        table.row([
            plain(escaped(&plugin.name)),
            state_cell(plugin),
            or_nothing(instance.and_then(|instance| instance.pid)),
            or_nothing(instance.map(|instance| instance.app_version)),
            plain(plugin.restarts),
            or_nothing(instance.and_then(|instance| ago(instance.since)).map(short)),
            or_nothing(plugin.last_failure.as_ref().map(|failure| escaped(&failure.summary).to_string())),
        ]);
    }
    table.text()
}

pub(super) fn state_cell(plugin: &Plugin) -> (Paint, String) {
    let state = state(plugin);
    (Paint::of(state), spoken(state).to_owned())
}

/// The state as people say it.
fn spoken(state: State) -> &'static str {
    match state {
        State::BackingOff => "backing off",
        State::GaveUp => "given up",
        other => other.word(),
    }
}

pub(super) fn or_nothing<T: ToString>(value: Option<T>) -> (Paint, String) {
    plain(value.map_or_else(|| NOTHING.to_owned(), |value| value.to_string()))
}

/// Width of the names of facts.
const NAME_WIDTH: usize = 14;

struct Page(String);

impl Page {
    fn fact(&mut self, name: &str, value: impl Display) {
        // Writing to a string does not fail.
        let line = format!("{name:<NAME_WIDTH$}{value}");
        let _ = writeln!(self.0, "{}", line.trim_end());
    }

    /// Without the last line end.
    fn text(mut self) -> String {
        self.0.truncate(self.0.trim_end_matches('\n').len());
        self.0
    }
}

/// All there is to know of one plugin.
pub(super) fn status(plugin: &Plugin, style: Style) -> String {
    let mut page = Page(String::new());
    page.fact("plugin", style.paint(Paint::Bold, escaped(&plugin.name)));
    let (paint, word) = state_cell(plugin);
    let reason =
        if plugin.reason.is_empty() { String::new() } else { format!(": {}", escaped(&plugin.reason)) };
    page.fact("state", format_args!("{}{reason}", style.paint(paint, word)));
    let for_long = ago(plugin.since).map(|ago| format!(", {} ago", short(ago))).unwrap_or_default();
    page.fact("since", format_args!("{}{for_long}", moment(plugin.since)));
    if let Some(attempt) = plugin.attempt.filter(|attempt| *attempt > 1) {
        let next = span(plugin.next_start_in).map(|next| format!(", in {}", short(next))).unwrap_or_default();
        page.fact("attempt", format_args!("{attempt}{next}"));
    }
    match &plugin.source {
        Some(plugin::Source::Program(program)) => page.fact("program", escaped(program)),
        Some(plugin::Source::Address(address)) => page.fact("attached to", escaped(address)),
        None => {}
    }
    if let Some(instance) = &plugin.instance {
        if let Some(pid) = instance.pid {
            page.fact("process", pid);
        }
        page.fact("version", instance.app_version);
        page.fact("address", escaped(&instance.address));
        if let Some(bytes) = instance.resident_bytes {
            page.fact("memory", size(bytes));
        }
        if let Some(time) = span(instance.cpu_time) {
            page.fact("cpu time", format_args!("{:.2}s", time.as_secs_f64()));
        }
    }
    page.fact("starts", plugin.starts);
    page.fact("restarts", plugin.restarts);
    page.fact("reloads", plugin.swaps);
    if let Some(failure) = &plugin.last_failure {
        page.fact("last failure", escaped(&failure.detail));
    }
    if let Some(failed) = &plugin.failed_reload {
        let long_ago = ago(failed.at).map(|ago| format!("{} ago: ", short(ago))).unwrap_or_default();
        page.fact("failed reload", format_args!("{long_ago}{}", escaped(&failed.detail)));
    }
    page.fact("crashes", plugin.crashes);
    page.fact("log level", level_word(plugin.log_level));
    page.text()
}

/// What an order has led to.
pub(super) fn outcome(order: OrderName, outcome: Outcome, plugin: &Plugin, style: Style) -> String {
    let name = style.paint(Paint::Bold, escaped(&plugin.name)).to_string();
    let now = now(plugin, style);
    match (outcome, order) {
        (Outcome::Accepted, _) => format!("the order to {} {name} was taken", order.verb()),
        (Outcome::Unchanged, OrderName::Enable) => format!("{name} was not disabled; it is {now}"),
        (Outcome::Unchanged, OrderName::Clear) => format!("{name} has nothing to be cleared; it is {now}"),
        (Outcome::Unchanged, _) => format!("{name} is {now} already"),
        (_, OrderName::Clear) => format!("the failures of {name} are forgotten; it is {now}"),
        (_, OrderName::Stop | OrderName::Disable) => format!("{name} is {now}"),
        _ => format!("{name} was {}; it is {now}", order.participle()),
    }
}

pub(super) fn now(plugin: &Plugin, style: Style) -> String {
    let (paint, word) = state_cell(plugin);
    let word = style.paint(paint, word);
    match plugin.instance.as_ref().map(|instance| (instance.pid, instance.app_version)) {
        Some((Some(pid), version)) => format!("{word} (process {pid}, version {version})"),
        Some((None, version)) => format!("{word} (version {version})"),
        None => word.to_string(),
    }
}

/// `2026-11-24T22:00:00.000Z WARN  module: message {"answer":42}`
pub(super) fn line(line: &LogLine, style: Style) -> String {
    let mut text = format!("{} {}", style.paint(Paint::Dim, moment(line.at)), level_cell(line.level, style));
    // Writing to a string does not fail.
    for label in [&line.stream, &line.module] {
        if !label.is_empty() {
            let _ = write!(text, " {}:", escaped(label));
        }
    }
    if !line.message.is_empty() {
        let _ = write!(text, " {}", escaped(&line.message));
    }
    if !line.fields.is_empty() {
        let _ = write!(text, " {}", style.paint(Paint::Dim, escaped(&line.fields)));
    }
    text
}

fn level_cell(level: i32, style: Style) -> String {
    let paint = match Level::try_from(level).unwrap_or_default() {
        Level::Error => Paint::Red,
        Level::Warn => Paint::Yellow,
        Level::Info => Paint::Green,
        Level::Debug | Level::Trace | Level::Unspecified => Paint::Dim,
    };
    style.paint(paint, format!("{:<5}", level_word(level).to_ascii_uppercase())).to_string()
}

/// `2026-11-24T22:00:00.000Z cache#5 failed to start: timed out`; the number is that of the instance.
pub(super) fn event(plugin: &str, event: &Event, style: Style) -> String {
    let paint = if event.warning { Paint::Yellow } else { Paint::Plain };
    let instance = event.instance.map(|number| format!("#{number}")).unwrap_or_default();
    format!(
        "{} {}{instance} {}",
        style.paint(Paint::Dim, moment(event.at)),
        style.paint(Paint::Bold, escaped(plugin)),
        style.paint(paint, escaped(&event.text)),
    )
}

/// One row for each crash.
pub(super) fn crashes(crashes: &[Crash], style: Style) -> String {
    if crashes.is_empty() {
        return "no crash is remembered".to_owned();
    }
    let mut table = Table::new(style, ["PLUGIN", "NUMBER", "AT", "PID", "UPTIME", "OPEN CALLS", "FAILURE"]);
    for crash in crashes {
        table.row([
            plain(escaped(&crash.plugin)),
            plain(crash.number),
            plain(moment(crash.at)),
            or_nothing(crash.pid),
            or_nothing(span(crash.uptime).map(short)),
            plain(crash.open_calls),
            plain(failure_of(crash)),
        ]);
    }
    table.text()
}

/// All that is known of one crash.
pub(super) fn whole_crash(crash: &Crash, style: Style) -> String {
    let mut page = Page(String::new());
    page.fact("plugin", style.paint(Paint::Bold, escaped(&crash.plugin)));
    page.fact("crash", crash.number);
    page.fact("at", moment(crash.at));
    page.fact("failure", style.paint(Paint::Red, failure_of(crash)));
    page.fact("instance", crash.instance);
    if let Some(pid) = crash.pid {
        page.fact("process", pid);
    }
    if !crash.program.is_empty() {
        page.fact("program", escaped(&crash.program));
    }
    if let Some(uptime) = span(crash.uptime) {
        page.fact("uptime", short(uptime));
    }
    page.fact("open calls", crash.open_calls);
    page.fact("stderr", if crash.stderr.is_empty() { "nothing" } else { "" });
    for line in &crash.stderr {
        let _ = writeln!(page.0, "  {}", escaped(line));
    }
    page.text()
}

fn failure_of(crash: &Crash) -> String {
    let summary = crash.failure.as_ref().map(|failure| failure.summary.as_str()).unwrap_or(NOTHING);
    let memory = if crash.out_of_memory { ", out of memory" } else { "" };
    format!("{}{memory}", escaped(summary))
}

/// `trace` and so on; empty for one of a later version.
pub(super) fn level_word(level: i32) -> &'static str {
    match Level::try_from(level).unwrap_or_default() {
        Level::Unspecified => "",
        Level::Trace => "trace",
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    }
}

pub(super) fn state(plugin: &Plugin) -> State {
    State::try_from(plugin.state).unwrap_or_default()
}
