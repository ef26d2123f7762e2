//! The magic cookie: how a plugin binary knows that a host has started it, and not a person.

use std::borrow::Cow;

/// An environment variable and the value it has to hold. Host and plugin share it as a constant of their contract.
///
/// A courtesy to users, not security: anybody can set a variable. go-plugin calls the two halves `MagicCookieKey`
/// and `MagicCookieValue`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MagicCookie {
    key: Cow<'static, str>,
    value: Cow<'static, str>,
}

impl MagicCookie {
    /// A cookie with both halves.
    ///
    /// An empty half is refused where the cookie is used: by `Launch` before it starts anything, by a plugin
    /// before it announces itself.
    pub fn new(key: impl Into<Cow<'static, str>>, value: impl Into<Cow<'static, str>>) -> Self {
        Self { key: key.into(), value: value.into() }
    }

    /// A cookie as a constant: `const COOKIE: MagicCookie = MagicCookie::from_static("EXAMPLE_PLUGIN", "1f0e");`. Otherwise as
    /// [`new`](Self::new).
    #[must_use]
    pub const fn from_static(key: &'static str, value: &'static str) -> Self {
        Self { key: Cow::Borrowed(key), value: Cow::Borrowed(value) }
    }

    /// Name of the environment variable.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What the variable has to hold.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether it can be set in an environment and be told from an unset variable.
    pub(crate) fn is_usable(&self) -> bool {
        let key = !self.key.is_empty() && !self.key.contains(['=', '\0']);
        key && !self.value.is_empty() && !self.value.contains('\0')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOKIE: MagicCookie = MagicCookie::from_static("KEY", "value");

    #[test]
    fn a_cookie_can_be_a_constant() {
        assert_eq!(COOKIE, MagicCookie::new("KEY".to_owned(), "value".to_owned()));
    }

    #[test]
    fn a_cookie_that_cannot_be_told_from_an_unset_variable_is_not_usable() {
        for (key, value, usable) in [
            ("KEY", "value", true),
            ("", "value", false),
            ("KEY", "", false),
            ("K=Y", "value", false),
            ("KEY", "a\0b", false),
        ] {
            assert_eq!(MagicCookie::new(key, value).is_usable(), usable, "{key:?}={value:?}");
        }
    }
}
