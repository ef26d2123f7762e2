//! What the operator has decided about a plugin's life.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tracing::Level;

use super::Backoff;
use super::prepare::Prepare;
use super::swap::WarmUp;

/// When a plugin that has ended is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Restart {
    /// Not at all.
    Never,
    /// After a crash, a failed start, or when it was ended for not answering; not after exit status 0.
    OnFailure,
    /// Whatever it ended with.
    #[default]
    Always,
}

/// A limit to restarts of a plugin that serves and dies again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intensity {
    /// As many restarts as are allowed.
    pub restarts: u32,
    /// In any span of this length.
    pub within: Duration,
}

/// When, and how often, a plugin is started again. More may come to be set: name what is to differ, and end with
/// `..RestartPolicy::default()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartPolicy {
    /// When. Default: always.
    pub restart: Restart,
    /// The delay before each start after a failed one. Default: 100 ms to 30 s, with full jitter.
    pub backoff: Backoff,
    /// How long a plugin has to serve for its next restart to come at once, and the delays to begin anew. Default: 10 s.
    pub stable_after: Duration,
    /// After so many starts in a row that did not get it to serve, the plugin is given up. Default: 5. Starts after which
    /// it says itself that it cannot work for now, with `NOT_SERVING`, do not count: what it waits for may come back. Nor do those of
    /// a plugin that has served and whose file is not there at the moment, as while a package is replaced, nor attempts to attach.
    pub hopeless_after: u32,
    /// A limit for plugins that do serve. Default: none, as a plugin that comes and goes is better than none.
    pub intensity: Option<Intensity>,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            restart: Restart::default(),
            backoff: Backoff::default(),
            stable_after: Duration::from_secs(10),
            hopeless_after: 5,
            intensity: None,
        }
    }
}

/// How a plugin that runs is looked at. More may come to be set: name what is to differ, and end with `..Probe::default()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// From the end of one health check to the next. Default: 1 s.
    pub interval: Duration,
    /// How long a plugin may take to answer one. Default: 2 s.
    pub timeout: Duration,
    /// After so many in a row without an answer it is killed, and counts as crashed. Default: 3. One that answers
    /// `NOT_SERVING` is left alone: it knows what it says.
    pub max_silent: u32,
}

impl Default for Probe {
    fn default() -> Self {
        Self { interval: Duration::from_secs(1), timeout: Duration::from_secs(2), max_silent: 3 }
    }
}

/// How an instance takes over from another. More may come to be set: name what is to differ, and end with
/// `..Swap::default()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swap {
    /// How long the new instance has to be well before calls go to it. Default: 2 s.
    pub settle: Duration,
    /// How long calls to the old instance may go on once the new one serves. Default: 10 s. Less if the plugin is stopped.
    pub drain: Duration,
}

impl Default for Swap {
    fn default() -> Self {
        Self { settle: Duration::from_secs(2), drain: Duration::from_secs(10) }
    }
}

/// Everything that can be set, but for what is run.
#[derive(Clone, Default)]
pub(super) struct Settings {
    pub(super) policy: RestartPolicy,
    pub(super) probe: Probe,
    pub(super) swap: Swap,
    pub(super) lazy: bool,
    pub(super) idle_after: Option<Duration>,
    pub(super) watch_file: bool,
    pub(super) crash_dir: Option<PathBuf>,
    pub(super) log_level: Option<Level>,
    pub(super) log_level_variable: Option<OsString>,
    pub(super) prepare: Option<Prepare>,
    pub(super) warm_up: Option<WarmUp>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("policy", &self.policy).finish_non_exhaustive()
    }
}
