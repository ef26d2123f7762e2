//! The faults there are, and their names on the command line.

use std::time::Duration;

use crate::Code;
use crate::handshake::Line;

/// What to do wrong.
pub(crate) enum Fault {
    /// Before or instead of serving.
    Early(Early),
    /// While serving.
    Late(Late),
}

/// Faults of a process that never serves.
pub(crate) enum Early {
    /// A reason on stderr, then this exit status.
    Exit(u8),
    /// These bytes on stdout, and nothing more.
    Say(&'static [u8]),
    /// One line of so many bytes.
    Junk { bytes: usize },
    /// A handshake line, with nothing behind it.
    Announce(Line),
    /// End of file on stdout, while the process lives.
    CloseStdout,
    /// Nothing at all.
    Silent,
    /// Exit status 7 right after a good handshake line.
    Crash,
    /// Accepts connections and never speaks HTTP/2.
    Deaf,
}

/// Faults of a process that serves.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Late {
    /// No fault.
    None,
    /// Log lines on stdout before the handshake line.
    LogsFirst,
    /// The health service answers NOT_SERVING.
    NotServing,
    /// No health service.
    NoHealth,
    /// Shutdown is never answered and SIGTERM is not heeded.
    IgnoreTerm,
    /// A grandchild keeps stdout and stderr open.
    ForkGrandchild,
    /// A megabyte and more on stderr.
    FloodStderr,
    /// Lines of 70 kB on stdout after the handshake.
    FloodStdout,
    /// Each call takes so long.
    Slow(Duration),
    /// Calls are never answered.
    Hang,
    /// Each call is answered with this status.
    Status(Code),
    /// Each call is answered with a message that cannot be decoded.
    Garbage,
    /// Exit status 9 instead of an answer, after so many calls.
    DieAfter(usize),
}

impl Fault {
    /// Reads `name` or `name=value`, for a plugin whose good line is `line`.
    pub(crate) fn parse(argument: &str, line: &Line) -> Option<Self> {
        let (name, value) = argument.split_once('=').unwrap_or((argument, ""));
        Some(match name {
            "exit-before-handshake" => Self::Early(Early::Exit(value.parse().ok()?)),
            "rubbish" => Self::Early(Early::Say(b"hello I am not a plugin\n")),
            "half-line" => Self::Early(Early::Say(b"1|1|unix|/tmp/plu")),
            "empty-line" => Self::Early(Early::Say(b"\n")),
            "bad-utf8" => Self::Early(Early::Say(b"\xff\xfe\x00 not text\n")),
            "junk-70k" => Self::Early(Early::Junk { bytes: 70_000 }),
            "core-version" => Self::Early(Early::Announce(Line { core: value.to_owned(), ..line.clone() })),
            "app-version" => Self::Early(Early::Announce(Line { app: value.to_owned(), ..line.clone() })),
            "network" => Self::Early(Early::Announce(Line { network: value.to_owned(), ..line.clone() })),
            "netrpc" => Self::Early(Early::Announce(Line { protocol: "netrpc", ..line.clone() })),
            "unasked-cert" => Self::Early(Early::Announce(Line { cert: "MIIB".repeat(20), ..line.clone() })),
            "no-listen" => Self::Early(Early::Announce(line.clone())),
            "close-stdout" => Self::Early(Early::CloseStdout),
            "silent" | "grandchild" => Self::Early(Early::Silent),
            "crash-after-handshake" => Self::Early(Early::Crash),
            "deaf" => Self::Early(Early::Deaf),
            "ok" => Self::Late(Late::None),
            "two-lines-of-log-first" => Self::Late(Late::LogsFirst),
            "not-serving" => Self::Late(Late::NotServing),
            "no-health" => Self::Late(Late::NoHealth),
            "ignore-term" => Self::Late(Late::IgnoreTerm),
            "fork-grandchild" => Self::Late(Late::ForkGrandchild),
            "flood-stderr" => Self::Late(Late::FloodStderr),
            "flood-stdout" => Self::Late(Late::FloodStdout),
            "slow" => Self::Late(Late::Slow(Duration::from_millis(value.parse().ok()?))),
            "hang" => Self::Late(Late::Hang),
            "status" => Self::Late(Late::Status(Code(value.parse().ok()?))),
            "garbage" => Self::Late(Late::Garbage),
            "die-after" => Self::Late(Late::DieAfter(value.parse().ok()?)),
            _ => return None,
        })
    }
}
