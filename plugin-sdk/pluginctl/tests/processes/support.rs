//! Running `pluginctl`, and looking at what it said and left behind.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};

use tempfile::TempDir;

/// A place to run `pluginctl` in: its working directory, and its directory for temporary files.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory can be made"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// A command that has not been started yet.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pluginctl"));
        command.args(args).current_dir(self.path()).env("TMPDIR", self.path());
        command
    }

    /// Runs `pluginctl` until it ends.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ran {
        self.finish(self.start(args))
    }

    /// Starts it, with pipes for all that it reads and writes.
    #[expect(clippy::disallowed_methods, reason = "pluginctl is no plugin")]
    pub(crate) fn start<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Child {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("pluginctl starts")
    }

    /// Waits for the end of what was started, and reads what it says.
    pub(crate) fn finish(&self, mut child: Child) -> Ran {
        drop(child.stdin.take());
        let (stdout, stderr) = (read(child.stdout.take()), read(child.stderr.take()));
        let status = e2e::process::wait_for_exit(&mut child, "pluginctl to end");
        let text = |reader: JoinHandle<String>| reader.join().expect("all that it says is text");
        let (stdout, stderr) = (text(stdout), text(stderr));
        assert!(!stdout.contains('\u{1b}') && !stderr.contains('\u{1b}'), "{stdout}{stderr}");
        let sockets = fs::read_dir(self.path()).expect("it is there").flatten();
        let left = sockets.filter(|entry| entry.file_name().to_string_lossy().starts_with("plugin-"));
        assert_eq!(left.count(), 0, "directories for sockets are left: {stderr}");
        Ran { code: status.code(), stdout, stderr }
    }
}

/// Reads all, beside whatever else goes on, so that nobody waits for a full pipe.
fn read(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    thread::spawn(|| {
        let mut text = String::new();
        let read = pipe.map_or(Ok(0), |mut pipe| pipe.read_to_string(&mut text));
        read.map(|_| text).expect("all that it says is text")
    })
}

/// What a run gave.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Stdout of a run in which all has worked and nothing was said.
    #[track_caller]
    pub(crate) fn worked(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{}", self.stdout);
        self.stdout
    }

    /// The one line that a failed run has said.
    #[track_caller]
    pub(crate) fn failed(&self) -> &str {
        assert_eq!((self.code, self.stderr.lines().count()), (Some(1), 1), "{self:?}");
        self.stderr.trim_end()
    }

    /// Stdout as one JSON value per line.
    #[track_caller]
    pub(crate) fn json(&self) -> Vec<serde_json::Value> {
        let parse = |line| serde_json::from_str(line).expect("each line is JSON");
        self.stdout.lines().map(parse).collect()
    }
}

/// Splits a command line at its spaces.
pub(crate) fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}
