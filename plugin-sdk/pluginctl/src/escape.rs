//! Text from a plugin, made harmless: it can neither begin a line of its own nor steer the terminal it is shown on.

use std::fmt;

/// Shows `text` with its control characters escaped as in a Rust string literal.
pub(crate) fn escaped(text: &str) -> impl fmt::Display + '_ {
    Escaped(text)
}

struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            if character.is_control() {
                write!(f, "{}", character.escape_default())?;
            } else {
                write!(f, "{character}")?;
            }
        }
        Ok(())
    }
}

/// Escapes the control characters that JSON allows in its texts and terminals obey: DEL and those above it.
pub(crate) fn escaped_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_control() && character != '\n' {
            escaped.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            escaped.push(character);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_get_through() {
        assert_eq!(escaped("a\u{1b}[31m\nb ü").to_string(), r"a\u{1b}[31m\nb ü");
        let value = serde_json::json!({"text": "\u{1b}\u{7f}\u{9b}31m\nü"});
        let json = escaped_json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(json.chars().all(|character| character == '\n' || !character.is_control()), "{json}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), value);
    }
}
