//! A running plugin: its channel, its health, its end.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::Channel;

use super::guest::Guest;
use super::launch::REAP_LIMIT;
use super::link::{Link, check};
use super::output::Output;
use super::{Exit, ExitKind, HealthError, StderrTail, StopStep};
use crate::generated::plugin::Empty;
use crate::generated::plugin::grpc_controller_client::GrpcControllerClient;
use crate::process::{ForeignProcess, Process};
use crate::{AppVersion, Broker, PluginAddress, ReattachConfig};

/// How long a health check may take. go-plugin's `Ping` has no limit and hangs on a stopped plugin.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// A plugin that can be called.
///
/// [`shutdown`](Self::shutdown) is the polite way to end it. Dropping one that this host has launched kills its
/// process group, or has its runner kill it; dropping one that it is attached to leaves it running.
#[derive(Debug)]
#[must_use = "dropping it kills a plugin that this host has launched; end it with `shutdown`"]
pub struct Plugin {
    pub(super) owner: Owner,
    pub(super) address: PluginAddress,
    pub(super) app_version: AppVersion,
    pub(super) link: Link,
    pub(super) output: Output,
    /// What another host needs to reattach; `None` where that is not possible.
    pub(super) reattach: Option<ReattachConfig>,
}

/// Whose process it is, and so who may end it, and how.
#[derive(Debug)]
pub(super) enum Owner {
    /// A child of this host.
    Child { process: Process, grace: Duration },
    /// Run by the application's own means.
    Guest { guest: Guest, grace: Duration },
    /// Started by an earlier host, which has handed it over.
    Reattached { process: ForeignProcess, since: Instant, grace: Duration },
    /// A service, or a plugin in test mode: it manages its own life, of whose end only one in this process tells.
    Itself { pid: Option<u32>, since: Instant, ended: CancellationToken },
}

impl Plugin {
    /// The name given to its launch or attachment.
    #[must_use]
    pub fn name(&self) -> &str {
        self.output.name()
    }

    /// A connection for any client that tonic generates. Cheap to clone. To a launched plugin, calls fail once its
    /// process has ended, and never reach another; to a service, the connection is made again when it is back.
    ///
    /// Messages from the plugin are limited to [`MAX_MESSAGE_BYTES`](crate::MAX_MESSAGE_BYTES) unless the client's
    /// `max_decoding_message_size` is raised. A call with a deadline (tonic's `Request::set_timeout`) is cancelled in the plugin when it
    /// has passed; tonic's client reports that as `CANCELLED`, other clients as `DEADLINE_EXCEEDED`.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.link.channel.clone()
    }

    /// More gRPC servers, in either direction, between this plugin and its host.
    #[must_use]
    pub fn broker(&self) -> &Broker {
        &self.link.broker
    }

    /// Process id, which for a launched plugin is also the id of its process group. `None` for a service, and for one that a
    /// [`Runner`](super::Runner) has started.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match &self.owner {
            Owner::Child { process, .. } => Some(process.pid()),
            Owner::Reattached { process, .. } => Some(process.pid()),
            Owner::Guest { .. } => None,
            Owner::Itself { pid, .. } => *pid,
        }
    }

    /// What the plugin is to whatever runs it: what its [`Running::id`](super::Running::id) says, else its process id.
    /// `None` for a service. go-plugin's `Client.ID`.
    #[must_use]
    pub fn id(&self) -> Option<String> {
        match &self.owner {
            Owner::Guest { guest, .. } => Some(guest.id()),
            _ => self.pid().map(|pid| pid.to_string()),
        }
    }

    /// The application protocol version that was agreed on.
    #[must_use]
    pub fn app_version(&self) -> AppVersion {
        self.app_version
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &PluginAddress {
        &self.address
    }

    /// What another host needs to reattach to this plugin. `None` with AutoMTLS, whose keys only this host has, and with
    /// multiplexing, where a plugin takes one connection only.
    #[must_use]
    pub fn reattach_config(&self) -> Option<&ReattachConfig> {
        self.reattach.as_ref()
    }

    /// Waits until the process is gone. May be called any number of times, and dropped. Of a service nobody knows; it
    /// then waits for ever.
    pub async fn exited(&self) -> Exit {
        match &self.owner {
            Owner::Child { process, .. } => process.exited().await,
            Owner::Guest { guest, .. } => guest.exited().await,
            Owner::Reattached { process, since, .. } => {
                process.gone().await;
                gone(*since, StopStep::Nothing)
            }
            Owner::Itself { ended, since, .. } => {
                ended.cancelled().await;
                gone(*since, StopStep::Nothing)
            }
        }
    }

    /// Waits until the connection to somebody else's plugin has broken. That of one without the broker service shows at
    /// the next call.
    pub(super) async fn lost(&self) {
        match &self.owner {
            Owner::Itself { .. } => self.link.lost.cancelled().await,
            Owner::Child { .. } | Owner::Guest { .. } | Owner::Reattached { .. } => {
                std::future::pending().await
            }
        }
    }

    /// Whether this host may end it.
    pub(super) fn is_ours(&self) -> bool {
        !matches!(self.owner, Owner::Itself { .. })
    }

    /// Ends the plugin without asking, as far as it is this host's to end. Returns when it is gone, at the latest after 5 s.
    pub(super) async fn kill(&self) -> Exit {
        match &self.owner {
            Owner::Child { process, .. } => kill_child(process).await,
            Owner::Guest { guest, .. } => kill_guest(guest).await,
            Owner::Reattached { process, since, .. } => kill_reattached(process, *since).await,
            Owner::Itself { since, .. } => left_running(*since),
        }
    }

    /// Waits until what a plugin has said last that has ended is in [`stderr_tail`](Self::stderr_tail), for a moment at most. Cancel safe.
    pub(super) async fn stderr_read(&self) {
        self.output.stderr_read().await;
    }

    /// What a plugin has said last that has ended.
    pub(super) async fn last_words(mut self) -> StderrTail {
        self.output.finish().await;
        self.output.tail()
    }

    /// The last lines of its stderr, if this host has launched it.
    #[must_use]
    pub fn stderr_tail(&self) -> StderrTail {
        self.output.tail()
    }

    /// Asks the plugin whether it is able to work. go-plugin's `Ping`, with a time limit of 5 s, and with a look at
    /// the answer.
    ///
    /// # Errors
    /// It is not, or does not answer.
    pub async fn health(&self) -> Result<(), HealthError> {
        let answer = tokio::time::timeout(HEALTH_TIMEOUT, check(self.channel())).await;
        answer.unwrap_or(Err(HealthError::TimedOut(HEALTH_TIMEOUT)))
    }

    /// Ends the plugin: asks it with `GRPCController.Shutdown`, sends SIGTERM after the grace time, SIGKILL to the
    /// process group after the grace time again. Returns when it is gone, and its socket directory with it, at the latest 5 s
    /// after SIGKILL.
    ///
    /// One that was reattached to is asked and then gets SIGKILL, itself alone, as from go-plugin's hosts; one with a runner
    /// is asked and then killed by it. A service, or a plugin in test mode, is left running: only the connection ends.
    pub async fn shutdown(self) -> Exit {
        let Self { owner, link, mut output, .. } = self;
        link.broker.close();
        let exit = match owner {
            Owner::Child { process, grace } => end_child(&process, &link.channel, grace).await,
            Owner::Guest { guest, grace } => end_guest(&guest, &link.channel, grace).await,
            Owner::Reattached { process, since, grace } => {
                end_reattached(&process, &link.channel, since, grace).await
            }
            Owner::Itself { since, .. } => left_running(since),
        };
        drop(link);
        if exit.status != ExitKind::LeftRunning {
            output.finish().await;
        }
        exit
    }
}

