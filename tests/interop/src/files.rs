//! Where things are.

use std::path::{Path, PathBuf};

/// Path of a binary of this workspace, in the profile that the running program was built with.
///
/// # Panics
/// It has not been built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let path = profile_dir().join(name).with_extension(std::env::consts::EXE_EXTENSION);
    assert!(
        path.is_file(),
        "{} is missing: `cargo xtask test` builds it, then runs the tests",
        path.display()
    );
    path
}

/// The folder for what cargo makes, whatever it is called.
pub(crate) fn target_dir() -> PathBuf {
    profile_dir().parent().expect("a profile's folder is in another").to_path_buf()
}

fn profile_dir() -> PathBuf {
    let program = std::env::current_exe().expect("a program knows its own path");
    let dir = program.parent().expect("a program is in a folder");
    // Tests are one folder below the programs.
    let of_tests = dir.file_name().is_some_and(|name| name == "deps");
    if of_tests { dir.parent().map(Path::to_path_buf) } else { None }.unwrap_or_else(|| dir.to_path_buf())
}
