//! What a server writes to its log.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use serde_json::Value;

/// The log of one server, read as it is written.
#[derive(Clone, Default)]
pub struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    reading: Arc<Mutex<()>>,
    hanging_up: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
}

impl Log {
    /// Reads `stderr` to its end or until [`Log::hang_up`], on a thread of its own.
    pub(crate) fn collect(stderr: impl Read + Send + 'static) -> Self {
        let log = Self::default();
        let writer = log.clone();
        thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                drop(writer.hold());
                writer.lock().push(String::from_utf8_lossy(&line).into_owned());
                if writer.hanging_up.load(Ordering::Relaxed) {
                    break;
                }
            }
            // The reader, and with it the pipe, is gone with the loop.
            writer.ended.store(true, Ordering::Relaxed);
        });
        log
    }

    /// Reads nothing, but for the next line, as long as the guard is there.
    pub fn hold(&self) -> MutexGuard<'_, ()> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the reading end after the next line.
    pub fn hang_up(&self) {
        self.hanging_up.store(true, Ordering::Relaxed);
    }

    /// Whether nobody reads any more.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// The lines so far that are JSON objects.
    pub fn lines(&self) -> Vec<Line> {
        self.lock().iter().filter_map(|text| Line::parse(text)).collect()
    }

    /// How many lines so far have this message.
    pub fn count(&self, message: &str) -> usize {
        self.lines().iter().filter(|line| line.message() == message).count()
    }

    /// How many lines so far tell of this event of the plugin.
    pub fn events(&self, event: &str) -> usize {
        self.lines().iter().filter(|line| line.event() == event).count()
    }

    /// The first line so far that `wanted` accepts.
    pub fn find(&self, wanted: impl Fn(&Line) -> bool) -> Option<Line> {
        self.lines().into_iter().find(wanted)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lock().iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// One line of the log.
pub struct Line(Value);

impl Line {
    fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(Value::is_object).map(Self)
    }

    /// `INFO`, `WARN` and so on.
    pub fn level(&self) -> &str {
        self.0["level"].as_str().unwrap_or_default()
    }

    /// The kind of event, of lines about the plugin's life.
    pub fn event(&self) -> &str {
        self.0["event"].as_str().unwrap_or_default()
    }

    /// A field that is a number.
    pub fn number(&self, field: &str) -> Option<u64> {
        self.0[field].as_u64()
    }

    /// What happened.
    pub fn message(&self) -> &str {
        self.0["message"].as_str().unwrap_or_default()
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
