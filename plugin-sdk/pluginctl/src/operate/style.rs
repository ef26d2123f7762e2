//! Colours, where people want them.

use std::fmt;
use std::io::IsTerminal;

use plugin_sdk::control::State;

use super::args::Color;

/// Whether to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Style(bool);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    Plain,
    Bold,
    Dim,
    Green,
    Yellow,
    Red,
}

impl Style {
    /// Without colours.
    pub(super) fn none() -> Self {
        Self(false)
    }

    /// As the flag, the variables and stdout say.
    pub(super) fn of_stdout(color: Color) -> Self {
        let variable = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let forced = std::env::var("CLICOLOR_FORCE").is_ok_and(|value| !value.is_empty() && value != "0");
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self(match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto if variable("NO_COLOR") => false,
            Color::Auto => forced || (std::io::stdout().is_terminal() && !dumb),
        })
    }

    pub(super) fn paint<T: fmt::Display>(self, paint: Paint, text: T) -> impl fmt::Display {
        Painted(if self.0 { paint.code() } else { "" }, text)
    }
}

impl Paint {
    pub(super) fn of(state: State) -> Self {
        match state {
            State::Serving => Self::Green,
            State::Starting | State::Stopping | State::BackingOff | State::Degraded => Self::Yellow,
            State::GaveUp => Self::Red,
            State::Stopped | State::Disabled => Self::Dim,
            State::Unspecified => Self::Plain,
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Red => "31",
            Self::Green => "32",
            Self::Yellow => "33",
        }
    }
}

/// An SGR code, and the text.
struct Painted<T>(&'static str, T);

impl<T: fmt::Display> fmt::Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => self.1.fmt(f),
            code => write!(f, "\u{1b}[{code}m{}\u{1b}[0m", self.1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_to_be_painted_is() {
        assert_eq!(Style(true).paint(Paint::Red, "x").to_string(), "\u{1b}[31mx\u{1b}[0m");
        assert_eq!(Style(true).paint(Paint::Plain, "x").to_string(), "x");
        assert_eq!(Style(false).paint(Paint::Red, "x").to_string(), "x");
        assert!(!Style::of_stdout(Color::Never).0 && Style::of_stdout(Color::Always).0);
    }
}
