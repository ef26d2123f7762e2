//! What a host has logged, for its test to look at.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::until;

/// One event.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) level: Level,
    pub(crate) target: String,
    fields: BTreeMap<&'static str, String>,
}

impl Line {
    /// A field, empty if it is not there.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    pub(crate) fn message(&self) -> &str {
        self.field("message")
    }
}

/// All events of this thread, and so of all tasks of a test's own run time, for as long as it lives.
pub(crate) struct Logged {
    lines: Arc<Mutex<Vec<Line>>>,
    _guard: DefaultGuard,
}

impl Logged {
    /// Begins to take notes.
    pub(crate) fn begin() -> Self {
        let lines = Arc::default();
        let subscriber = tracing_subscriber::registry().with(Notes(Arc::clone(&lines)));
        Self { lines, _guard: tracing::subscriber::set_default(subscriber) }
    }

    /// All so far.
    pub(crate) fn lines(&self) -> Vec<Line> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the plugin has said so far on stderr, or on the named stream of its stdio service.
    pub(crate) fn said(&self, stream: &str) -> Vec<Line> {
        let of_stream = |line: &Line| line.target == "plugin" && line.field("stream") == stream;
        self.lines().into_iter().filter(of_stream).collect()
    }

    /// Waits for the first line for which `fits` holds.
    pub(crate) async fn line(&self, fits: impl Fn(&Line) -> bool) -> Line {
        let mut found = None;
        until("the line is logged", async || {
            found = self.lines().into_iter().find(&fits);
            found.is_some()
        })
        .await;
        found.expect("it was waited for")
    }
}

struct Notes(Arc<Mutex<Vec<Line>>>);

impl<S: Subscriber> Layer<S> for Notes {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line =
            Line { level: *metadata.level(), target: metadata.target().to_owned(), fields: BTreeMap::new() };
        event.record(&mut line);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}
