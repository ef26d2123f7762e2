//! Why a plugin did not start, or is not well. Variants are grouped by whose move is next.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::report::escape;
use crate::{BrokerError, LineProblem, PluginAddress, TlsError};

use super::journal::Weigh;
use super::{ChecksumError, Exit, ProgramProblem};

/// Why there is no running plugin.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LaunchError {
    // The host's author has to mend the contract.
    /// A half of the cookie is empty, or cannot stand in an environment.
    #[error("the magic cookie is empty or cannot be an environment variable")]
    UnusableCookie,
    /// The contract has no application protocol version.
    #[error("the contract has no application protocol version")]
    NoVersion,

    // The operator has to mend the path, the file or the machine.
    /// The file cannot be started; found out without starting it.
    #[error("cannot start {}", program.display())]
    Program {
        /// The path.
        program: PathBuf,
        /// What is wrong with it.
        #[source]
        problem: ProgramProblem,
    },
    /// An argument, or a variable of its environment, has a NUL byte in it, which no program can be given.
    #[error("cannot start {}: {holder} has a NUL byte in it", program.display())]
    Nul {
        /// The path.
        program: PathBuf,
        /// What has it.
        holder: NulIn,
    },
    /// The directory that it is to work in is not there, or is none that may be entered.
    #[error("cannot start {}: its working directory {} cannot be entered", program.display(), dir.display())]
    CurrentDir {
        /// The path.
        program: PathBuf,
        /// The directory.
        dir: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file is not the one that was pinned.
    #[error("cannot start {}", program.display())]
    Checksum {
        /// The path.
        program: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ChecksumError,
    },
    /// The operating system, or its runner, refused to start it.
    #[error("cannot start {}", program.display())]
    Spawn {
        /// The path.
        program: PathBuf,
        /// Its reason.
        #[source]
        source: io::Error,
    },
    /// There is no place for the socket.
    #[error("cannot make a directory for the plugin's socket")]
    SocketDir(#[source] io::Error),
    /// No certificate could be made.
    #[error("cannot set up TLS")]
    Tls(#[from] TlsError),
    /// A pipe could not be read.
    #[error("cannot read the plugin's output")]
    Pipe(#[source] io::Error),

    // The plugin's author has to mend the plugin; `stderr_tail` usually says what.
    /// The process ended before it was ready.
    #[error("the plugin ended before its start was complete: {exit}{stderr_tail}")]
    Exited {
        /// How.
        exit: Exit,
        /// What it said last.
        stderr_tail: StderrTail,
    },
    /// It closed its stdout without a line and goes on running.
    #[error("the plugin closed its stdout before its handshake{stderr_tail}")]
    StdoutClosed {
        /// What it said last.
        stderr_tail: StderrTail,
    },
    /// The first line of stdout is no handshake that this host can follow.
    #[error(
        "the plugin's first line on stdout cannot be used: {problem}; the line is {}{stderr_tail}",
        Quoted(line)
    )]
    Handshake {
        /// The line, at most its first 200 characters.
        line: String,
        /// What is wrong with it.
        problem: LineProblem,
        /// What it said last.
        stderr_tail: StderrTail,
    },
    /// It did not get ready in time.
    #[error("the plugin was not ready within {after:?}: {waiting_for}{stderr_tail}")]
    TimedOut {
        /// The start time-out.
        after: Duration,
        /// What had not happened yet.
        waiting_for: Waiting,
        /// What it said last.
        stderr_tail: StderrTail,
    },
    /// Nothing that speaks gRPC answers at the announced address.
    #[error("cannot connect to the plugin at {address}{stderr_tail}")]
    Connect {
        /// What it announced.
        address: PluginAddress,
        /// What went wrong.
        #[source]
        source: BrokerError,
        /// What it said last.
        stderr_tail: StderrTail,
    },
    /// It answers, and says that it cannot work.
    #[error("the plugin started and is not well{stderr_tail}")]
    Unhealthy {
        /// What it said.
        #[source]
        source: HealthError,
        /// What it said last.
        stderr_tail: StderrTail,
    },
}

impl LaunchError {
    /// What the plugin said last, if it was started.
    #[must_use]
    pub fn stderr_tail(&self) -> Option<&StderrTail> {
        match self {
            Self::Exited { stderr_tail, .. }
            | Self::StdoutClosed { stderr_tail }
            | Self::Handshake { stderr_tail, .. }
            | Self::TimedOut { stderr_tail, .. }
            | Self::Connect { stderr_tail, .. }
            | Self::Unhealthy { stderr_tail, .. } => Some(stderr_tail),
            _ => None,
        }
    }

    /// Whether another start of the same file is bound to fail in the same way, so that the file, the path or the
    /// contract has to change first.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::UnusableCookie | Self::NoVersion | Self::Nul { .. } => true,
            Self::Checksum { source, .. } => {
                matches!(
                    source,
                    ChecksumError::Mismatch { .. } | ChecksumError::Script | ChecksumError::Runner
                )
            }
            // A file that is missing, or not all there, may be about to come.
            Self::Program { problem, .. } => !matches!(
                problem,
                ProgramProblem::Io(_) | ProgramProblem::Missing | ProgramProblem::CutShort { .. }
            ),
            Self::Handshake { problem, .. } => matches!(
                problem,
                LineProblem::NetRpc
                    | LineProblem::Protocol { .. }
                    | LineProblem::AppVersion { .. }
                    | LineProblem::CoreVersion { .. }
                    | LineProblem::UnexpectedCertificate
                    | LineProblem::MissingCertificate
                    | LineProblem::MultiplexingUnsupported
            ),
            _ => false,
        }
    }
}

