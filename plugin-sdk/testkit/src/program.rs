//! The programs under test.

use std::path::{Path, PathBuf};

/// Path of a program that cargo has built, by the name of its `[[bin]]` or example, in the profile that the running
/// test was built with.
///
/// Of a binary in the test's own package, `env!("CARGO_BIN_EXE_name")` is as good. This is for examples, which have no such
/// variable, and for binaries of other packages, which cargo does not build for a test: `cargo build --workspace --bins`
/// has to come first.
///
/// # Panics
/// It has not been built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let dir = profile_dir();
    let file = |dir: &Path| dir.join(name).with_extension(std::env::consts::EXE_EXTENSION);
    let found = [file(&dir), file(&dir.join("examples"))].into_iter().find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("{} is missing: `cargo build --workspace --bins --examples` builds it", file(&dir).display())
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
