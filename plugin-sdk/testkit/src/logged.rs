//! What a host has logged, of its plugins and otherwise.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use plugin_sdk::host::Plugin;
use tracing::field::{Field, Visit};
use tracing::subscriber::{DefaultGuard, NoSubscriber};
use tracing::{Dispatch, Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::wait::{LIMIT, holds_in_time};

/// Events as they are logged: of one thread for as long as this lives, or of the whole process.
///
/// What a plugin says comes with the target `plugin` and the fields `plugin` (its name), `pid` and `message`; on stderr as
/// hclog entries or text, else with a field `stream`.
///
/// ```
/// use plugin_testkit::Logged;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let logged = Logged::begin();
/// tracing::warn!(answer = 42, "something is odd");
/// let line = logged.line(|line| line.message() == "something is odd").await;
/// assert_eq!((line.level, line.field("answer")), (tracing::Level::WARN, "42"));
/// # }
/// ```
#[derive(Debug)]
pub struct Logged {
    lines: Lines,
    /// What ends taking notes, if that has an end.
    _guard: Option<DefaultGuard>,
}

/// One event.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its level.
    pub level: Level,
    /// Its target: `plugin` if a plugin has said it, else the module that has.
    pub target: String,
    fields: BTreeMap<&'static str, String>,
}

type Lines = Arc<Mutex<Vec<Line>>>;

impl Line {
    /// A field as text, empty if it is not there.
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

impl Logged {
    /// Begins to take notes of this thread, and so of all tasks of a test that has a run time of its own
    /// (`#[tokio::test]` in its default flavor).
    #[must_use]
    pub fn begin() -> Self {
        have_every_subscriber_asked();
        let lines = Lines::default();
        let subscriber = tracing_subscriber::registry().with(Notes(Arc::clone(&lines)));
        Self { lines, _guard: Some(tracing::subscriber::set_default(subscriber)) }
    }

    /// Begins to take notes of all threads, for as long as the process lives: for hosts on run times with many threads. All
    /// calls give the same lines, of all tests in the process: look at those [`of`](Self::of) one plugin.
    ///
    /// # Panics
    /// Something else listens to the events of this process already.
    pub fn of_all_threads() -> Self {
        static LINES: OnceLock<Lines> = OnceLock::new();
        let lines = LINES.get_or_init(|| {
            let lines = Lines::default();
            tracing_subscriber::registry().with(Notes(Arc::clone(&lines))).init();
            lines
        });
        Self { lines: Arc::clone(lines), _guard: None }
    }

    /// All lines so far.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What plugins have said so far on stderr, or on the named stream of the stdio service (`stdout`, `stderr`).
    #[must_use]
    pub fn said(&self, stream: &str) -> Vec<Line> {
        let of_stream = |line: &Line| line.target == "plugin" && line.field("stream") == stream;
        self.lines().into_iter().filter(of_stream).collect()
    }

    /// What this plugin has said so far, on whatever stream.
    #[must_use]
    pub fn of(&self, plugin: &Plugin) -> Vec<Line> {
        let pid = plugin.pid().map(|pid| pid.to_string()).unwrap_or_default();
        let of_plugin = |line: &Line| {
            line.target == "plugin" && line.field("pid") == pid && line.field("plugin") == plugin.name()
        };
        self.lines().into_iter().filter(of_plugin).collect()
    }

    /// Waits for the first line for which `fits` holds.
    ///
    /// # Panics
    /// There is none within [`LIMIT`]. The panic shows what there is.
    pub async fn line(&self, fits: impl Fn(&Line) -> bool) -> Line {
        let mut found = None;
        let in_time = holds_in_time(async || {
            found = self.lines().into_iter().find(&fits);
            found.is_some()
        });
        in_time.await;
        found.unwrap_or_else(|| panic!("not logged within {LIMIT:?}, only {:#?}", self.lines()))
    }
}

/// As long as a process has a single subscriber, tracing asks the one of the thread that comes to an event first whether anybody
/// wants it, and takes a no for all threads. With two it asks both.
fn have_every_subscriber_asked() {
    static SECOND: OnceLock<Dispatch> = OnceLock::new();
    SECOND.get_or_init(|| Dispatch::new(NoSubscriber::new()));
}

struct Notes(Lines);

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
