//! `FibIndex`: the n of `/fib/{n}`. Whoever holds one need not check it again.

use std::fmt;

use super::LAST_INDEX;

/// An n that may be calculated: no larger than the limit it was made with, which is at most [`LAST_INDEX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FibIndex(u8);

impl FibIndex {
    /// The index `n`, or `None` if it is larger than `max` or than [`LAST_INDEX`].
    pub fn new(n: u8, max: u8) -> Option<Self> {
        (n <= max && n <= LAST_INDEX).then_some(Self(n))
    }

    /// Reads an index as people write it: ASCII digits, at most one leading `+`, any number of leading zeros.
    /// `5`, `05` and `+5` are the same index.
    pub fn parse(text: &str, max: u8) -> Result<Self, ParseIndexError> {
        if text.is_empty() {
            return Err(ParseIndexError::Empty);
        }
        let unsigned = text.strip_prefix('+').unwrap_or(text);
        if !is_digits(unsigned) {
            return Err(match text.strip_prefix('-') {
                Some(rest) if is_digits(rest) => ParseIndexError::Negative,
                _ => ParseIndexError::NotAnInteger { text: text.to_owned() },
            });
        }
        // Only overflow can make `parse` fail here, and what overflows is too large.
        match unsigned.trim_start_matches('0') {
            "" => Ok(Self(0)),
            digits => {
                digits.parse().ok().and_then(|n| Self::new(n, max)).ok_or(ParseIndexError::TooLarge { max })
            }
        }
    }

    /// The number itself.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for FibIndex {
    /// The canonical decimal form, which is also the key in the cache.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a text is no [`FibIndex`]. Always the caller's move.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseIndexError {
    /// There was no text at all.
    #[error("a number is missing")]
    Empty,
    /// A minus sign and digits.
    #[error("the number must not be negative")]
    Negative,
    /// Anything but digits. `text` is the whole input, of any length and content: cut and escape it before showing.
    #[error("not a decimal integer")]
    NotAnInteger {
        /// What was there instead.
        text: String,
    },
    /// A number beyond the limit.
    #[error("the number must be at most {max}")]
    TooLarge {
        /// The largest that is allowed.
        max: u8,
    },
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_has_many_spellings() {
        for text in ["5", "05", "+5", "+05", "0000000000000000000000000000005"] {
            assert_eq!(FibIndex::parse(text, 93).unwrap().get(), 5, "{text}");
        }
        for text in ["0", "000", "+0"] {
            assert_eq!(FibIndex::parse(text, 0).unwrap().get(), 0, "{text}");
        }
        assert_eq!(FibIndex::parse("93", 93).unwrap().to_string(), "93");
    }

    #[test]
    fn the_limit_is_included_and_nothing_beyond_it() {
        let max = 40;
        assert!(FibIndex::parse("40", max).is_ok());
        for text in [
            "41",
            "93",
            "94",
            "255",
            "256",
            "18446744073709551616",
            "99999999999999999999",
            &"9".repeat(10_000),
        ] {
            assert_eq!(FibIndex::parse(text, max), Err(ParseIndexError::TooLarge { max }), "{text}");
        }
        assert_eq!(FibIndex::parse("94", 255), Err(ParseIndexError::TooLarge { max: 255 }));
    }

    #[test]
    fn everything_else_is_refused() {
        assert_eq!(FibIndex::parse("", 93), Err(ParseIndexError::Empty));
        assert_eq!(FibIndex::parse("-1", 93), Err(ParseIndexError::Negative));
        let strange = [
            "abc", "+", "-", "++5", "+-5", "-+5", "5.0", "1e3", "0x5", " 5", "5 ", "5\n", "\0", "５", "٥",
            "1_0",
        ];
        for text in strange {
            assert_eq!(
                FibIndex::parse(text, 93),
                Err(ParseIndexError::NotAnInteger { text: text.to_owned() }),
                "{text:?}"
            );
        }
    }
}
