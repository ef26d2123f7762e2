//! What the supervisor has decided or seen, and why: one event for each.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{Degradation, Failure, GiveUpReason, StopReason};
use crate::host::StderrTail;
use crate::host::journal::{Journal, Limit, Weigh};
use crate::report::counted;

/// Something that happened to a plugin.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Event {
    /// When.
    pub at: SystemTime,
    /// To which instance, if there is one.
    pub instance: Option<u64>,
    /// What. Shown, it is one line of English.
    pub what: EventKind,
}

/// What can happen to a plugin.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is its name and what it shows")]
pub enum EventKind {
    Ordered { order: &'static str, by: OrderedBy },
    Refused { order: &'static str, why: String },
    FileChanged,
    Wanted,
    Starting { attempt: u32 },
    Serving { pid: Option<u32>, app_version: u32, after: Duration },
    StartFailed { failure: Failure },
    Ended { failure: Failure, open_calls: usize, stderr_tail: StderrTail },
    Degraded { why: Degradation },
    Recovered,
    BackingOff { attempt: u32, delay: Duration },
    GaveUp { why: GiveUpReason },
    Stopping,
    Stopped { why: StopReason },
    Disabled,
    SwapStarted { program: Option<PathBuf> },
    SwapSettling { pid: Option<u32>, settle: Duration },
    SwapFailed { why: String },
    Swapped { pid: Option<u32> },
    Drained { open_calls: usize },
    WarmUpFailed { why: String },
    CrashFile { path: PathBuf },
}

/// Who gives an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OrderedBy {
    /// The host's own program, by a [`PluginHandle`](super::PluginHandle).
    Host,
    /// Somebody at the other end of a control socket.
    Operator,
}

impl fmt::Display for OrderedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "the host",
            Self::Operator => "an operator",
        })
    }
}

impl EventKind {
    /// Its kind in one word, for machines: `serving`, `start-failed`, `gave-up` and so on.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ordered { .. } => "ordered",
            Self::Refused { .. } => "refused",
            Self::FileChanged => "file-changed",
            Self::Wanted => "wanted",
            Self::Starting { .. } => "starting",
            Self::Serving { .. } => "serving",
            Self::StartFailed { .. } => "start-failed",
            Self::Ended { .. } => "ended",
            Self::Degraded { .. } => "degraded",
            Self::Recovered => "recovered",
            Self::BackingOff { .. } => "backing-off",
            Self::GaveUp { .. } => "gave-up",
            Self::Stopping => "stopping",
            Self::Stopped { .. } => "stopped",
            Self::Disabled => "disabled",
            Self::SwapStarted { .. } => "swap-started",
            Self::SwapSettling { .. } => "swap-settling",
            Self::SwapFailed { .. } => "swap-failed",
            Self::Swapped { .. } => "swapped",
            Self::Drained { .. } => "drained",
            Self::WarmUpFailed { .. } => "warm-up-failed",
            Self::CrashFile { .. } => "crash-file",
        }
    }

    /// Whether an operator should look at it.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        match self {
            Self::StartFailed { .. }
            | Self::Degraded { .. }
            | Self::GaveUp { .. }
            | Self::SwapFailed { .. }
            | Self::WarmUpFailed { .. }
            | Self::Ended { .. } => true,
            Self::Drained { open_calls } => *open_calls > 0,
            _ => false,
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ordered { order, by } => write!(f, "{by} orders: {order}"),
            Self::Refused { order, why } => write!(f, "{order} was refused: {why}"),
            Self::FileChanged => f.write_str("its file has changed"),
            Self::Wanted => f.write_str("a call needs it"),
            Self::Starting { attempt: 1 } => f.write_str("starting"),
            Self::Starting { attempt } => write!(f, "starting, attempt {attempt}"),
            Self::Serving { app_version, after, .. } => {
                write!(f, "serving version {app_version}, {after:.1?} after its start")
            }
            Self::StartFailed { failure } => write!(f, "failed to start: {}", failure.detail()),
            Self::Ended { failure, open_calls: 0, stderr_tail } => write!(f, "{failure}{stderr_tail}"),
            Self::Ended { failure, open_calls, stderr_tail } => {
                write!(f, "{failure}, with {} open{stderr_tail}", counted(*open_calls as u64, "call"))
            }
            Self::Degraded { why } => write!(f, "not well: {why}"),
            Self::Recovered => f.write_str("well again"),
            Self::BackingOff { attempt, delay } => write!(f, "attempt {attempt} in {delay:.1?}"),
            Self::GaveUp { why } => write!(f, "given up: {why}"),
            Self::Stopping => f.write_str("stopping"),
            Self::Stopped { why } => write!(f, "stopped: {why}"),
            Self::Disabled => f.write_str("disabled"),
            Self::SwapStarted { program: None } => f.write_str("starting a new instance beside the old one"),
            Self::SwapStarted { program: Some(program) } => {
                write!(f, "starting {} beside the old instance", program.display())
            }
            Self::SwapSettling { settle, .. } => {
                write!(f, "the new instance has to be well for {settle:.1?}")
            }
            Self::SwapFailed { why } => write!(f, "the reload has failed, and nothing has changed: {why}"),
            Self::Swapped { .. } => f.write_str("the new instance has taken over"),
            Self::Drained { open_calls: 0 } => f.write_str("all calls to the old instance have ended"),
            Self::Drained { open_calls } => {
                let were = if *open_calls == 1 { "was" } else { "were" };
                let calls = counted(*open_calls as u64, "call");
                write!(f, "{calls} to the old instance {were} broken off")
            }
            Self::WarmUpFailed { why } => write!(f, "the new instance was not warmed up: {why}"),
            Self::CrashFile { path } => write!(f, "crash report in {}", path.display()),
        }
    }
}

