//! What went wrong with a plugin, in few words of ours.

use std::{borrow::Cow, fmt};

use plugin_sdk::host::{Exit, LaunchError};

/// Why a plugin process ended or did not start: a category, and an exit status if there is one.
///
/// Holds nothing that the plugin has said, which may be secret, so that anybody may see it; and the same failure
/// gives the same value each time, unlike the text of an error with its time stamps and paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    text: Cow<'static, str>,
    permanent: bool,
}

impl Failure {
    /// It was not able to start.
    pub fn of_start(error: &LaunchError) -> Self {
        let text = match error {
            LaunchError::Program { .. } | LaunchError::Spawn { .. } => "cannot be run".into(),
            LaunchError::SocketDir(_) => "no directory for the socket".into(),
            LaunchError::Tls(_) => "no certificate".into(),
            LaunchError::Pipe(_) => "cannot read its output".into(),
            LaunchError::Exited { exit, .. } => format!("exited before it was ready: {exit}").into(),
            LaunchError::StdoutClosed { .. } | LaunchError::Handshake { .. } => "handshake".into(),
            LaunchError::TimedOut { .. } => "timed out".into(),
            LaunchError::Connect { .. } => "cannot connect".into(),
            LaunchError::Unhealthy { .. } => "not healthy".into(),
            _ => "other".into(),
        };
        Self { text, permanent: error.is_permanent() }
    }

    /// It served, and ended by itself.
    pub fn of_run(exit: &Exit) -> Self {
        Self { text: format!("exited: {exit}").into(), permanent: false }
    }

    /// Another start is bound to fail in the same way until somebody replaces the file.
    pub fn is_permanent(&self) -> bool {
        self.permanent
    }
}

/// `exited: signal 9 (SIGKILL)`.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use plugin_sdk::{
        LineProblem,
        host::{ExitKind, StderrTail, StopStep, Waiting},
    };

    use super::*;

    fn exit(uptime: Duration) -> Exit {
        Exit { status: ExitKind::Code(3), after: StopStep::Nothing, uptime }
    }

    #[test]
    fn a_failure_is_the_same_whenever_it_happens() {
        let [first, second] =
            [Duration::from_millis(5), Duration::from_millis(7)].map(|uptime| Failure::of_run(&exit(uptime)));
        assert_eq!(first, second);
        assert_eq!(first.to_string(), "exited: exit status 3");
    }

    #[test]
    fn a_failed_start_has_its_category_and_no_words_of_the_plugin() {
        let stderr_tail = StderrTail::default;
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
            let failure = Failure::of_start(&error);
            assert_eq!((failure.to_string().as_str(), failure.is_permanent()), (expected, permanent));
        }
    }
}
