//! What the plugin logs, as `plugin-sdk` tells it by `tracing` events: kept for a report, or said at once.
//!
//! Warnings of `plugin-sdk` itself are always said.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;

use crate::talk::Talk;

/// Target of the events that are a plugin's lines.
const PLUGIN: &str = "plugin";

/// Bytes of log lines that are kept; the oldest go first.
const MAX_KEPT_BYTES: usize = 1 << 20;

/// What becomes of the plugin's lines.
#[derive(Debug, Clone)]
pub(crate) enum Sink {
    /// They are kept.
    Keep(Kept),
    /// They are said, one by one.
    Say,
    /// Nobody wants to see them.
    Ignore,
}

/// Collects events from now on, in the whole process.
pub(crate) fn collect(talk: Talk, sink: Sink) {
    // It fails only where there is a collector already, and this is called once.
    let _ = collector(talk, sink).try_init();
}

fn collector(talk: Talk, sink: Sink) -> impl Subscriber + Send + Sync {
    let wanted = Targets::new().with_target(PLUGIN, Level::TRACE).with_target("plugin_sdk", Level::WARN);
    Registry::default().with(Collector { talk, sink }.with_filter(wanted))
}

struct Collector {
    talk: Talk,
    sink: Sink,
}

impl<S: Subscriber> Layer<S> for Collector {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut line = Line::new(*event.metadata().level());
        event.record(&mut line);
        if event.metadata().target() != PLUGIN {
            return self.talk.say(format_args!("pluginctl: {}", line.message));
        }
        match &self.sink {
            Sink::Keep(kept) => kept.push(line),
            Sink::Say => self.talk.say(line),
            Sink::Ignore => {}
        }
    }
}

/// One line of a plugin, understood. Its texts have no control characters: `plugin-sdk` has escaped them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    level: Level,
    message: String,
    /// Name of the logger in the plugin.
    module: Option<String>,
    /// What else the line holds, an object.
    fields: Option<Value>,
    /// For what was printed and not logged: `stdout` or `stderr`.
    stream: Option<String>,
}

impl Line {
    fn new(level: Level) -> Self {
        Self { level, message: String::new(), module: None, fields: None, stream: None }
    }

    fn bytes(&self) -> usize {
        let texts = [Some(&self.message), self.module.as_ref(), self.stream.as_ref()];
        let fields = self.fields.as_ref().map_or(0, |fields| fields.to_string().len());
        size_of::<Self>() + texts.into_iter().flatten().map(String::len).sum::<usize>() + fields
    }

    /// As a part of a report.
    pub(crate) fn json(&self) -> Value {
        let Self { level, message, module, fields, stream } = self;
        json!({
            "level": level.as_str().to_ascii_lowercase(),
            "message": message,
            "module": module,
            "fields": fields,
            "stream": stream,
        })
    }
}

/// `WARN  module: message key=value`, or `stdout message`.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { level, message, module, fields, stream } = self;
        match stream {
            Some(stream) => write!(f, "{stream} ")?,
            None => write!(f, "{:<5} ", level.as_str())?,
        }
        if let Some(module) = module {
            write!(f, "{module}: ")?;
        }
        f.write_str(message)?;
        for (name, value) in fields.as_ref().and_then(Value::as_object).into_iter().flatten() {
            write!(
                f,
                " {}={}",
                crate::escape::escaped(name),
                crate::escape::escaped_json(&value.to_string())
            )?;
        }
        Ok(())
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "module" => self.module = Some(value.to_owned()),
            "stream" => self.stream = Some(value.to_owned()),
            "fields" => self.fields = serde_json::from_str(value).ok(),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }
}

/// The last lines, at most a mebibyte; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<Store>>);

#[derive(Debug, Default)]
struct Store {
    lines: VecDeque<Line>,
    bytes: usize,
    dropped: usize,
}

impl Kept {
    fn push(&self, line: Line) {
        let mut store = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        store.bytes += line.bytes();
        store.lines.push_back(line);
        while store.bytes > MAX_KEPT_BYTES {
            let Some(oldest) = store.lines.pop_front() else { break };
            store.bytes -= oldest.bytes();
            store.dropped += 1;
        }
    }

    /// What has been kept, the oldest first, and how many older lines were not.
    pub(crate) fn take(&self) -> (Vec<Line>, usize) {
        let store = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        (store.lines.into(), store.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_plugin_are_kept_as_they_were_understood() {
        let kept = Kept::default();
        let talk = Talk::start(std::io::sink()).unwrap();
        tracing::subscriber::with_default(collector(talk, Sink::Keep(kept.clone())), || {
            let (module, fields) = (Some("kv"), Some(r#"{"answer":42}"#));
            tracing::warn!(target: "plugin", plugin = "x", pid = 1, module, fields, "{}", "careful");
            tracing::trace!(target: "plugin", plugin = "x", pid = 1, module = None::<&str>, "tiny");
            tracing::info!(target: "plugin", plugin = "x", pid = 1, stream = "stdout", "printed");
            tracing::warn!(target: "plugin_sdk::host", "not a plugin's");
            tracing::warn!(target: "hyper", "not a plugin's");
        });
        let (lines, dropped) = kept.take();
        let texts: Vec<String> = lines.iter().map(Line::to_string).collect();
        assert_eq!(texts, ["WARN  kv: careful answer=42", "TRACE tiny", "stdout printed"]);
        assert_eq!(lines[0].json()["fields"]["answer"], 42);
        assert_eq!(dropped, 0);
    }

    #[test]
    fn no_more_is_kept_than_fits() {
        let kept = Kept::default();
        for number in 0..40_000 {
            let mut line = Line::new(Level::INFO);
            line.message = format!("{number:0100}");
            kept.push(line);
        }
        let (lines, dropped) = kept.take();
        assert_eq!(lines.len() + dropped, 40_000);
        assert!(lines.iter().map(Line::bytes).sum::<usize>() <= MAX_KEPT_BYTES && lines.len() > 1_000);
        assert!(lines[lines.len() - 1].message.ends_with("39999"));
    }
}
