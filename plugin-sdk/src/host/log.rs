//! A plugin's log lines as `tracing` events of the host, at their own level.
//!
//! How a line is read is in the manual, `protocol`, and what its event looks like in `lifecycle`, under "What is logged".

use std::time::SystemTime;

use serde_json::{Map, Value};
use tracing::Level;

use super::logbook::{LogBook, LogLine};
use crate::process::{Piece, PieceKind};
use crate::report::escape;

/// Who says it.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) name: String,
    /// `None`: it is not known.
    pub(crate) pid: Option<u32>,
    /// Keeps what is said, if anybody wants it.
    pub(crate) book: Option<LogBook>,
}

impl Source {
    /// Keeps a line, and says whether it is to be logged.
    fn record(&self, line: impl FnOnce() -> LogLine) -> bool {
        self.book.as_ref().is_none_or(|book| book.record(line()))
    }

    /// The same of a line that is text alone.
    fn record_text(&self, level: Level, stream: Option<&'static str>, message: &str) -> bool {
        self.record(|| LogLine {
            at: SystemTime::now(),
            pid: self.pid,
            level,
            stream,
            message: message.to_owned(),
            module: None,
            fields: None,
        })
    }

    /// Tells where lines are missing because there were too many.
    pub(crate) fn note_gap(&self, lines: u64) {
        let message = format!("says more than can be logged: {lines} lines are left out");
        if self.record_text(Level::WARN, None, &message) {
            tracing::warn!(plugin = self.name, pid = self.pid, lines, "plugin: {message}");
        }
    }
}

/// Reads one plugin's stderr, line by line.
#[derive(Debug)]
pub(crate) struct LogReader {
    source: Source,
    panicking: bool,
}

/// One line, understood.
#[derive(Debug, PartialEq)]
struct Entry {
    level: Level,
    message: String,
    module: Option<String>,
    timestamp: Option<String>,
    fields: Map<String, Value>,
}

impl LogReader {
    pub(crate) fn new(source: Source) -> Self {
        Self { source, panicking: false }
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// Emits one event and gives its message back, for those who want to know what was said last.
    pub(crate) fn read(&mut self, piece: &Piece) -> String {
        let entry = self.entry(piece);
        emit(&self.source, &entry);
        entry.message
    }

    fn entry(&mut self, piece: &Piece) -> Entry {
        let text = String::from_utf8_lossy(&piece.bytes);
        match piece.kind {
            PieceKind::Whole => self.understand(&text),
            // A line too long to be held is never parsed.
            PieceKind::Part | PieceKind::LastPart => Entry::text(Level::DEBUG, &text),
        }
    }

    fn understand(&mut self, line: &str) -> Entry {
        match serde_json::from_str(line) {
            Ok(Value::Object(object)) if specials_are_text(&object) => {
                let entry = Entry::hclog(object);
                // What still writes log entries has survived its panic.
                self.panicking &= entry.is_none();
                entry.unwrap_or_else(|| Entry::text(Level::DEBUG, line))
            }
            Ok(Value::Null) => Entry::text(Level::DEBUG, line),
            _ => self.understand_text(line),
        }
    }

    fn understand_text(&mut self, line: &str) -> Entry {
        self.panicking |= line.starts_with("panic: ") || line.starts_with("fatal error: ");
        let tagged = TAGS.iter().find(|(tag, _)| line.starts_with(tag)).map(|(_, level)| *level);
        let untagged = if self.panicking { Level::ERROR } else { Level::DEBUG };
        Entry::text(tagged.unwrap_or(untagged), line)
    }
}

const TAGS: [(&str, Level); 5] = [
    ("[TRACE]", Level::TRACE),
    ("[DEBUG]", Level::DEBUG),
    ("[INFO]", Level::INFO),
    ("[WARN]", Level::WARN),
    ("[ERROR]", Level::ERROR),
];

/// Whether hclog's own keys hold text where they are there. In other cases go-plugin's host crashes.
fn specials_are_text(object: &Map<String, Value>) -> bool {
    ["@level", "@message", "@timestamp"].iter().all(|key| object.get(*key).is_none_or(Value::is_string))
}

impl Entry {
    fn text(level: Level, text: &str) -> Self {
        Self { level, message: escaped(text), module: None, timestamp: None, fields: Map::new() }
    }

