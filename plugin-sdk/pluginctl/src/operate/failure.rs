//! What can go wrong with an operator's command, and the exit code for it.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use plugin_sdk::control::{ConnectError, Reason};
use thiserror::Error;
use tonic::Status;

use crate::escape::escaped;

/// Exit codes beside 0, and 1 for all other failures. Part of what operators' scripts rely on.
const USAGE: u8 = 2;
const NO_SUCH_PLUGIN: u8 = 3;
const NOT_RUNNING: u8 = 4;
const UNWELL: u8 = 5;
const FAILURE: u8 = 1;

/// Why a command has not led to what it was to lead to.
#[derive(Debug, Error)]
pub(crate) enum OperateError {
    #[error("cannot look for hosts")]
    Search(#[source] io::Error),
    #[error("no host with plugins runs as this user; if it runs elsewhere, name its --socket")]
    NoHost,
    #[error("no such host runs: {}; {running}", escaped(wanted))]
    NoSuchHost { wanted: String, running: String },
    #[error("several hosts run: {candidates}; choose one with --host and what is in parentheses")]
    SeveralHosts { candidates: String },
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("{}", escaped(.0.message()))]
    Refused(Box<Status>),
    #[error("cannot {verb} {}: {}; {next}", escaped(plugin), escaped(status.message()))]
    Order {
        verb: &'static str,
        plugin: String,
        /// What goes on, or what to do.
        next: String,
        status: Box<Status>,
    },
    #[error("the connection to the host broke")]
    Broken(#[source] Box<Status>),
    #[error("the host is of another version: it has left out what was asked for")]
    NoAnswer,
    #[error("the host does not answer within {0:?}")]
    Silent(Duration),
    #[error("it is not known within {0:?} what the order leads to; `pluginctl events` shows it")]
    TimedOut(Duration),
    #[error("the path for --path cannot be used")]
    Path(#[source] io::Error),
    #[error("the path for --path has to be UTF-8")]
    PathNotText,
    /// All that there is to say was said as data.
    #[error("the plugin does not run")]
    NotRunning,
    /// The same.
    #[error("the plugin is not well")]
    Unwell,
    #[error("cannot write {path}")]
    Write { path: String, source: io::Error },
}

impl From<Status> for OperateError {
    fn from(status: Status) -> Self {
        // What the host says has no source here.
        if status.source().is_none() {
            Self::Refused(Box::new(status))
        } else {
            Self::Broken(Box::new(status))
        }
    }
}

impl OperateError {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::SeveralHosts { .. } => USAGE,
            Self::NoHost
            | Self::NoSuchHost { .. }
            | Self::Connect(_)
            | Self::Broken(_)
            | Self::NotRunning => NOT_RUNNING,
            Self::Unwell => UNWELL,
            Self::Refused(status) | Self::Order { status, .. } => match Reason::of(status) {
                Some(Reason::NoSuchPlugin) => NO_SUCH_PLUGIN,
                Some(Reason::PluginNotNamed) => USAGE,
                Some(Reason::HostStopping) => NOT_RUNNING,
                _ => FAILURE,
            },
            _ => FAILURE,
        }
    }

    /// Whether stderr need not repeat it.
    pub(crate) fn is_said(&self) -> bool {
        matches!(self, Self::NotRunning | Self::Unwell)
    }
}
