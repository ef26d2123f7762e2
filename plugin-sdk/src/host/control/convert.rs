//! What the supervisor publishes, as messages.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;
use tonic::Status;
use tracing::Level;

use super::usage::Usage;
use crate::control::{
    Crash, Event as EventMessage, FailedReload, Failure as FailureMessage, Instance, Level as LevelMessage,
    LogLine as LineMessage, Plugin, Reason, State, failure, plugin,
};
use crate::host::{
    CrashReport, Event, ExitKind, Failure, Live, LogLine, Numbered, OrderError, PluginHandle, PluginState,
    SourceInfo,
};

/// How much of the last failure, and of the last reload that has failed, is in a plugin's status, in bytes. All of it is in the crash.
const DETAIL_BYTES: usize = 4 << 10;

/// A plugin as it is now.
pub(super) fn plugin(handle: &PluginHandle) -> Plugin {
    let status = handle.status().borrow().clone();
    let source = match status.source {
        SourceInfo::Program(program) => plugin::Source::Program(program.display().to_string()),
        SourceInfo::Address(address) => plugin::Source::Address(address.to_string()),
    };
    let (attempt, next_start_in) = match &status.state {
        PluginState::Starting { attempt } => (Some(*attempt), None),
        PluginState::BackingOff { attempt, retry_at, .. } => {
            let wait = retry_at.saturating_duration_since(tokio::time::Instant::now());
            (Some(*attempt), duration(wait))
        }
        _ => (None, None),
    };
    let last_failure = status.last_failure.as_ref().map(|failure| {
        let mut message = failure_message(failure);
        message.detail = begin_of(&message.detail, DETAIL_BYTES).to_owned();
        message
    });
    Plugin {
        name: status.name.to_string(),
        source: Some(source),
        state: state(&status.state).into(),
        reason: reason(&status.state),
        since: Some(status.since.into()),
        instance: status.state.live().map(instance),
        attempt,
        next_start_in,
        last_failure,
        starts: status.starts,
        restarts: status.restarts,
        swaps: status.swaps,
        crashes: u32::try_from(handle.crashes().len()).unwrap_or(u32::MAX),
        log_level: level_message(handle.log_level()).into(),
        failed_reload: status.failed_reload.map(|failed| FailedReload {
            at: Some(failed.at.into()),
            detail: begin_of(&failed.why.detail(), DETAIL_BYTES).to_owned(),
        }),
    }
}

/// As much of a text as fits into so many bytes.
fn begin_of(text: &str, bytes: usize) -> &str {
    let fits = |(at, character): &(usize, char)| at + character.len_utf8() <= bytes;
    let end = text.char_indices().take_while(fits).last().map_or(0, |(at, last)| at + last.len_utf8());
    &text[..end]
}

fn state(state: &PluginState) -> State {
    match state {
        PluginState::Starting { .. } => State::Starting,
        PluginState::Serving(_) => State::Serving,
        PluginState::Degraded { .. } => State::Degraded,
        PluginState::Stopping => State::Stopping,
        PluginState::BackingOff { .. } => State::BackingOff,
        PluginState::GaveUp { .. } => State::GaveUp,
        PluginState::Stopped(_) => State::Stopped,
        PluginState::Disabled => State::Disabled,
    }
}

fn reason(state: &PluginState) -> String {
    match state {
        PluginState::Degraded { why, .. } => why.to_string(),
        PluginState::GaveUp { why, .. } => why.to_string(),
        PluginState::Stopped(why) => why.to_string(),
        _ => String::new(),
    }
}

fn instance(live: &Live) -> Instance {
    let usage = live.pid.map(Usage::of).unwrap_or_default();
    Instance {
        number: live.instance,
        pid: live.pid,
        app_version: live.app_version.get(),
        address: live.address.to_string(),
        since: Some(live.since_time.into()),
        cpu_time: usage.cpu_time.and_then(duration),
        resident_bytes: usage.resident_bytes,
    }
}