    /// `None` where the level is missing, unknown or off.
    fn hclog(mut object: Map<String, Value>) -> Option<Self> {
        let mut text = |key: &str| match object.remove(key) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let level = match text("@level")?.trim().to_ascii_lowercase().as_str() {
            "trace" => Level::TRACE,
            "debug" => Level::DEBUG,
            "info" => Level::INFO,
            "warn" => Level::WARN,
            "error" => Level::ERROR,
            _ => return None,
        };
        let message = escaped(&text("@message").unwrap_or_default());
        let module = text("@module").map(|module| escaped(&module));
        let timestamp = text("@timestamp").map(|timestamp| escaped(&timestamp));
        Some(Self { level, message, module, timestamp, fields: object })
    }
}

/// A plugin must be able neither to forge a second log line nor to steer the operator's terminal.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    // Writing to a string does not fail.
    let _ = escape(text, &mut escaped);
    escaped
}

/// The text of a line, whatever it may mean.
pub(crate) fn text_of(piece: &Piece) -> String {
    escaped(&String::from_utf8_lossy(&piece.bytes))
}

/// Emits text that is not from stderr, such as the output of the stdio service.
pub(crate) fn emit_output(source: &Source, stream: &'static str, piece: &Piece) {
    let message = text_of(piece);
    if source.record_text(Level::INFO, Some(stream), &message) {
        tracing::info!(target: "plugin", plugin = source.name, pid = source.pid, stream, "{message}");
    }
}

