//! The programs under test.

use std::path::{Path, PathBuf};

/// Path of a program that cargo has built, by the name of its `[[bin]]` or example, in the profile that the running
/// test was built with.
///
/// Of a binary in the test's own package, `env!("CARGO_BIN_EXE_name")` is better: cargo sees to it that it is the latest. This is
/// for those that have no such variable, and finds what was built last:
///
/// - examples of the test's own package, which `cargo test` builds, but not `cargo test --test FILE`: `cargo build --examples` has
///   to come first;
/// - binaries of other packages, which cargo never builds for a test: `cargo build --workspace --bins` has to come first.
///
/// # Panics
/// It has not been built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let dir = profile_dir();
    let file = |dir: &Path| dir.join(name).with_extension(std::env::consts::EXE_EXTENSION);
    let found = [file(&dir), file(&dir.join("examples"))].into_iter().find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "{} is missing, and so is such an example: `cargo build --workspace --bins --examples` builds both, \
             `cargo test --test FILE` neither",
            file(&dir).display()
        )
    })
}

/// The folder for what cargo makes in this profile, such as `target/debug`.
///
/// # Panics
/// The running program is in no folder.
#[must_use]
pub fn profile_dir() -> PathBuf {
    let running = std::env::current_exe().expect("a program knows its own path");
    let dir = running.parent().expect("a program is in a folder");
    // Tests and examples are one folder below the programs.
    let below = dir.file_name().is_some_and(|name| name == "deps" || name == "examples");
    if below { dir.parent().unwrap_or(dir) } else { dir }.to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(
        expected = "`cargo build --workspace --bins --examples` builds both, `cargo test --test FILE` neither"
    )]
    fn of_a_program_that_is_missing_it_is_said_what_builds_it() {
        let _ = program("no-such-program");
    }
}
