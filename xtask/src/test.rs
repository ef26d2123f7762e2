//! `cargo xtask test`: builds everything, then runs all tests, those in the documentation among them.

use std::path::Path;

use crate::{Outcome, cargo, step, succeed};

/// Runs the tests whose name contains `filter`, or all.
pub(crate) fn run(root: &Path, filter: Option<&str>) -> Outcome {
    // The tests of whole processes start these; cargo would only build the ones of their own package.
    step("building all programs");
    let mut build = cargo(root);
    build.args(["build", "--workspace", "--bins"]);
    succeed(build)?;

    step("running all tests");
    let mut tests = cargo(root);
    tests.args(["test", "--workspace", "--no-fail-fast"]).args(filter);
    let outcome = succeed(tests);

    step(if outcome.is_ok() { "all tests passed" } else { "some tests failed" });
    outcome
}
