//! Tests that cannot run on every machine.

use std::io::{self, Write};

/// Says that `test` is skipped for lack of `tool`.
///
/// # Panics
/// On a CI machine, which installs what tests need: where the variable `CI` is `true`.
pub fn skip(test: &str, tool: &str) {
    let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!ci, "{test} cannot run: {tool} is not installed");
    skip_as(test, &format!("{tool} is not installed"));
}

/// Says that `test` is skipped, and why: for what cannot be installed, such as how the tests were started.
pub fn skip_as(test: &str, reason: &str) {
    // Not by a macro, whose output is kept back for tests that pass: a skipped one must not look as if it had run.
    let _ = writeln!(io::stderr(), "skipped: {test}: {reason}");
}
