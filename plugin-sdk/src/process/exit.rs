//! How a plugin process ended.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

/// The end of a plugin process, as the operating system reported it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exit {
    /// What the process left behind.
    pub status: ExitKind,
    /// What the host had done to it before, if anything.
    pub after: StopStep,
    /// From its start to its end.
    pub uptime: Duration,
}

/// The ways in which a process can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitKind {
    /// It ended by itself, with this code.
    Code(i32),
    /// A signal ended it.
    Signal {
        /// The signal's number on this machine.
        number: i32,
        /// Whether a core was dumped.
        core_dumped: bool,
    },
    /// It has ended, and how is known to its parent or runner only, if to anybody.
    Unknown,
    /// It runs on: this host has only left it.
    LeftRunning,
    /// It got SIGKILL and still was not gone when waiting for it was given up: the kernel is holding it, usually in
    /// I/O on a dead file system. Or its runner could not end it.
    Unreaped,
}

/// How far a host went in order to stop a process. Each step includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum StopStep {
    /// Nothing: the process ended of its own accord.
    Nothing,
    /// Asked it with `GRPCController.Shutdown`.
    Shutdown,
    /// Sent SIGTERM.
    Terminate,
    /// Sent SIGKILL to its process group, or had its runner kill it.
    Kill,
}

impl Exit {
    /// Whether the process ended by itself with code 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.status == ExitKind::Code(0)
    }
}

impl From<ExitStatus> for ExitKind {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(number)) => Self::Signal { number, core_dumped: status.core_dumped() },
            (None, None) => Self::Unreaped,
        }
    }
}

/// `exit status 3`, `signal 9 (SIGKILL)`.
impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            ExitKind::Code(code) => write!(f, "exit status {code}"),
            ExitKind::Signal { number, core_dumped } => {
                write!(f, "signal {number}")?;
                if let Some(name) = signal_name(number) {
                    write!(f, " ({name})")?;
                }
                f.write_str(if core_dumped { ", core dumped" } else { "" })
            }
            ExitKind::Unknown => f.write_str("ended"),
            ExitKind::LeftRunning => f.write_str("left running"),
            ExitKind::Unreaped => f.write_str("still there after SIGKILL"),
        }
    }
}

fn signal_name(number: i32) -> Option<&'static str> {
    use rustix::process::Signal;
    let names = [
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::HUP, "SIGHUP"),
        (Signal::ILL, "SIGILL"),
        (Signal::INT, "SIGINT"),
        (Signal::KILL, "SIGKILL"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::SYS, "SIGSYS"),
        (Signal::TERM, "SIGTERM"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::XCPU, "SIGXCPU"),
    ];
    names.iter().find(|(signal, _)| signal.as_raw() == number).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_decoded_as_wait_reports_them() {
        for (raw, text) in [
            (0, "exit status 0"),
            (3 << 8, "exit status 3"),
            (9, "signal 9 (SIGKILL)"),
            (6 | 0x80, "signal 6 (SIGABRT), core dumped"),
            (50, "signal 50"),
        ] {
            let status = ExitKind::from(ExitStatus::from_raw(raw));
            let exit = Exit { status, after: StopStep::Nothing, uptime: Duration::ZERO };
            assert_eq!(exit.to_string(), text);
        }
    }
}
