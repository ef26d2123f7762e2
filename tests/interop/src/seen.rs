//! What our host has logged of its plugins, for tests to look at.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use e2e::wait::LIMIT;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// One event with the target `plugin`.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its level.
    pub level: Level,
    /// Its fields as text, `message` among them.
    pub fields: BTreeMap<&'static str, String>,
}

impl Line {
    /// A field, empty if it is not there.
    #[must_use]
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// What was said.
    #[must_use]
    pub fn message(&self) -> &str {
        self.field("message")
    }
}

static LINES: Mutex<Vec<Line>> = Mutex::new(Vec::new());

/// Begins to take notes, for all tests of the process. To be called before a plugin is started.
pub fn begin() {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| tracing_subscriber::registry().with(Notes).init());
}

/// Waits for a line of the process `pid` for which `fits` holds.
///
/// # Panics
/// There is none in time.
pub async fn line(pid: u32, fits: impl Fn(&Line) -> bool) -> Line {
    let pid = pid.to_string();
    let of_plugin = || -> Vec<Line> {
        let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter(|line| line.field("pid") == pid).cloned().collect()
    };
    let found = tokio::time::timeout(LIMIT, async {
        loop {
            if let Some(line) = of_plugin().into_iter().find(&fits) {
                return line;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("it is not among {:#?}", of_plugin()))
}

struct Notes;

impl<S: Subscriber> Layer<S> for Notes {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "plugin" {
            let mut line = Line { level: *event.metadata().level(), fields: BTreeMap::new() };
            event.record(&mut line);
            LINES.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
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
