//! The programs under test.

use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};

use crate::process::wait_for_exit;

/// Runs a program until it ends by itself, and gives what it said.
pub fn run<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: impl IntoIterator<Item = S>) -> Output {
    run_with(Command::new(program).args(args))
}

/// Like [`run`], for a command that needs more than arguments.
pub fn run_with(command: &mut Command) -> Output {
    clean(command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = start(command);
    wait_for_exit(&mut child, &format!("{command:?} to end by itself"));
    child.wait_with_output().expect("its output can be read")
}

/// Takes away what the environment of the test run would say to the program.
pub(crate) fn clean(command: &mut Command) -> &mut Command {
    let ours = |name: &OsStr| name.to_string_lossy().starts_with("FIB_") || name == "RUST_LOG";
    for (name, _) in std::env::vars_os().filter(|(name, _)| ours(name)) {
        command.env_remove(name);
    }
    command
}

/// Starts `command`.
#[expect(
    clippy::disallowed_methods,
    reason = "the tests start servers, and plugins as a person would; not as a host"
)]
pub fn start(command: &mut Command) -> std::process::Child {
    command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"))
}
