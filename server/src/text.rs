//! Showing text that somebody else has written: short, and without a character that could act on a terminal or a
//! log.

use std::fmt;

/// The first `limit` characters of `text`, control and invisible ones escaped, with `…` where it was cut.
pub(crate) fn excerpt(text: &str, limit: usize) -> Excerpt<'_> {
    Excerpt { text, limit }
}

/// Made by [`excerpt`].
pub(crate) struct Excerpt<'a> {
    text: &'a str,
    limit: usize,
}

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut characters = self.text.chars();
        for character in characters.by_ref().take(self.limit) {
            match character {
                // Harmless, and whoever puts the text between quotes escapes them his own way.
                '"' | '\'' => write!(f, "{character}")?,
                _ => write!(f, "{}", character.escape_debug())?,
            }
        }
        if characters.next().is_some() { f.write_str("…") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpts() {
        for (text, expected) in [
            ("", ""),
            ("abcd", "abcd"),
            ("abcde", "abcd…"),
            ("５ü", "５ü"),
            ("\"'", "\"'"),
            ("\0\n\x1b", "\\0\\n\\u{1b}"),
            ("\u{202e}", "\\u{202e}"),
            ("\u{7f}\u{9b}", "\\u{7f}\\u{9b}"),
        ] {
            assert_eq!(excerpt(text, 4).to_string(), expected, "{text:?}");
        }
    }
}
