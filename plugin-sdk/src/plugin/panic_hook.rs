//! What a panic says, as one log line at level error. Rust's own text has many lines, which a go-plugin host shows at
//! debug.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::{self, Write};
use std::panic::PanicHookInfo;
use std::time::SystemTime;

use serde_json::{Map, Value};
use tracing::Level;

use super::hclog::Entry;
use crate::services::panic_text;

/// Bytes of the message and of the backtrace that are logged: together less than a line may hold.
const MESSAGE_BYTES: usize = 4 * 1024;
const BACKTRACE_BYTES: usize = 24 * 1024;

/// From now on, each panic of this process is one hclog line on stderr, with the fields `location`, `thread` and, if
/// `RUST_BACKTRACE` asks for it, `backtrace`. Takes the place of the hook that is there.
///
/// Hosts made with this crate do not pass their own `RUST_BACKTRACE` on, unless they are told to by
/// `Launch::env("RUST_BACKTRACE", "1")`.
///
/// [`init_logging`](super::init_logging) does it; this is for plugins that set up their logs by themselves. `RUST_LOG` has no say in it.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        let backtrace = Backtrace::capture();
        write_stderr(&entry(info, &backtrace).line(SystemTime::now()));
    }));
}

fn entry(info: &PanicHookInfo<'_>, backtrace: &Backtrace) -> Entry<'static> {
    let mut fields = Map::new();
    if let Some(location) = info.location() {
        let location = format!("{}:{}", location.file(), location.line());
        fields.insert("location".to_owned(), Value::String(location));
    }
    let thread = std::thread::current();
    let thread = thread.name().map_or_else(|| format!("{:?}", thread.id()), str::to_owned);
    fields.insert("thread".to_owned(), Value::String(thread));
    if backtrace.status() == BacktraceStatus::Captured {
        fields.insert("backtrace".to_owned(), Value::String(bounded(backtrace, BACKTRACE_BYTES)));
    }
    let message = format!("panic: {}", bounded(&panic_text(info.payload()), MESSAGE_BYTES));
    Entry { level: Level::ERROR, message, module: "panic", fields }
}

/// The first bytes of what `value` shows as.
fn bounded(value: &impl fmt::Display, bytes: usize) -> String {
    let mut text = Bounded { text: String::new(), bytes };
    // It ends with an error when there is no more room.
    let _ = write!(text, "{value}");
    text.text
}

struct Bounded {
    text: String,
    bytes: usize,
}

impl Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let room = self.bytes - self.text.len();
        if more.len() <= room {
            self.text.push_str(more);
            return Ok(());
        }
        let end = (0..=room).rev().find(|end| more.is_char_boundary(*end)).unwrap_or_default();
        self.text.push_str(&more[..end]);
        Err(fmt::Error)
    }
}

/// Writes past the standard library's lock on stderr, which this very thread may have panicked under. A stderr that is
/// broken is none of a dying thread's worries.
fn write_stderr(mut line: &[u8]) {
    while !line.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::write(rustix::stdio::stderr(), line)) {
            Ok(written @ 1..) => line = &line[written..],
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_bounded_at_a_character() {
        assert_eq!(bounded(&"short", 10), "short");
        assert_eq!(bounded(&"aäo", 2), "a");
        assert_eq!(bounded(&format_args!("{}{}", "four", "five"), 6), "fourfi");
    }
}
