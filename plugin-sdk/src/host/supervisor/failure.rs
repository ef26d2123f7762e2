//! What went wrong with an instance.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use super::PrepareError;
use crate::host::{AttachError, Exit, ExitKind, HealthError, LaunchError, ProgramProblem, StderrTail};
use crate::one_line;
use crate::report::counted;

/// Why an instance ended, or could not be started.
///
/// Shown, it holds none of the plugin's own words, which may be secret, so that anybody may see it; the same failure
/// shows the same each time. Its source and [`detail`](Self::detail) have all of it, for the operator.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Failure {
    /// It did not start.
    Start(Arc<LaunchError>),
    /// It cannot be attached to.
    Attach(Arc<AttachError>),
    /// It started, and the application could not [prepare](crate::host::Supervisor::prepare) it.
    Prepare(Arc<PrepareError>),
    /// It served, and ended.
    Ended(Exit),
    /// It did not answer health checks, and was killed.
    Silent {
        /// How many checks in a row.
        probes: u32,
        /// Its end.
        exit: Exit,
    },
    /// The connection to somebody else's plugin broke.
    Lost,
}

impl Failure {
    /// Whether another start is bound to fail in the same way, until somebody replaces the file or changes the
    /// configuration.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Start(error) => error.is_permanent(),
            // A service of another version is its owner's to replace, who does not tell us.
            Self::Attach(error) => {
                matches!(
                    **error,
                    AttachError::NoProcess { .. }
                        | AttachError::VersionUnknown { .. }
                        | AttachError::AutoMtls
                )
            }
            Self::Prepare(_) | Self::Ended(_) | Self::Silent { .. } | Self::Lost => false,
        }
    }

    /// Whether the plugin has ended by itself with exit status 0. Nobody has asked it to, so it is a failure; the policy
    /// [`OnFailure`](super::Restart::OnFailure) alone takes it for none.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Ended(exit) if exit.is_success())
    }

    /// Whether it has started as it should, and says itself that it cannot work for now.
    pub(super) fn is_unwell(&self) -> bool {
        let health = match self {
            Self::Start(error) => match &**error {
                LaunchError::Unhealthy { source, .. } => source,
                _ => return false,
            },
            Self::Attach(error) => match &**error {
                AttachError::Unhealthy { source, .. } => source,
                _ => return false,
            },
            Self::Prepare(_) | Self::Ended(_) | Self::Silent { .. } | Self::Lost => return false,
        };
        matches!(health, HealthError::NotServing(_))
    }

    /// Whether there is no file to be started, or not all of it.
    pub(super) fn is_file_away(&self) -> bool {
        let Self::Start(error) = self else { return false };
        let LaunchError::Program { problem, .. } = &**error else { return false };
        matches!(problem, ProgramProblem::Missing | ProgramProblem::CutShort { .. })
    }

    /// How its process ended, if there was one.
    #[must_use]
    pub fn exit(&self) -> Option<&Exit> {
        match self {
            Self::Ended(exit) | Self::Silent { exit, .. } => Some(exit),
            Self::Start(error) => match &**error {
                LaunchError::Exited { exit, .. } => Some(exit),
                _ => None,
            },
            Self::Attach(_) | Self::Prepare(_) | Self::Lost => None,
        }
    }

    /// How much of the plugin's own words it holds.
    pub(super) fn text_bytes(&self) -> usize {
        match self {
            Self::Start(error) => error.stderr_tail().map_or(0, StderrTail::bytes),
            Self::Attach(_) | Self::Prepare(_) | Self::Ended(_) | Self::Silent { .. } | Self::Lost => 0,
        }
    }

    /// All there is to say, on one line, the plugin's own last words among it.
    #[must_use]
    pub fn detail(&self) -> String {
        match self {
            Self::Start(error) => one_line(&**error).to_string(),
            Self::Attach(error) => one_line(&**error).to_string(),
            Self::Prepare(error) => one_line(&**error).to_string(),
            other => other.to_string(),
        }
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Start(error) => Some(&**error),
            Self::Attach(error) => Some(&**error),
            Self::Prepare(error) => Some(&**error),
            Self::Ended(_) | Self::Silent { .. } | Self::Lost => None,
        }
    }
}

