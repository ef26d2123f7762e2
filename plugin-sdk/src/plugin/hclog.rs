//! One log line as a go-plugin host reads it: a JSON object with hclog's keys.
//!
//! ```text
//! {"@level":"info","@message":"ready","@module":"cache","@timestamp":"2026-11-23T22:27:01.000000Z","entries":5}
//! ```

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};
use tracing::Level;

/// Longest line, with its end, that a go-plugin host reads as one.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// The last second that is written with four digits for the year, in seconds since 1970.
const LAST_SECOND: Duration = Duration::from_secs(253_402_300_799);

/// The pair that says of an entry how much of it is not there.
const CUT_BYTES: &str = "cut_bytes";

/// What is to be logged.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) level: Level,
    pub(super) message: String,
    /// Where it comes from, with dots.
    pub(super) module: &'a str,
    /// Pairs of the application. They cannot take the place of hclog's own keys.
    pub(super) fields: Map<String, Value>,
}

impl Entry<'_> {
    /// The line with its end. One that would be too long loses its fields and, if need be, the end of its message, and says how
    /// many bytes it has lost.
    pub(super) fn line(self, now: SystemTime) -> Vec<u8> {
        let mut object = self.fields;
        // A Go host crashes on values that are no text under these keys, so they are set last and always.
        let mut special = Map::from_iter([
            ("@level".to_owned(), level(self.level).into()),
            ("@message".to_owned(), self.message.into()),
            ("@module".to_owned(), self.module.replace("::", ".").into()),
            ("@timestamp".to_owned(), timestamp(now).into()),
        ]);
        object.extend(special.clone());
        let whole = encode(&object);
        if whole.len() <= MAX_LINE_BYTES {
            return whole;
        }
        if let Some(Value::String(message)) = special.get_mut("@message") {
            // A character takes up to six bytes in JSON.
            if let Some((end, _)) = message.char_indices().nth(MAX_LINE_BYTES / 8) {
                message.truncate(end);
                message.push_str("...");
            }
        }
        let lost = whole.len() - encode(&special).len();
        special.insert(CUT_BYTES.to_owned(), lost.into());
        encode(&special)
    }
}

fn encode(object: &Map<String, Value>) -> Vec<u8> {
    let mut line = serde_json::to_vec(object).unwrap_or_default();
    line.push(b'\n');
    line
}

fn level(level: Level) -> &'static str {
    match level {
        Level::TRACE => "trace",
        Level::DEBUG => "debug",
        Level::INFO => "info",
        Level::WARN => "warn",
        Level::ERROR => "error",
    }
}

/// Exactly six digits after the second: with any other number a Go host takes the whole line for plain text. A clock
/// that is far off is shown as the nearest time that can be written.
fn timestamp(now: SystemTime) -> String {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().min(LAST_SECOND);
    humantime::format_rfc3339_micros(SystemTime::UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(message: &str, fields: &[(&str, Value)]) -> Entry<'static> {
        let fields = fields.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        Entry { level: Level::WARN, message: message.to_owned(), module: "cache::store", fields }
    }

    fn at(micros: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_micros(micros)
    }

    #[test]
    fn an_entry_is_one_line_with_hclog_s_keys() {
        let line =
            entry("nearly\nfull", &[("entries", 5.into()), ("name", "a\nb".into())]).line(at(1_500_000));
        let expected = r#"{"@level":"warn","@message":"nearly\nfull","@module":"cache.store","@timestamp":"1970-01-01T00:00:01.500000Z","entries":5,"name":"a\nb"}"#;
        assert_eq!(String::from_utf8(line).unwrap(), format!("{expected}\n"));
    }

    #[test]
    fn a_timestamp_has_exactly_six_digits_and_a_z_whatever_the_clock_says() {
        for (time, expected) in [
            (at(0), "1970-01-01T00:00:00.000000Z"),
            (at(1), "1970-01-01T00:00:00.000001Z"),
            (at(1_795_000_021_123_456), "2026-11-18T11:07:01.123456Z"),
            (at(0) - Duration::from_secs(1), "1970-01-01T00:00:00.000000Z"),
            (at(0) + LAST_SECOND + Duration::from_secs(5), "9999-12-31T23:59:59.000000Z"),
        ] {
            assert_eq!(timestamp(time), expected);
        }
    }

    #[test]
    fn fields_cannot_take_the_place_of_special_keys() {
        let fields = [
            ("@level", 5.into()),
            ("@message", Value::Null),
            ("@module", Value::Bool(true)),
            ("@timestamp", Value::Array(Vec::new())),
        ];
        assert_eq!(entry("text", &fields).line(at(0)), entry("text", &[]).line(at(0)));
    }

    #[test]
    fn a_line_is_never_longer_than_a_host_reads_as_one_and_says_that_it_was_cut() {
        let long = "\u{1}".repeat(100_000);
        for (entry, lost) in [
            (entry("short", &[("long", long.as_str().into())]), 600_000..600_020),
            (entry(&long, &[]), 550_000..560_000),
        ] {
            let line = entry.line(at(0));
            assert!(line.len() <= MAX_LINE_BYTES);
            let object: Map<String, Value> = serde_json::from_slice(&line).unwrap();
            assert!(lost.contains(&object["cut_bytes"].as_u64().unwrap()), "{}", object["cut_bytes"]);
            let message = object["@message"].as_str().unwrap();
            assert!(message == "short" || message.ends_with("\u{1}..."), "the cut can be seen");
        }
        let line = entry(&"x".repeat(MAX_LINE_BYTES / 2), &[]).line(at(0));
        assert!(!String::from_utf8(line).unwrap().contains("cut_bytes"), "it is whole");
    }
}