impl Weigh for Event {
    fn bytes(&self) -> usize {
        let text = match &self.what {
            EventKind::Refused { why, .. }
            | EventKind::SwapFailed { why }
            | EventKind::WarmUpFailed { why } => why.len(),
            EventKind::StartFailed { failure } => failure.text_bytes(),
            EventKind::Ended { failure, stderr_tail, .. } => failure.text_bytes() + stderr_tail.bytes(),
            EventKind::SwapStarted { program: Some(path) } | EventKind::CrashFile { path } => {
                path.as_os_str().len()
            }
            _ => 0,
        };
        size_of::<Self>() + text
    }
}

/// What is kept of events.
pub(super) const EVENTS: Limit = Limit { entries: 1_000, bytes: 1 << 20 };

/// Notes and logs events.
#[derive(Debug)]
pub(super) struct Recorder {
    name: std::sync::Arc<str>,
    pub(super) journal: Journal<Event>,
    starts: Starts,
}

/// What the starts since an instance served last have led to.
#[derive(Debug)]
enum Starts {
    /// None has failed.
    Fine,
    /// They fail. It comes again with every attempt, so it is told once a minute.
    Failing {
        /// In which way the last one did.
        how: String,
        /// When that was warned of.
        warned: Instant,
        /// Whether it was by the last one already.
        told_before: bool,
    },
}

/// How an event is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    /// An operator should look at it.
    Warning,
    News,
    /// What was told a moment ago.
    Repetition,
}

/// Least time between two warnings of the same failure to start.
const BETWEEN_WARNINGS: Duration = Duration::from_secs(60);

impl Recorder {
    pub(super) fn new(name: std::sync::Arc<str>) -> Self {
        Self { name, journal: Journal::new(EVENTS), starts: Starts::Fine }
    }

    pub(super) fn note(&mut self, instance: Option<u64>, pid: Option<u32>, what: EventKind) {
        let plugin = &*self.name;
        // The level of an event is part of its static description.
        macro_rules! log {
            ($level:ident) => {
                $level!(plugin, pid, instance, event = what.name(), "plugin: {what}")
            };
        }
        match self.starts.weigh(&what, Instant::now()) {
            Weight::Warning => log!(warn),
            Weight::News => log!(info),
            Weight::Repetition => log!(debug),
        }
        self.journal.push(Event { at: SystemTime::now(), instance, what });
    }
}

impl Starts {
    fn weigh(&mut self, what: &EventKind, now: Instant) -> Weight {
        match (&mut *self, what) {
            (Self::Failing { how, warned, told_before }, EventKind::StartFailed { failure })
                if *how == failure.to_string()
                    && now.saturating_duration_since(*warned) < BETWEEN_WARNINGS =>
            {
                *told_before = true;
                return Weight::Repetition;
            }
            (_, EventKind::StartFailed { failure }) => {
                *self = Self::Failing { how: failure.to_string(), warned: now, told_before: false };
            }
            (Self::Failing { .. }, EventKind::Starting { attempt: 2.. })
            | (Self::Failing { told_before: true, .. }, EventKind::BackingOff { .. }) => {
                return Weight::Repetition;
            }
            (_, EventKind::Serving { .. } | EventKind::Swapped { .. }) => *self = Self::Fine,
            _ => {}
        }
        if what.is_warning() { Weight::Warning } else { Weight::News }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::host::{LaunchError, StderrTail};

    #[test]
    fn what_a_plugin_has_said_last_counts_as_a_part_of_the_event() {
        let stderr_tail = StderrTail { lines: vec!["x".repeat(500); 200], diagnosis: None };
        let failure = Failure::Start(Arc::new(LaunchError::StdoutClosed { stderr_tail }));
        let what = EventKind::StartFailed { failure };
        let event = Event { at: SystemTime::now(), instance: None, what };
        assert!(event.bytes() > 200 * 500, "{} bytes", event.bytes());
    }

    #[test]
    fn of_starts_that_fail_in_the_same_way_the_first_is_told_and_then_one_a_minute() {
        let start = Instant::now();
        let mut starts = Starts::Fine;
        let mut attempt = |number, second, error| {
            let now = start + Duration::from_secs(second);
            let failure = Failure::Start(Arc::new(error));
            let delay = Duration::from_secs(1);
            [
                EventKind::Starting { attempt: number },
                EventKind::StartFailed { failure },
                EventKind::BackingOff { attempt: number + 1, delay },
            ]
            .map(|what| starts.weigh(&what, now))
        };
        let [closed, no_version] =
            [|| LaunchError::StdoutClosed { stderr_tail: StderrTail::default() }, || LaunchError::NoVersion];
        let (warning, news, repetition) = (Weight::Warning, Weight::News, Weight::Repetition);
        assert_eq!(attempt(1, 0, closed()), [news, warning, news]);
        assert_eq!(attempt(2, 1, closed()), [repetition; 3]);
        assert_eq!(attempt(3, 59, closed()), [repetition; 3]);
        assert_eq!(attempt(4, 60, closed()), [repetition, warning, news]);
        assert_eq!(attempt(5, 61, closed()), [repetition; 3]);
        assert_eq!(attempt(6, 62, no_version()), [repetition, warning, news], "another way is news");
        // Somebody has ordered it.
        assert_eq!(attempt(1, 63, no_version()), [news, repetition, repetition]);
        let serving = EventKind::Serving { pid: None, app_version: 1, after: Duration::ZERO };
        assert_eq!(starts.weigh(&serving, start), news);
        let ended = EventKind::Starting { attempt: 2 };
        assert_eq!(starts.weigh(&ended, start), news, "the start after an end is told");
    }
}
