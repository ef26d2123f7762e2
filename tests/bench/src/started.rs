//! Programs that are started to be measured, and end with this one.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process::Tree;
use crate::{Failure, stop};

/// A program that runs. Dropping it ends it, and all that it has started.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) child: Child,
}

impl Started {
    #[expect(clippy::disallowed_methods, reason = "servers are started, not plugins")]
    pub(crate) fn new(command: &mut Command) -> Result<Self, Failure> {
        let program = command.get_program().to_owned();
        match command.spawn() {
            Ok(child) => Ok(Self { child }),
            Err(error) => Err(format!("{} does not start: {error}", program.display()).into()),
        }
    }

    /// It and what it has started.
    pub(crate) fn processes(&self) -> Tree {
        Tree::of(self.child.id())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let processes = self.processes();
        let _ended_already = self.child.kill();
        let _reaped_already = self.child.wait();
        // A plugin on go-plugin outlives a host that is killed.
        for pid in processes.descendants() {
            kill(*pid);
        }
    }
}

/// For the files of one program.
pub(crate) fn directory() -> Result<TempDir, Failure> {
    Ok(tempfile::Builder::new().prefix("bench-").tempdir()?)
}

/// A program that leaves its files in `directory`, and hears nothing of what is meant for others: what the environment
/// would say to our server, and a terminal's Ctrl-C, after which a host on go-plugin leaves its plugin behind.
pub(crate) fn command(program: &Path, directory: &TempDir) -> Command {
    let mut command = Command::new(program);
    let ours = |name: &OsStr| name.to_string_lossy().starts_with("FIB_") || name == "RUST_LOG";
    for (name, _) in std::env::vars_os().filter(|(name, _)| ours(name)) {
        command.env_remove(name);
    }
    command.env("TMPDIR", directory.path()).env("XDG_RUNTIME_DIR", directory.path()).process_group(0);
    command
}

/// Sends SIGKILL, if there is such a process.
pub(crate) fn kill(pid: u32) {
    if let Some(pid) = pid.try_into().ok().and_then(rustix::process::Pid::from_raw) {
        let _ended_already = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// For a program to start, and for a cache to fill.
const PATIENCE: Duration = Duration::from_secs(20);

const PAUSE: Duration = Duration::from_millis(1);

/// Waits for something of `whom`.
pub(crate) fn wait_for<T>(whom: &str, what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, Failure> {
    let begun = Instant::now();
    loop {
        stop::check()?;
        match look() {
            Some(found) => return Ok(found),
            None if begun.elapsed() > PATIENCE => {
                return Err(format!("{whom}: no {what} after {PATIENCE:?}").into());
            }
            None => sleep(PAUSE),
        }
    }
}
