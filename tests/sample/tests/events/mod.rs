//! What a host's log says of its plugins.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// One event of a plugin.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) level: Level,
    pub(crate) fields: BTreeMap<String, String>,
}

impl Seen {
    pub(crate) fn message(&self) -> &str {
        &self.fields["message"]
    }
}

/// The events of plugins on this thread, for a test with a run time of one thread.
#[derive(Clone, Default)]
pub(crate) struct Events(Arc<Mutex<Vec<Seen>>>);

impl Events {
    /// Begins to collect, for as long as the guard is there.
    pub(crate) fn collect() -> (Self, DefaultGuard) {
        let events = Self::default();
        let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(events.clone()));
        (events, guard)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.0.lock().expect("no test panics with the lock").clone()
    }

    /// Waits for an event.
    pub(crate) async fn until(&self, condition: impl Fn(&Seen) -> bool) -> Seen {
        let limit = Duration::from_secs(20);
        let found = tokio::time::timeout(limit, async {
            loop {
                if let Some(found) = self.seen().into_iter().find(&condition) {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        found.await.unwrap_or_else(|_| panic!("not within {limit:?}; seen: {:#?}", self.seen()))
    }
}

impl<S: Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        if event.metadata().target() == "plugin" {
            let mut fields = Fields::default();
            event.record(&mut fields);
            self.0
                .lock()
                .expect("no test panics with the lock")
                .push(Seen { level: *event.metadata().level(), fields: fields.0 });
        }
    }
}

#[derive(Default)]
struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}