/// What has a NUL byte in it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NulIn {
    /// An argument: its number, from 1.
    Argument(usize),
    /// A variable: its name, in a form that can be shown. Its value may be a secret.
    Variable(String),
}

impl fmt::Display for NulIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argument(number) => write!(f, "its argument {number}"),
            Self::Variable(name) => {
                f.write_str("its environment variable ")?;
                escape(name, f)
            }
        }
    }
}

/// What a start was waiting for when its time was up.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Waiting {
    /// Its runner, to start it.
    Runner,
    /// A line on stdout. Holds what had come of it, at most 200 characters.
    Line(String),
    /// A connection and the answer to a health check.
    Health,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runner => f.write_str("its runner did not start it"),
            Self::Line(begun) if begun.is_empty() => f.write_str("it printed no handshake line"),
            Self::Line(begun) => write!(f, "its handshake line has no end, it began with {}", Quoted(begun)),
            Self::Health => f.write_str("it did not answer a health check at the address it announced"),
        }
    }
}

/// Why a plugin is not well.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HealthError {
    /// It answered with another status than `SERVING`.
    #[error("its health is {0}")]
    NotServing(&'static str),
    /// The check itself failed.
    #[error("its health check failed")]
    Check(#[from] tonic::Status),
    /// No answer.
    #[error("no answer to a health check within {0:?}")]
    TimedOut(Duration),
}

/// The last lines of a plugin's stderr, and what its runner had to add to them. Shown, it is nothing, or a part of a
/// sentence that begins with a semicolon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StderrTail {
    pub(super) lines: Vec<String>,
    pub(super) diagnosis: Option<Box<str>>,
}

impl StderrTail {
    /// The lines, the oldest first. Long ones are cut.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// What a [`Runner`](super::Runner)'s [`diagnose`](super::Running::diagnose) has said of a start that failed.
    #[must_use]
    pub fn diagnosis(&self) -> Option<&str> {
        self.diagnosis.as_deref()
    }

    /// Without the lines that are not shown.
    pub(super) fn shortened(self) -> Self {
        let lines = self.shown().1.into_iter().cloned().collect();
        Self { lines, ..self }
    }

    /// The lines that fit into one line of an error, after the word that introduces them.
    fn shown(&self) -> (&'static str, Vec<&String>) {
        let mut said: Vec<_> = self.lines.iter().filter(|line| !line.trim().is_empty()).collect();
        let begins = |line: &&String| COMPLAINTS.iter().any(|begin| line.starts_with(begin));
        match said.iter().rposition(begins) {
            Some(first) => ("says", said.drain(first..).take(LINES_OF_COMPLAINT).collect()),
            None => ("ends with", said.split_off(said.len().saturating_sub(LAST_LINES))),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.lines.bytes() + self.diagnosis.as_deref().map_or(0, str::len)
    }
}

/// Lines that fit into one line of an error, without and with one that begins the complaint.
const LAST_LINES: usize = 3;
const LINES_OF_COMPLAINT: usize = 5;

/// How complaints begin: of command line parsers and compilers, of Go, and of Rust.
const COMPLAINTS: [&str; 4] = ["error:", "panic:", "fatal error:", "thread '"];

impl fmt::Display for StderrTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (introduction, shown) = self.shown();
        for (index, line) in shown.iter().enumerate() {
            if index == 0 {
                write!(f, "; its stderr {introduction} ")?;
            } else {
                f.write_str(", ")?;
            }
            Quoted(line).fmt(f)?;
        }
        if let Some(diagnosis) = &self.diagnosis {
            write!(f, "; its runner says {}", Quoted(diagnosis))?;
        }
        Ok(())
    }
}

/// Text from a plugin in quotes, on one line.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        escape(self.0, f)?;
        f.write_str("\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(lines: &[&str]) -> StderrTail {
        StderrTail { lines: lines.iter().copied().map(str::to_owned).collect(), diagnosis: None }
    }

    #[test]
    fn a_tail_shows_its_last_lines_without_control_characters() {
        let mut tail = tail(&["one", "two", " ", "th\u{1b}ree", "four"]);
        assert_eq!(tail.to_string(), r#"; its stderr ends with "two", "th\u{1b}ree", "four""#);
        tail.diagnosis = Some("no image\nat all".into());
        assert!(tail.to_string().ends_with(r#""four"; its runner says "no image\nat all""#), "{tail}");
        assert_eq!(StderrTail::default().to_string(), "");
        assert_eq!(tail.clone().shortened().to_string(), tail.to_string());
        assert_eq!(tail.shortened().lines(), ["two", "th\u{1b}ree", "four"]);
    }

    #[test]
    fn a_complaint_is_shown_from_its_beginning() {
        let tail = tail(&[
            "starting",
            "panic: oh",
            "",
            "goroutine 1 [running]:",
            "main.main()",
            "\t/x.go:5",
            "exit status 2",
            "x",
        ]);
        assert!(tail.to_string().starts_with(r#"; its stderr says "panic: oh", "goroutine 1"#), "{tail}");
        assert!(!tail.to_string().contains(r#""x""#));
        assert_eq!(tail.clone().shortened().to_string(), tail.to_string());
    }
}
