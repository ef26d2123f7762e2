//! An error and everything behind it in one line.

use std::error::Error;
use std::fmt::{self, Write};

use tonic::Status;

/// Shows `error` and its sources, joined by `: `, with control characters escaped, so that text that came from a
/// plugin can neither begin a new log line nor steer a terminal. A source whose text the error before it already ends with is
/// not repeated.
pub fn one_line<'a>(error: &'a (dyn Error + 'static)) -> impl fmt::Display + 'a {
    OneLine(error)
}

struct OneLine<'a>(&'a (dyn Error + 'static));

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = words(self.0);
        escape(&text, f)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            let next = words(error);
            if !text.ends_with(&next) {
                f.write_str(": ")?;
                escape(&next, f)?;
            }
            text = next;
            source = error.source();
        }
        Ok(())
    }
}

/// What an error says of itself. A status of gRPC would show what is behind it, for programmers; that comes as its source.
fn words(error: &(dyn Error + 'static)) -> String {
    let boxed = || error.downcast_ref::<Box<Status>>().map(Box::as_ref);
    match error.downcast_ref::<Status>().or_else(boxed) {
        Some(status) if status.message().is_empty() => format!("{:?}", status.code()),
        Some(status) => format!("{:?}: {}", status.code(), status.message()),
        None => error.to_string(),
    }
}

/// Writes `text` with all that does not print escaped as in a Rust string literal: control characters, and those that
/// turn text around or cannot be seen.
pub(crate) fn escape(text: &str, f: &mut dyn Write) -> fmt::Result {
    for character in text.chars() {
        match character {
            // They print, and are not escaped once more.
            '"' | '\'' | '\\' => f.write_char(character)?,
            _ => write!(f, "{}", character.escape_debug())?,
        }
    }
    Ok(())
}

/// `1 call`, `2 calls`.
#[cfg(feature = "host")]
pub(crate) fn counted(number: impl Into<u64>, one: &str) -> String {
    match number.into() {
        1 => format!("1 {one}"),
        number => format!("{number} {one}s"),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use thiserror::Error;

    use super::*;

    #[derive(Debug, Error)]
    #[error("cannot start {0}")]
    struct Outer(&'static str, #[source] io::Error);

    #[test]
    fn the_chain_is_one_line_without_control_characters() {
        let error = Outer("a\u{1b}[31m\u{202e}", io::Error::other("first\nsecond"));
        assert_eq!(one_line(&error).to_string(), r"cannot start a\u{1b}[31m\u{202e}: first\nsecond");
    }

    #[derive(Debug, Error)]
    #[error("its health check failed")]
    struct Check(#[source] Box<Status>);

    #[test]
    fn a_status_is_shown_without_what_only_programmers_read() {
        let status = Status::from_error(Box::new(io::Error::new(io::ErrorKind::TimedOut, "gone\n")));
        assert_eq!(one_line(&status).to_string(), r"Unknown: gone\n");
        assert_eq!(
            one_line(&Check(Box::new(status))).to_string(),
            r"its health check failed: Unknown: gone\n"
        );
        assert_eq!(
            one_line(&Check(Status::aborted("").into())).to_string(),
            "its health check failed: Aborted"
        );
    }

    #[test]
    fn a_cause_that_was_already_told_is_not_repeated() {
        let error = Outer("it: gone", io::Error::other("gone"));
        assert_eq!(one_line(&error).to_string(), "cannot start it: gone");
    }
}
