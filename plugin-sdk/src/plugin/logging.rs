//! `tracing` events as log lines for a go-plugin host.

use std::fmt;
use std::io::{self, Write};
use std::time::SystemTime;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use super::hclog::Entry;
use super::panic_hook::install_panic_hook;

/// Crates whose debug lines tell of the transport and not of the plugin, thousands a second.
const TRANSPORT_CRATES: [&str; 6] = ["h2", "hyper", "hyper_util", "rustls", "tonic", "tower"];

/// Sends `tracing` events to stderr as [`HclogLayer`] writes them, at the levels that `RUST_LOG` asks for (default:
/// `info`). A single level there is that of the plugin; the crates of the transport are then heard from `warn` up.
/// Panics become log lines as well, see [`install_panic_hook`]. Does nothing where a subscriber is installed already.
///
/// Hosts made with this crate do not pass their own `RUST_LOG` on, which is about themselves: one that wants more of a plugin starts
/// it with `Launch::env("RUST_LOG", "debug")`. For a plugin under somebody else's host the way is that host's.
pub fn init_logging() {
    let filter = filter(&std::env::var("RUST_LOG").unwrap_or_default());
    let logging = tracing_subscriber::registry().with(filter).with(HclogLayer::new());
    if logging.try_init().is_ok() {
        install_panic_hook();
    }
}

fn filter(wanted: &str) -> EnvFilter {
    let filter = EnvFilter::builder().with_default_directive(Level::INFO.into()).parse_lossy(wanted);
    let quiet = TRANSPORT_CRATES.iter().filter(|_| !wanted.contains(['=', ',']));
    quiet.filter_map(|name| format!("{name}=warn").parse().ok()).fold(filter, EnvFilter::add_directive)
}

/// A `tracing` layer that writes each event as one hclog JSON line, in one write, and ignores a broken stderr: a
/// plugin must not die of a log line when its host has gone.
///
/// `@module` is the event's target, with dots; fields are pairs of their own. An event whose line would be longer than
/// 64 KiB loses its fields and, if need be, the end of its message; the pair `cut_bytes` says so.
#[derive(Debug, Default)]
pub struct HclogLayer(());

impl HclogLayer {
    /// The layer; it has no settings.
    #[must_use]
    pub fn new() -> Self {
        Self(())
    }
}

impl<S: Subscriber> Layer<S> for HclogLayer {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let line = line(event, SystemTime::now());
        let _ = io::stderr().lock().write_all(&line);
    }
}

fn line(event: &Event<'_>, now: SystemTime) -> Vec<u8> {
    let mut fields = Fields::default();
    event.record(&mut fields);
    let metadata = event.metadata();
    let mut object = fields.0;
    let message = match object.remove("message") {
        Some(Value::String(message)) => message,
        Some(other) => other.to_string(),
        None => String::new(),
    };
    Entry { level: *metadata.level(), message, module: metadata.target(), fields: object }.line(now)
}

/// Collects an event's fields as JSON values.
#[derive(Debug, Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.insert(field, crate::one_line(value).to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.insert(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;

    /// Keeps the lines instead of writing them.
    struct Keep(Arc<Mutex<Vec<Vec<u8>>>>);

    impl<S: Subscriber> Layer<S> for Keep {
        fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
            self.0
                .lock()
                .unwrap()
                .push(line(event, SystemTime::UNIX_EPOCH + Duration::from_micros(1_500_000)));
        }
    }

    fn lines(act: impl FnOnce()) -> Vec<Vec<u8>> {
        let kept = Arc::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Keep(Arc::clone(&kept))), act);
        std::mem::take(&mut *kept.lock().unwrap())
    }

    #[test]
    fn a_level_is_that_of_the_plugin_and_directives_are_taken_as_they_are() {
        assert!(filter("debug").to_string().contains("h2=warn"));
        assert!(filter("").to_string().contains("info"));
        assert!(!filter("debug,h2=trace").to_string().contains("tonic=warn"));
    }

    #[test]
    fn an_event_becomes_one_hclog_line() {
        let lines =
            lines(|| tracing::warn!(target: "cache::store", entries = 5, name = "a\nb", "nearly full"));
        let expected = r#"{"@level":"warn","@message":"nearly full","@module":"cache.store","@timestamp":"1970-01-01T00:00:01.500000Z","entries":5,"name":"a\nb"}"#;
        assert_eq!(String::from_utf8_lossy(&lines[0]), format!("{expected}\n"));
    }

    #[test]
    fn special_keys_are_text_whatever_fields_an_event_has() {
        let lines = lines(|| {
            tracing::info!("@level" = 5, "@timestamp" = true, "@module" = 1.5, "@message" = 7, "text");
            tracing::info!(message = 5, ratio = f64::NAN);
        });
        let objects = lines.iter().map(|line| serde_json::from_slice::<Map<String, Value>>(line).unwrap());
        for (object, message) in objects.zip(["text", "5"]) {
            assert!(
                ["@level", "@message", "@module", "@timestamp"].iter().all(|key| object[*key].is_string())
            );
            assert_eq!((&object["@level"], &object["@message"]), (&"info".into(), &message.into()));
        }
    }
}
