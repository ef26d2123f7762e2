//! What the plugin's log is told of calls that fail: what is new, and never a line for each.
//!
//! ```text
//! fails  INTERNAL ─▶ warning   INTERNAL ─▶ nothing   UNAVAILABLE ─▶ warning
//! works  within QUIET of the last failure ─▶ nothing, later ─▶ "work again", and all codes are new
//! ```
//!
//! So a key that always fails, asked for among others that do not, is two lines at most in each QUIET.

use std::fmt::Write;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tonic::{Code, Status};

/// How long no call may have failed before they are said to work again.
const QUIET: Duration = Duration::from_secs(10);

/// The most characters of a failure's message in the log.
const MAX_MESSAGE_CHARS: usize = 300;

/// How calls of one kind do. Without a lock: two threads that see the same at the same moment may both log it.
#[derive(Debug)]
pub(super) struct Trouble {
    /// In the plural.
    calls: &'static str,
    /// A bit for each code of which the log knows that it lasts. 0: all is well.
    told: AtomicU32,
    /// The last failure, in milliseconds since `made`.
    last_failure: AtomicU64,
    made: Instant,
}

impl Trouble {
    /// None so far.
    pub(super) fn none(calls: &'static str) -> Self {
        Self { calls, told: AtomicU32::new(0), last_failure: AtomicU64::new(0), made: Instant::now() }
    }

    /// Takes note of how calls have ended: with this failure, or well.
    pub(super) fn note(&self, failure: Option<&Status>) {
        match failure {
            Some(status) => {
                if self.failed(status.code(), Instant::now()) {
                    let message = excerpt(status.message());
                    tracing::warn!(code = ?status.code(), "{} of the cache fail: {message}", self.calls);
                }
            }
            // That all is well, and was before, is found out with this and no more.
            None if self.told.load(Ordering::Relaxed) == 0 => {}
            None => {
                if self.worked(Instant::now()) {
                    tracing::info!("{} of the cache work again", self.calls);
                }
            }
        }
    }

    /// Whether it is news that one has failed.
    fn failed(&self, code: Code, now: Instant) -> bool {
        self.last_failure.store(self.millis(now), Ordering::Relaxed);
        // There are 17 codes.
        let bit = 1 << code as u32;
        self.told.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    /// Whether it is news that one has not failed.
    fn worked(&self, now: Instant) -> bool {
        let since = self.millis(now).saturating_sub(self.last_failure.load(Ordering::Relaxed));
        Duration::from_millis(since) >= QUIET && self.told.swap(0, Ordering::Relaxed) != 0
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.made).as_millis()).unwrap_or(u64::MAX)
    }
}

/// The beginning of a text, with nothing in it that could act on a terminal or a log.
fn excerpt(text: &str) -> String {
    let mut characters = text.chars();
    let mut excerpt = String::new();
    for character in characters.by_ref().take(MAX_MESSAGE_CHARS) {
        match character {
            '"' | '\'' | '\\' => excerpt.push(character),
            // A string takes all that is written to it.
            _ => _ = write!(excerpt, "{}", character.escape_debug()),
        }
    }
    if characters.next().is_some() {
        excerpt.push('…');
    }
    excerpt
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    #[test]
    fn each_code_is_news_once_until_all_has_been_well_for_a_while() {
        let trouble = Trouble::none("lookups");
        let mut now = trouble.made;
        assert!(!trouble.worked(now + QUIET), "it was well all the time");
        for _ in 0..3 {
            assert!(trouble.failed(Code::Internal, now));
            assert!(trouble.failed(Code::Unavailable, now));
            // A key that fails now and then, among others that do not.
            for _ in 0..100 {
                now += QUIET - MOMENT;
                assert!(!trouble.worked(now));
                assert!(!trouble.failed(Code::Internal, now));
                assert!(!trouble.failed(Code::Unavailable, now));
            }
            now += QUIET;
            assert!(trouble.worked(now));
            assert!(!trouble.worked(now));
        }
    }

    #[test]
    fn messages_are_short_and_do_nothing_to_a_terminal() {
        for (text, expected) in [
            ("disk full", "disk full".to_owned()),
            ("say \"no\"\n\x1b[2J\u{202e}", "say \"no\"\\n\\u{1b}[2J\\u{202e}".to_owned()),
            (&*"ü".repeat(300), "ü".repeat(300)),
            (&*"ü".repeat(301), "ü".repeat(300) + "…"),
        ] {
            assert_eq!(excerpt(text), expected);
        }
    }
}