/// `exited: signal 9 (SIGKILL)`.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => match &**error {
                LaunchError::UnusableCookie | LaunchError::NoVersion => {
                    f.write_str("the contract cannot be used")
                }
                LaunchError::Nul { .. } => f.write_str("its arguments or environment cannot be used"),
                LaunchError::CurrentDir { .. } => f.write_str("its working directory cannot be entered"),
                LaunchError::Program { .. } | LaunchError::Spawn { .. } => f.write_str("cannot be run"),
                LaunchError::Checksum { .. } => f.write_str("has another checksum, or cannot be checked"),
                LaunchError::SocketDir(_) => f.write_str("no directory for the socket"),
                LaunchError::Tls(_) => f.write_str("no certificate"),
                LaunchError::Pipe(_) => f.write_str("cannot read its output"),
                LaunchError::Exited { exit, .. } => write!(f, "exited before it was ready: {exit}"),
                LaunchError::StdoutClosed { .. } | LaunchError::Handshake { .. } => f.write_str("handshake"),
                LaunchError::TimedOut { .. } => f.write_str("timed out"),
                LaunchError::Connect { .. } => f.write_str("cannot connect"),
                LaunchError::Unhealthy { .. } => f.write_str("not healthy"),
            },
            Self::Attach(error) => match &**error {
                AttachError::NoProcess { .. } | AttachError::Runner(_) => f.write_str("no such process"),
                AttachError::NotFound { .. } => f.write_str("not found at its address"),
                AttachError::TimedOut { .. } => f.write_str("timed out"),
                AttachError::Unhealthy { .. } => f.write_str("not healthy"),
                AttachError::Version { .. } | AttachError::VersionUnknown { .. } => f.write_str("version"),
                AttachError::AutoMtls => f.write_str("AutoMTLS is not possible"),
                AttachError::SocketDir(_) => f.write_str("no directory for the socket"),
            },
            Self::Prepare(_) => f.write_str("not prepared"),
            Self::Ended(exit) if exit.status == ExitKind::Unknown => f.write_str("ended"),
            Self::Ended(exit) if exit.is_success() => write!(f, "exited, and was not asked to: {exit}"),
            Self::Ended(exit) => write!(f, "exited: {exit}"),
            Self::Silent { probes, .. } => write!(f, "did not answer {}", counted(*probes, "health check")),
            Self::Lost => f.write_str("the connection broke"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::LineProblem;
    use crate::host::{StderrTail, StopStep, Waiting};

    fn exit(uptime: Duration) -> Exit {
        Exit { status: ExitKind::Code(3), after: StopStep::Nothing, uptime }
    }

    #[test]
    fn a_failure_is_shown_the_same_whenever_it_happens_and_without_words_of_the_plugin() {
        let stderr_tail = || StderrTail { lines: vec!["token=hunter2".to_owned()], diagnosis: None };
        for (error, expected, permanent) in [
            (
                LaunchError::Exited { exit: exit(Duration::ZERO), stderr_tail: stderr_tail() },
                "exited before it was ready: exit status 3",
                false,
            ),
            (
                LaunchError::TimedOut {
                    after: Duration::ZERO,
                    waiting_for: Waiting::Line("token=hunter2".into()),
                    stderr_tail: stderr_tail(),
                },
                "timed out",
                false,
            ),
            (
                LaunchError::Handshake {
                    line: "token=hunter2".into(),
                    problem: LineProblem::NetRpc,
                    stderr_tail: stderr_tail(),
                },
                "handshake",
                true,
            ),
        ] {
            let failure = Failure::Start(Arc::new(error));
            assert_eq!((failure.to_string().as_str(), failure.is_permanent()), (expected, permanent));
            assert!(failure.detail().contains("hunter2"));
        }
        let [first, second] = [5, 7].map(|millis| Failure::Ended(exit(Duration::from_millis(millis))));
        assert_eq!(first.to_string(), second.to_string());
        assert_eq!(first.to_string(), "exited: exit status 3");
        let success = Failure::Ended(Exit { status: ExitKind::Code(0), ..exit(Duration::ZERO) });
        assert_eq!(success.to_string(), "exited, and was not asked to: exit status 0");
    }
}
