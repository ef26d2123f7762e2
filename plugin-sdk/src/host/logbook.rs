//! What one plugin has said, whichever instance said it: kept for those who ask, and logged from a level on that can be changed
//! while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::SystemTime;

use tracing::Level;

use super::journal::{Journal, Limit, Weigh};

/// What is kept.
const LINES: Limit = Limit { entries: 2_000, bytes: 2 << 20 };

/// A line that a plugin has logged or printed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogLine {
    /// When it came.
    pub at: SystemTime,
    /// The process that said it.
    pub pid: Option<u32>,
    /// How important it is.
    pub level: Level,
    /// `None` for a line of the log; `stdout` or `stderr` for what was printed.
    pub stream: Option<&'static str>,
    /// The text, without control characters.
    pub message: String,
    /// The plugin's logger, if it said so.
    pub module: Option<String>,
    /// What else the line holds, as a JSON object.
    pub fields: Option<String>,
}

impl Weigh for LogLine {
    fn bytes(&self) -> usize {
        let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        size_of::<Self>() + self.message.len() + optional(&self.module) + optional(&self.fields)
    }
}

/// The lines of one plugin. Cheap to clone; all clones are one book.
#[derive(Debug, Clone)]
pub(crate) struct LogBook {
    pub(crate) lines: Journal<LogLine>,
    /// Severity from which on lines become events of the host.
    level: Arc<AtomicU8>,
}

impl LogBook {
    pub(crate) fn new(level: Level) -> Self {
        Self { lines: Journal::new(LINES), level: Arc::new(AtomicU8::new(severity(level))) }
    }

    /// Keeps a line, and says whether it is important enough to be logged.
    pub(crate) fn record(&self, line: LogLine) -> bool {
        let logged = severity(line.level) >= self.level.load(Ordering::Relaxed);
        self.lines.push(line);
        logged
    }

    /// Logs lines of this level and more important ones only.
    pub(crate) fn set_level(&self, level: Level) {
        self.level.store(severity(level), Ordering::Relaxed);
    }

    /// The least important level that is logged.
    pub(crate) fn level(&self) -> Level {
        let severity = self.level.load(Ordering::Relaxed);
        LEVELS.get(usize::from(severity)).copied().unwrap_or(Level::TRACE)
    }
}

const LEVELS: [Level; 5] = [Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR];

fn severity(level: Level) -> u8 {
    match level {
        Level::TRACE => 0,
        Level::DEBUG => 1,
        Level::INFO => 2,
        Level::WARN => 3,
        Level::ERROR => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_below_the_level_are_kept_and_not_logged() {
        let book = LogBook::new(Level::TRACE);
        let line = |level| LogLine {
            at: SystemTime::UNIX_EPOCH,
            pid: None,
            level,
            stream: None,
            message: "m".into(),
            module: None,
            fields: None,
        };
        assert!(book.record(line(Level::TRACE)));
        book.set_level(Level::WARN);
        assert_eq!(book.level(), Level::WARN);
        assert!(!book.record(line(Level::INFO)));
        assert!(book.record(line(Level::WARN)) && book.record(line(Level::ERROR)));
        assert_eq!(book.lines.kept().len(), 4);
    }
}
