//! A plugin's log lines as `tracing` events of the host, at their own level.
//!
//! The rules are go-plugin's: a JSON object with hclog's keys is taken apart; other text is an event at the level its
//! prefix names (`[WARN] ...`), or at debug; and after a line that begins a Go panic all text is at error level until the next JSON
//! line. All events have the target `plugin` and the fields `plugin`, `pid` and, of JSON lines, `module` and `fields`
//! (whatever else the line holds, as JSON).

use serde_json::{Map, Value};
use tracing::Level;

use crate::process::{Piece, PieceKind};
use crate::report::escape;

/// Who says it.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) name: String,
    /// `None`: it is not known.
    pub(crate) pid: Option<u32>,
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
    fields: Map<String, Value>,
}

impl LogReader {
    pub(crate) fn new(source: Source) -> Self {
        Self { source, panicking: false }
    }

    /// Emits one event and gives its message back, for those who want to know what was said last.
    pub(crate) fn read(&mut self, piece: &Piece) -> String {
        let text = String::from_utf8_lossy(&piece.bytes);
        let entry = match piece.kind {
            PieceKind::Whole => self.understand(&text),
            // A line too long to be held is never parsed.
            PieceKind::Part | PieceKind::LastPart => Entry::text(Level::DEBUG, &text),
        };
        emit(&self.source, &entry);
        entry.message
    }

    fn understand(&mut self, line: &str) -> Entry {
        if let Ok(value @ (Value::Object(_) | Value::Null)) = serde_json::from_str(line) {
            let entry = match value {
                Value::Object(object) if specials_are_text(&object) => {
                    self.panicking = false;
                    Some(Entry::hclog(object).unwrap_or_else(|| Entry::text(Level::DEBUG, line)))
                }
                Value::Object(_) => None,
                _ => Some(Entry::text(Level::DEBUG, line)),
            };
            if let Some(entry) = entry {
                return entry;
            }
        }
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
        Self { level, message: escaped(text), module: None, fields: Map::new() }
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
        // The host's own time stamp is on the event.
        text("@timestamp");
        Some(Self { level, message, module, fields: object })
    }
}

/// A plugin must be able neither to forge a second log line nor to steer the operator's terminal.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    // Writing to a string does not fail.
    let _ = escape(text, &mut escaped);
    escaped
}

/// Emits text that is not from stderr, such as the output of the stdio service.
pub(crate) fn emit_output(source: &Source, stream: &str, piece: &Piece) {
    let message = escaped(&String::from_utf8_lossy(&piece.bytes));
    tracing::info!(target: "plugin", plugin = source.name, pid = source.pid, stream, "{message}");
}

fn emit(source: &Source, entry: &Entry) {
    let Source { name, pid } = source;
    let fields = (!entry.fields.is_empty()).then(|| Value::Object(entry.fields.clone()).to_string());
    let (fields, module, message) = (fields.as_deref(), entry.module.as_deref(), &entry.message);
    // The level of an event is part of its static description.
    macro_rules! emit {
        ($level:ident) => {
            tracing::event!(target: "plugin", Level::$level, plugin = name, pid, module, fields, "{message}")
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
        LogReader::new(Source { name: "test".into(), pid: Some(1) })
    }

    #[test]
    fn hclog_lines_are_taken_apart() {
        let line = r#"{"@level":" WARN ","@message":"a\nb","@module":"x.y","@timestamp":"2026-01-01T00:00:00.000000Z","n":5}"#;
        let entry = reader().understand(line);
        let fields = Map::from_iter([("n".to_owned(), Value::from(5))]);
        let expected =
            Entry { level: Level::WARN, message: r"a\nb".into(), module: Some("x.y".into()), fields };
        assert_eq!(entry, expected);
    }

    #[test]
    fn other_lines_are_text_at_a_level() {
        for (line, level) in [
            ("hello", Level::DEBUG),
            ("[WARN] careful", Level::WARN),
            (" [WARN] not at the start", Level::DEBUG),
            ("[warn] wrong case", Level::DEBUG),
            ("[1, 2]", Level::DEBUG),
            ("null", Level::DEBUG),
            (r#"{"@level":"loud","@message":"x"}"#, Level::DEBUG),
            (r#"{"@level":"off","@message":"x"}"#, Level::DEBUG),
            (r#"{"@message":"no level"}"#, Level::DEBUG),
            (r#"{"@level":"info","@message":5}"#, Level::DEBUG),
            (r#"{"@level":["info"]}"#, Level::DEBUG),
            (r#"{"@level":"info"} trailing"#, Level::DEBUG),
        ] {
            assert_eq!(reader().understand(line), Entry::text(level, line), "{line}");
        }
    }

    #[test]
    fn a_go_panic_is_at_error_level_until_the_next_json_line() {
        let mut reader = reader();
        let levels: Vec<Level> = [
            "before",
            "panic: oh",
            "goroutine 1 [running]:",
            "[INFO] tagged",
            r#"{"@level":"info","@message":"alive"}"#,
            "after",
        ]
        .map(|line| reader.understand(line).level)
        .to_vec();
        let expected = [Level::DEBUG, Level::ERROR, Level::ERROR, Level::INFO, Level::INFO, Level::DEBUG];
        assert_eq!(levels, expected);
    }
}
