//! `cargo xtask check`: all that is asked of a change besides its tests. Stops at the first thing that is wrong.

use std::path::Path;

use crate::tools::{self, Task};
use crate::{Outcome, cargo, codegen, conformance, layering, step, succeed};

/// Checks the repository.
pub(crate) fn run(root: &Path) -> Outcome {
    step("formatting");
    cargo_with(root, "fmt --all --check")?;

    step("lints");
    cargo_with(root, "clippy --workspace --all-targets --all-features -- -D warnings")?;

    for (package, features) in FEATURES {
        step(&format!("{package} with features [{features}] alone"));
        cargo_with(
            root,
            &format!("clippy --package {package} --no-default-features --features={features} -- -D warnings"),
        )?;
    }

    step("documentation");
    let mut doc = cargo(root);
    doc.args(["doc", "--no-deps", "--workspace"]).env("RUSTDOCFLAGS", "-D warnings");
    succeed(doc)?;

    step("layering");
    layering::run(root)?;

    codegen::run(root, true)?;
    conformance::run(root, true)?;

    let missing: Vec<_> = tools::missing(Task::Check).collect();
    if missing.is_empty() {
        step("dependencies");
        // Not `advisories`: the same commit must not pass today and fail tomorrow.
        cargo_with(root, "deny check bans licenses sources")?;
    }
    for tool in missing {
        step(&format!("skipped, as {} is not installed: {}", tool.name, tool.used_for));
    }
    step("all checks passed");
    Ok(())
}

/// Feature sets that somebody builds alone, and that nobody here does.
const FEATURES: [(&str, &str); 7] = [
    ("plugin-sdk", ""),
    ("plugin-sdk", "host"),
    ("plugin-sdk", "plugin"),
    ("cache-proto", ""),
    ("cache-proto", "client"),
    ("cache-proto", "server"),
    ("xtask", ""),
];

fn cargo_with(root: &Path, arguments: &str) -> Outcome {
    let mut command = cargo(root);
    command.args(arguments.split(' '));
    succeed(command)
}
