//! What can go wrong once the command line is understood, and what to try next.

use std::io;
use std::time::Duration;

use plugin_sdk::LineProblem;
use plugin_sdk::host::{Exit, HealthError, LaunchError, Plugin, StderrTail, StopStep};
use thiserror::Error;

use crate::data::DataError;
use crate::limits::EXIT_GRACE;
use crate::operate::OperateError;
use crate::output::OutputError;
use crate::reflection::ReflectionError;
use crate::schema::SchemaError;
use crate::status::CallStatus;
use crate::stop::Signal;

/// Why not all has worked.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    #[error("cannot start the run time")]
    Runtime(#[source] io::Error),
    #[error("ended by {0}")]
    Stopped(Signal),
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error("the plugin is not well")]
    Unwell(#[from] HealthError),
    #[error(transparent)]
    Reflection(#[from] ReflectionError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Status(CallStatus),
    #[error("the plugin answered without a message, as only a stream may")]
    NoMessage,
    #[error("the plugin's answer cannot be shown as JSON")]
    Unshowable(#[source] serde_json::Error),
    #[error("{what} was not complete within {after:?}")]
    TimedOut { what: &'static str, after: Duration },
    #[error("the plugin ended by itself: {exit}{stderr_tail}")]
    Ended { exit: Exit, stderr_tail: StderrTail },
    #[error("the plugin cannot be stopped: it is {exit}")]
    NotGone { exit: Exit },
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error(transparent)]
    Operate(#[from] OperateError),
}

impl From<Signal> for Failure {
    fn from(signal: Signal) -> Self {
        Self::Stopped(signal)
    }
}

impl Failure {
    /// If the plugin has died, that is the cause of whatever else has failed.
    pub(crate) async fn or_end_of(self, plugin: &Plugin) -> Self {
        match self {
            Self::Stopped(_) | Self::Data(_) | Self::Output(_) | Self::Operate(_) => self,
            _ => match tokio::time::timeout(EXIT_GRACE, plugin.exited()).await {
                Ok(exit) if exit.after == StopStep::Nothing => {
                    Self::Ended { exit, stderr_tail: plugin.stderr_tail() }
                }
                _ => self,
            },
        }
    }

    /// Which flag may help.
    pub(crate) fn hint(&self) -> Option<String> {
        let Self::Launch(error) = self else { return None };
        match error {
            LaunchError::Handshake { problem, stderr_tail, .. } => match problem {
                LineProblem::UnexpectedCertificate => Some("try --auto-mtls".to_owned()),
                LineProblem::MissingCertificate => Some("try without --auto-mtls".to_owned()),
                LineProblem::MultiplexingUnsupported => Some("try without --multiplex".to_owned()),
                LineProblem::AppVersion { plugin, .. } => Some(format!("try --app-versions {plugin}")),
                _ => cookie_hint(stderr_tail),
            },
            LaunchError::Exited { stderr_tail, .. } | LaunchError::StdoutClosed { stderr_tail } => {
                cookie_hint(stderr_tail)
            }
            _ => None,
        }
    }
}

/// A plugin that does not find its cookie takes itself for started by a person, and says so in its library's words.
fn cookie_hint(stderr: &StderrTail) -> Option<String> {
    let by_hand =
        |line: &String| line.contains("This binary is a plugin") || line.contains("This program is a plugin");
    stderr.lines().iter().any(by_hand).then(|| "the --cookie is not this plugin's".to_owned())
}
