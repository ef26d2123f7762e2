//! Programs that are started to be measured, and end with this one.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tempfile::TempDir;

use crate::load::timespec;
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

/// The lines that a program prints.
#[derive(Debug)]
pub(crate) struct Lines {
    stdout: ChildStdout,
    /// What has come and was not given yet.
    read: Vec<u8>,
}

impl Lines {
    pub(crate) fn of(stdout: ChildStdout) -> Self {
        Self { stdout, read: Vec::new() }
    }

    /// Waits for the next line of `whom`, and gives it without its end.
    pub(crate) fn next(&mut self, whom: &str, patience: Duration) -> Result<String, Failure> {
        let begun = Instant::now();
        loop {
            stop::check()?;
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.drain(..=end).take(end).collect();
                return Ok(String::from_utf8(line)?);
            }
            let left = patience.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(format!("{whom} has said nothing for {patience:?}").into());
            }
            let readable = &mut [PollFd::new(&self.stdout, PollFlags::IN)];
            match poll(readable, Some(&timespec(left))) {
                // A signal, which is for the next look.
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
            let mut buffer = [0; 4096];
            match self.stdout.read(&mut buffer)? {
                0 => return Err(format!("{whom} has ended").into()),
                length => self.read.extend_from_slice(&buffer[..length]),
            }
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
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

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

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    #[test]
    fn lines_are_given_one_by_one_and_a_program_that_says_no_more_is_not_waited_for() {
        let directory = directory().unwrap();
        let mut shell = command(Path::new("/bin/sh"), &directory);
        shell
            .args(["-c", "printf 'one\\ntwo\\nthr'; read -r go_on"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut shell = Started::new(&mut shell).unwrap();
        let mut lines = Lines::of(shell.child.stdout.take().unwrap());
        assert_eq!(lines.next("it", PATIENCE).unwrap(), "one");
        assert_eq!(lines.next("it", PATIENCE).unwrap(), "two");
        let error = lines.next("it", Duration::from_millis(20)).unwrap_err().to_string();
        assert_eq!(error, "it has said nothing for 20ms");
        drop(shell.child.stdin.take());
        assert_eq!(lines.next("it", PATIENCE).unwrap_err().to_string(), "it has ended");
    }
}