fn emit(source: &Source, entry: &Entry) {
    let Source { name, pid, .. } = source;
    let fields = (!entry.fields.is_empty()).then(|| Value::Object(entry.fields.clone()).to_string());
    let logged = source.record(|| LogLine {
        at: SystemTime::now(),
        pid: *pid,
        level: entry.level,
        stream: None,
        message: entry.message.clone(),
        module: entry.module.clone(),
        fields: fields.clone(),
    });
    if !logged {
        return;
    }
    let (fields, module, message) = (fields.as_deref(), entry.module.as_deref(), &entry.message);
    let timestamp = entry.timestamp.as_deref();
    // The level of an event is part of its static description.
    macro_rules! emit {
        ($level:ident) => {
            tracing::event!(
                target: "plugin", Level::$level, plugin = name, pid, module, timestamp, fields, "{message}"
            )
        };
    }
    match entry.level {
        Level::TRACE => emit!(TRACE),
        Level::DEBUG => emit!(DEBUG),
        Level::INFO => emit!(INFO),
        Level::WARN => emit!(WARN),
        Level::ERROR => emit!(ERROR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader() -> LogReader {
        LogReader::new(Source { name: "test".into(), pid: Some(1), book: None })
    }

    fn understood(line: &str) -> Entry {
        reader().understand(line)
    }

    #[test]
    fn a_json_log_line_keeps_its_level_and_its_pairs() {
        let line = r#"{"@level":" WARN ","@message":"a\nb","@module":"x.y","@timestamp":"2026-01-01T00:00:00.000000Z","n":5,"deep":{"a":[1]}}"#;
        let pairs = [("n", 5.into()), ("deep", serde_json::json!({"a": [1]}))];
        let expected = Entry {
            level: Level::WARN,
            message: r"a\nb".into(),
            module: Some("x.y".into()),
            timestamp: Some("2026-01-01T00:00:00.000000Z".into()),
            fields: pairs.map(|(key, value)| (key.to_owned(), value)).into_iter().collect(),
        };
        assert_eq!(understood(line), expected);
        for (name, level) in [
            ("trace", Level::TRACE),
            ("debug", Level::DEBUG),
            ("info", Level::INFO),
            ("warn", Level::WARN),
            ("error", Level::ERROR),
        ] {
            assert_eq!(understood(&format!(r#"{{"@level":"{name}"}}"#)).level, level);
        }
    }

    #[test]
    fn the_pieces_of_an_over_long_json_line_are_raw_text_at_debug() {
        let entire = r#"{"@level":"error","@message":"x"}"#;
        for kind in [PieceKind::Part, PieceKind::LastPart] {
            for text in [entire, "panic: x", "[WARN] x"] {
                let entry = reader().entry(&Piece { bytes: text.into(), kind });
                assert_eq!(entry, Entry::text(Level::DEBUG, text));
            }
        }
    }

    #[test]
    fn json_that_is_no_log_entry_is_raw_text_at_debug() {
        for line in [
            "null",
            "5",
            "[1, 2]",
            r#""text""#,
            r#"{"a":"b"}"#,
            r#"{"@message":"no level"}"#,
            r#"{"@level":"loud","@message":"x"}"#,
            r#"{"@level":"off","@message":"x"}"#,
            r#"{"@level":"info"} trailing"#,
            &"[".repeat(10_000),
        ] {
            assert_eq!(understood(line), Entry::text(Level::DEBUG, line), "{line}");
        }
    }

    #[test]
    fn a_text_line_has_the_level_of_its_prefix() {
        for (line, level) in [
            ("hello", Level::DEBUG),
            ("", Level::DEBUG),
            ("[TRACE] x", Level::TRACE),
            ("[DEBUG] x", Level::DEBUG),
            ("[INFO] x", Level::INFO),
            ("[WARN] careful", Level::WARN),
            ("[ERROR]", Level::ERROR),
            (" [WARN] not at the start", Level::DEBUG),
            ("[warn] wrong case", Level::DEBUG),
        ] {
            assert_eq!(understood(line), Entry::text(level, line), "{line}");
        }
    }

    #[test]
    fn after_panic_output_all_lines_are_at_error_level_until_the_next_log_entry() {
        for first in ["panic: oh", "fatal error: all goroutines are asleep - deadlock!"] {
            let mut reader = reader();
            let lines = [
                ("before", Level::DEBUG),
                (first, Level::ERROR),
                ("goroutine 1 [running]:", Level::ERROR),
                (r#"{"no":"log entry"}"#, Level::DEBUG),
                ("still at it", Level::ERROR),
                ("[INFO] tagged", Level::INFO),
                (r#"{"@level":"info","@message":"alive"}"#, Level::INFO),
                ("after", Level::DEBUG),
            ];
            for (line, level) in lines {
                assert_eq!(reader.understand(line).level, level, "{line}");
            }
        }
    }

    #[test]
    fn special_keys_that_are_no_text_do_no_harm() {
        for key in ["@level", "@message", "@timestamp"] {
            for value in ["5", "null", "true", "[1]", r#"{"a":1}"#] {
                let line = format!(r#"{{"@level":"info","@message":"x","{key}":{value}}}"#);
                assert_eq!(understood(&line), Entry::text(Level::DEBUG, &line), "{line}");
            }
        }
        assert_eq!(understood(r#"{"@level":"info","@module":5}"#).level, Level::INFO);
    }

    #[test]
    fn a_timestamp_of_any_form_is_taken() {
        for timestamp in ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.123+0530", "yesterday", ""] {
            let line = format!(r#"{{"@level":"info","@message":"x","@timestamp":"{timestamp}"}}"#);
            let entry = understood(&line);
            assert_eq!((entry.level, entry.message.as_str()), (Level::INFO, "x"));
            assert_eq!(entry.timestamp.as_deref(), Some(timestamp));
        }
        assert_eq!(understood(r#"{"@level":"info"}"#).timestamp, None);
    }
}