fn failure_message(failure: &Failure) -> FailureMessage {
    let exit = failure.exit().and_then(|exit| match exit.status {
        ExitKind::Code(code) => Some(failure::Exit::Code(code)),
        ExitKind::Signal { number, .. } => Some(failure::Exit::Signal(number)),
        _ => None,
    });
    FailureMessage { summary: failure.to_string(), detail: failure.detail(), exit }
}

/// A crash without what was written to stderr.
pub(super) fn crash(report: &Numbered<CrashReport>) -> Crash {
    let Numbered { number, entry } = report;
    Crash {
        number: *number,
        plugin: entry.plugin.to_string(),
        instance: entry.instance,
        pid: entry.pid,
        program: entry.program.as_ref().map(|program| program.display().to_string()).unwrap_or_default(),
        at: Some(entry.at.into()),
        failure: Some(failure_message(&entry.failure)),
        out_of_memory: entry.out_of_memory,
        uptime: entry.uptime.and_then(duration),
        open_calls: entry.open_calls as u64,
        stderr: Vec::new(),
    }
}

pub(super) fn line(line: Numbered<LogLine>) -> LineMessage {
    let Numbered { number, entry } = line;
    LineMessage {
        number,
        at: Some(entry.at.into()),
        pid: entry.pid,
        level: level_message(entry.level).into(),
        stream: entry.stream.unwrap_or_default().to_owned(),
        message: entry.message,
        module: entry.module.unwrap_or_default(),
        fields: entry.fields.unwrap_or_default(),
    }
}

pub(super) fn event(event: &Numbered<Event>) -> EventMessage {
    let Numbered { number, entry } = event;
    EventMessage {
        number: *number,
        at: Some(entry.at.into()),
        instance: entry.instance,
        kind: entry.what.name().to_owned(),
        text: entry.what.to_string(),
        warning: entry.what.is_warning(),
    }
}

pub(super) fn refusal(error: &OrderError) -> Status {
    let reason = match error {
        OrderError::Disabled => Reason::Disabled,
        OrderError::NotOurs => Reason::NotOurs,
        OrderError::Busy => Reason::Busy,
        OrderError::NotStarted(_) => Reason::NotStarted,
        OrderError::Ended(_) => Reason::Ended,
        OrderError::Unwell(_) => Reason::Unwell,
        OrderError::OlderVersion { .. } => Reason::OlderVersion,
        OrderError::Superseded => Reason::Superseded,
        OrderError::Gone => Reason::HostStopping,
    };
    reason.status(error.detail())
}

pub(super) fn level_message(level: Level) -> LevelMessage {
    match level {
        Level::TRACE => LevelMessage::Trace,
        Level::DEBUG => LevelMessage::Debug,
        Level::INFO => LevelMessage::Info,
        Level::WARN => LevelMessage::Warn,
        Level::ERROR => LevelMessage::Error,
    }
}

/// `None`: it is not specified.
pub(super) fn level(message: i32) -> Result<Option<Level>, Status> {
    let message = LevelMessage::try_from(message)
        .map_err(|_| Reason::BadRequest.status(format!("there is no level {message}")))?;
    Ok(match message {
        LevelMessage::Unspecified => None,
        LevelMessage::Trace => Some(Level::TRACE),
        LevelMessage::Debug => Some(Level::DEBUG),
        LevelMessage::Info => Some(Level::INFO),
        LevelMessage::Warn => Some(Level::WARN),
        LevelMessage::Error => Some(Level::ERROR),
    })
}

/// From when on; without a time, from the beginning.
pub(super) fn since(timestamp: Option<Timestamp>) -> Result<SystemTime, Status> {
    let Some(timestamp) = timestamp else { return Ok(SystemTime::UNIX_EPOCH) };
    SystemTime::try_from(timestamp)
        .map_err(|_| Reason::BadRequest.status("`since` is a time that the host cannot have"))
}

fn duration(duration: Duration) -> Option<prost_types::Duration> {
    duration.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        for (bytes, expected) in [(0, ""), (1, "a"), (2, "a"), (3, "aü"), (4, "aüb"), (9, "aüb")] {
            assert_eq!(begin_of("aüb", bytes), expected);
        }
    }
}