#[cfg(feature = "plugin")]
impl Plugin {
    /// Reads what a plugin in this process, which has ended, has said before.
    pub(crate) async fn read_last_words(mut self) {
        self.output.finish().await;
    }
}

async fn end_child(process: &Process, channel: &Channel, grace: Duration) -> Exit {
    process.note_shutdown_asked();
    if let Some(exit) = ask(channel, grace, process.exited()).await {
        return exit;
    }
    process.terminate();
    if let Ok(exit) = tokio::time::timeout(grace, process.exited()).await {
        return exit;
    }
    kill_child(process).await
}

async fn kill_child(process: &Process) -> Exit {
    process.kill();
    let killed = tokio::time::timeout(REAP_LIMIT, process.exited()).await;
    killed.unwrap_or_else(|_| process.unreaped())
}

async fn end_guest(guest: &Guest, channel: &Channel, grace: Duration) -> Exit {
    guest.note_shutdown_asked();
    if let Some(exit) = ask(channel, grace, guest.exited()).await {
        return exit;
    }
    kill_guest(guest).await
}

async fn kill_guest(guest: &Guest) -> Exit {
    guest.kill();
    guest.exited().await
}

async fn end_reattached(
    process: &ForeignProcess,
    channel: &Channel,
    since: Instant,
    grace: Duration,
) -> Exit {
    if process.is_gone() {
        return gone(since, StopStep::Nothing);
    }
    if ask(channel, grace, process.gone()).await.is_some() {
        return gone(since, StopStep::Shutdown);
    }
    kill_reattached(process, since).await
}

async fn kill_reattached(process: &ForeignProcess, since: Instant) -> Exit {
    process.kill();
    match tokio::time::timeout(REAP_LIMIT, process.gone()).await {
        Ok(()) => gone(since, StopStep::Kill),
        Err(_) => Exit { status: ExitKind::Unreaped, after: StopStep::Kill, uptime: since.elapsed() },
    }
}

/// The end of a connection to a plugin that is somebody else's.
fn left_running(since: Instant) -> Exit {
    Exit { status: ExitKind::LeftRunning, after: StopStep::Nothing, uptime: since.elapsed() }
}

/// The end of a process whose status goes to its parent.
fn gone(since: Instant, after: StopStep) -> Exit {
    Exit { status: ExitKind::Unknown, after, uptime: since.elapsed() }
}

/// Sends `Shutdown` and waits for the end, for the grace time at most. A plugin without the service will not end by
/// itself, and is not waited for. Any other answer, and none, may be followed by the end: go-plugin's server breaks off the call.
async fn ask<T>(channel: &Channel, grace: Duration, end: impl Future<Output = T>) -> Option<T> {
    let mut client = GrpcControllerClient::new(channel.clone());
    let asked = async {
        match client.shutdown(Empty {}).await {
            Err(status) if status.code() == Code::Unimplemented => (),
            _ => std::future::pending().await,
        }
    };
    let ended = async {
        tokio::select! {
            // First, so that a plugin that answers and ends is seen to end.
            biased;
            ended = end => Some(ended),
            () = asked => None,
        }
    };
    tokio::time::timeout(grace, ended).await.ok().flatten()
}
