//! What the supervisor publishes: where the plugin is in its life, and how it got there.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::policy::Intensity;
use super::{Failure, OrderError};
use crate::report::counted;
use crate::{AppVersion, PluginAddress};

/// Where a plugin is in its life.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum PluginState {
    /// An instance is being started, or attached to.
    Starting {
        /// Which start in a row it is, from 1.
        attempt: u32,
    },
    /// An instance takes calls.
    Serving(Live),
    /// An instance runs and is not well. Calls fail at once until it is.
    Degraded {
        /// The instance.
        live: Live,
        /// What is wrong with it.
        why: Degradation,
    },
    /// An instance is being ended.
    Stopping,
    /// There is none; the next start comes by itself.
    BackingOff {
        /// Which start in a row it will be, from 1.
        attempt: u32,
        /// When.
        retry_at: Instant,
        /// What happened last.
        last: Option<Failure>,
    },
    /// There is none, and no start comes by itself: an operator has to start or clear it, or its file has to change
    /// if that is watched.
    GaveUp {
        /// Why.
        why: GiveUpReason,
        /// What happened last.
        last: Option<Failure>,
    },
    /// There is none, and there need not be one.
    Stopped(StopReason),
    /// There is none, and nothing but `enable` starts one.
    Disabled,
}

impl PluginState {
    /// The state in one word of lower case, for programs: `starting`, `serving`, `degraded`, `stopping`,
    /// `backing-off`, `gave-up`, `stopped`, `disabled`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Starting { .. } => "starting",
            Self::Serving(_) => "serving",
            Self::Degraded { .. } => "degraded",
            Self::Stopping => "stopping",
            Self::BackingOff { .. } => "backing-off",
            Self::GaveUp { .. } => "gave-up",
            Self::Stopped(_) => "stopped",
            Self::Disabled => "disabled",
        }
    }

    /// The instance that runs.
    #[must_use]
    pub fn live(&self) -> Option<&Live> {
        match self {
            Self::Serving(live) | Self::Degraded { live, .. } => Some(live),
            _ => None,
        }
    }
}

/// An instance that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Live {
    /// Its number among the instances of this plugin, from 1.
    pub instance: u64,
    /// Its process id; `None` for a service.
    pub pid: Option<u32>,
    /// The version that was agreed on.
    pub app_version: AppVersion,
    /// Where it listens.
    pub address: PluginAddress,
    /// Since when it serves.
    pub since: Instant,
    /// The same on the calendar.
    pub since_time: SystemTime,
}

/// What is wrong with an instance that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Degradation {
    /// It says so.
    #[error("its health is {0}")]
    NotServing(&'static str),
    /// It does not answer health checks.
    #[error("it has not answered {}", counted(*probes, "health check"))]
    Silent {
        /// How many in a row.
        probes: u32,
    },
    /// Calls to it fail, one after the other; see [`CallError::Suspended`](crate::host::CallError::Suspended).
    #[error("calls to it fail")]
    CallsFail,
}

/// Why no start comes by itself any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GiveUpReason {
    /// Another start is bound to fail in the same way.
    #[error("another start would fail in the same way")]
    Permanent,
    /// So many starts in a row did not get it to serve.
    #[error("{}", never_served(*starts))]
    NeverServed {
        /// How many.
        starts: u32,
    },
    /// It serves, and dies too often.
    #[error("it was restarted {} within {:?}", counted(.0.restarts, "time"), .0.within)]
    Intensity(Intensity),
}

fn never_served(starts: u32) -> String {
    match starts {
        1 => "the one start that it is given has failed".to_owned(),
        starts => format!("{starts} starts in a row have failed"),
    }
}

/// Why there is no instance and need not be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StopReason {
    /// No call has needed it yet.
    #[error("no call has needed it yet")]
    NotNeeded,
    /// No call has needed it for long. The next one starts it.
    #[error("no call has needed it for some time")]
    Idle,
    /// Somebody has said so.
    #[error("an order has stopped it")]
    Operator,
    /// It has ended, and the policy does not start it again.
    #[error("it has ended, and is not to be restarted")]
    Policy,
    /// The supervisor itself has ended.
    #[error("its host is stopping")]
    Shutdown,
}

/// Why there is no instance and none comes by itself, and who has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Off {
    /// It has failed too often, or for good.
    #[error("the plugin was given up, as {0}; an operator has to start it")]
    GaveUp(GiveUpReason),
    /// It need not run.
    #[error("the plugin does not run: {0}; an operator has to start it")]
    Stopped(StopReason),
    /// It must not run.
    #[error("the plugin is disabled; an operator has to enable it")]
    Disabled,
}

/// All that there is to know about a plugin at one moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PluginStatus {
    /// What it is called.
    pub name: Arc<str>,
    /// What is started, or where is attached to.
    pub source: SourceInfo,
    /// Where it is in its life.
    pub state: PluginState,
    /// Since when it is there.
    pub since: SystemTime,
    /// Instances that were started so far, those of swaps included.
    pub starts: u64,
    /// Of these, all but the first and those of swaps.
    pub restarts: u64,
    /// Swaps that have succeeded.
    pub swaps: u64,
    /// Why the last one ended or could not be started.
    pub last_failure: Option<Failure>,
    /// The last reload that has failed. `None` once another instance serves.
    pub failed_reload: Option<FailedReload>,
}

/// A reload that has changed nothing, whether it was ordered or came with a changed file.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FailedReload {
    /// When it failed.
    pub at: SystemTime,
    /// Why.
    pub why: OrderError,
}

/// Where instances come from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SourceInfo {
    /// From an executable.
    Program(PathBuf),
    /// They are somebody else's, at this address.
    Address(PluginAddress),
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_there_is_one_of_is_told_as_one() {
        assert_eq!(Degradation::Silent { probes: 1 }.to_string(), "it has not answered 1 health check");
        assert_eq!(Degradation::Silent { probes: 2 }.to_string(), "it has not answered 2 health checks");
        let once = Intensity { restarts: 1, within: Duration::from_secs(1) };
        assert_eq!(GiveUpReason::Intensity(once).to_string(), "it was restarted 1 time within 1s");
        for (starts, told) in
            [(1, "the one start that it is given has failed"), (2, "2 starts in a row have failed")]
        {
            assert_eq!(GiveUpReason::NeverServed { starts }.to_string(), told);
        }
    }
}
