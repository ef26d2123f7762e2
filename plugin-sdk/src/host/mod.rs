//! Running plugins: from a path to a channel, and from a channel to an exit status.
//!
//! One instance is a chain of types, and each step consumes the one before it:
//!
//! ```text
//! Launch ──spawn──▶ Spawned ──handshake──▶ Announced ──connect──▶ Plugin ──shutdown──▶ Exit
//!    └───────────────────────────── start ──────────────────────────▲
//! ```
//!
//! A [`Launch`] only describes; it can start any number of instances, one after the other or at once. Whatever step
//! fails, the process is killed and reaped before the error is returned, and its socket directory is removed. The same
//! happens, without waiting, when a value of the chain is dropped.
//!
//! A plugin is a child process, or whatever a [`Runner`] of the application's makes of it.

mod allowance;
mod attach;
mod control;
mod error;
mod guest;
mod heard;
mod journal;
mod launch;
mod link;
mod log;
mod logbook;
mod output;
mod pipe;
mod plugin;
mod run;
mod runner;
mod stderr_copy;
mod supervisor;

pub use attach::{Attach, AttachError};
pub use control::{ControlError, ControlOptions, ControlServer};
pub use error::{HealthError, LaunchError, NulIn, StderrTail, Waiting};
pub use journal::{Follow, Followed, Journal, Numbered};
pub use launch::{Announced, Contract, Environment, Launch, Security, Spawned, Stdin};
pub use logbook::LogLine;
pub use plugin::Plugin;
pub use runner::{PluginCommand, Runner, Running, Started};
pub use supervisor::{
    Backoff, CallError, CrashDirError, CrashReport, Degradation, Event, EventKind, FailedReload, Failure,
    GiveUpReason, Intensity, Live, NewInstance, NotReady, Off, OrderError, OrderedBy, PluginChannel,
    PluginHandle, PluginState, PluginStatus, PrepareError, Probe, Restart, RestartPolicy, SourceInfo,
    StopReason, Supervised, Supervisor, Swap,
};

/// The hosts of this user, seen by the directories that they keep while they run.
pub mod runtime {
    pub use crate::runtime::{HostEntry, hosts, sweep};
}

pub use crate::process::{
    Checksum, ChecksumError, ChecksumProblem, Exit, ExitKind, Machine, ProgramProblem, StopStep, kill_all,
};
