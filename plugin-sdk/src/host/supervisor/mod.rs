//! A plugin that is kept running: started again when it ends, looked at while it runs, swapped for another without a call
//! being lost, and called through one channel all the while.
//!
//! ```text
//!              ┌────────────── BackingOff ◀──failed──┐
//!              ▼ timer                               │ started too often without serving,
//!  start ─▶ Starting ──ready──▶ Serving ──ended──────┤ or bound to fail again: GaveUp
//!              ▲                  │ ▲                │   (an operator, or a changed file if that is watched,
//!              │            unwell▼ │well            │    starts it anew)
//!              │                Degraded ────ended───┘
//!              └── after a stable run at once
//!  any ──stop──▶ Stopping ──gone──▶ Stopped          any ──disable──▶ Stopping ──gone──▶ Disabled
//! ```
//!
//! One task owns all of it; [`PluginStatus`] is published on a `watch`, each decision is an [`Event`] with its reason.

mod apart;
mod backoff;
mod breaker;
mod channel;
mod crash;
mod event;
mod failure;
mod file_watch;
mod gate;
mod instance;
mod machine;
mod policy;
mod prepare;
mod start;
mod state;
mod swap;
mod task;

use std::ffi::OsString;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::Channel;
use tracing::Level;

pub use backoff::Backoff;
pub use channel::{CallError, PluginChannel};
pub use crash::{CrashDirError, CrashReport};
pub use event::{Event, EventKind, OrderedBy};
pub use failure::Failure;
pub use policy::{Intensity, Probe, Restart, RestartPolicy, Swap};
pub use prepare::{NewInstance, PrepareError};
pub use state::{
    Degradation, FailedReload, GiveUpReason, Live, Off, PluginState, PluginStatus, SourceInfo, StopReason,
};

use super::journal::Journal;
use super::logbook::{LogBook, LogLine};
use super::{Attach, Exit, Launch};
use crate::{AppVersion, one_line};
use channel::Route;
use event::Recorder;
use machine::Order;
use policy::Settings;
use prepare::Prepare;
use start::Source;
use task::{Parts, Reply, Request, Task};

/// Orders that wait for the task.
const REQUESTS: usize = 64;

/// What is to be kept running, and how. [`start`](Self::start) begins.
///
/// ```no_run
/// use plugin_sdk::MagicCookie;
/// use plugin_sdk::host::{Contract, Launch, Supervisor};
///
/// # async fn example() -> Result<(), plugin_sdk::host::OrderError> {
/// let contract = Contract::new(MagicCookie::new("EXAMPLE_PLUGIN", "1f0e"), [1]);
/// let plugin = Supervisor::launch(Launch::new("/usr/lib/example/plugin", contract)).start();
/// let channel = plugin.channel(); // For any client that tonic generates; it outlives the plugin's processes.
/// plugin.handle().restart().await?; // What an operator might do.
/// plugin.shutdown().await;
/// # drop(channel);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Supervisor {
    source: Source,
    settings: Settings,
}

impl Supervisor {
    /// Instances are processes that this host launches.
    pub fn launch(launch: Launch) -> Self {
        Self { source: Source::Launch(Box::new(launch)), settings: Settings::default() }
    }

    /// There is one instance, somebody else's: it is attached to, again and again if need be, and never given up, whatever the
    /// policy says of hopeless starts: whoever runs it may do so again at any time.
    pub fn attach(attach: Attach) -> Self {
        Self { source: Source::Attach(Box::new(attach)), settings: Settings::default() }
    }

    /// When, and how often, the plugin is started again.
    pub fn policy(mut self, policy: RestartPolicy) -> Self {
        self.settings.policy = policy;
        self
    }

    /// How a running instance is looked at.
    pub fn probe(mut self, probe: Probe) -> Self {
        self.settings.probe = probe;
        self
    }

    /// How an instance takes over from another.
    pub fn swap(mut self, swap: Swap) -> Self {
        self.settings.swap = swap;
        self
    }

    /// Starts the plugin when the first call needs it. Default: at once.
    pub fn lazy(mut self, lazy: bool) -> Self {
        self.settings.lazy = lazy;
        self
    }

    /// Ends the plugin when no call was open for so long; the next call starts it again, and waits for it. Default: never.
    pub fn idle_after(mut self, idle: impl Into<Option<Duration>>) -> Self {
        self.settings.idle_after = idle.into();
        self
    }

    /// Has a new executable take over as soon as its file is there, and a plugin that was given up started again. Default:
    /// no.
    pub fn watch_file(mut self, watch: bool) -> Self {
        self.settings.watch_file = watch;
        self
    }

    /// A directory for crash reports, of which the latest 20 of each plugin are kept. Several hosts may share it. Default: they are
    /// kept in memory alone.
    pub fn crash_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.settings.crash_dir = Some(dir.into());
        self
    }

    /// From which level on what the plugin says becomes events of the host, until
    /// [`set_log_level`](PluginHandle::set_log_level) changes it. Default: `TRACE`, all of it.
    pub fn log_level(mut self, level: Level) -> Self {
        self.settings.log_level = Some(level);
        self
    }

    /// Tells each instance in an environment variable, as `RUST_LOG` for a plugin made with this crate, which level that is at its
    /// start, in lower case, so that it does not write what is not wanted. A variable that
    /// [`Launch::env`](super::Launch::env) sets stays as it is. Default: none.
    pub fn log_level_variable(mut self, name: impl Into<OsString>) -> Self {
        self.settings.log_level_variable = Some(name.into());
        self
    }

    /// Has the application do with each new instance what has to be done before others call it, in a restart and in a swap
    /// as at the first start: mostly to give it the id of a host's service, as each instance has a broker of its own, whose ids end
    /// with it. What it returns is kept for as long as the instance lives, such as the
    /// [`BrokeredServer`](crate::BrokeredServer), which ends when it is dropped.
    ///
    /// If it fails or panics, or takes longer than 10 s, the instance is ended, and has failed to start: [`Failure::Prepare`].
    ///
    /// ```no_run
    /// # use plugin_sdk::host::{Launch, Supervisor};
    /// # use tonic::{Status, service::Routes, transport::Channel};
    /// # async fn set_up(channel: Channel, id: u32) -> Result<(), Status> { Ok(()) }
    /// # fn example(launch: Launch, host_services: Routes) {
    /// let plugin = Supervisor::launch(launch).prepare(move |new| {
    ///     let routes = host_services.clone();
    ///     async move {
    ///         let server = new.broker.accept_and_serve(new.broker.next_id(), routes).await?;
    ///         set_up(new.channel, server.id()).await?; // A call of the application's own contract.
    ///         Ok::<_, Box<dyn std::error::Error + Send + Sync>>(server)
    ///     }
    /// });
    /// # }
    /// ```
    pub fn prepare<F, K, E>(mut self, prepare: impl Fn(NewInstance) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<K, E>> + Send + 'static,
        K: Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.settings.prepare = Some(Prepare::new(prepare));
        self
    }

    /// Has the application hand over what the old instance knows to the new one, in the course of a swap and before the new
    /// one is called: gets both channels, the old one's first. If it fails or panics, or takes longer than 10 s, the
    /// swap goes on.
    pub fn warm_up<F>(mut self, warm_up: impl Fn(Channel, Channel) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        self.settings.warm_up = Some(Arc::new(move |old, new| Box::pin(warm_up(old, new))));
        self
    }

    /// Looks whether what it is to use besides the plugin can be used: the directory for crash reports. Without it, one that cannot be
    /// is a warning when the supervisor starts, and the reports are kept in memory alone. Blocks for a moment.
    ///
    /// # Errors
    /// What it found.
    pub fn check(&self) -> Result<(), CrashDirError> {
        self.settings.crash_dir.as_deref().map_or(Ok(()), crash::check_dir)
    }

    /// Begins. Returns at once; [`Supervised::status`] tells what becomes of it.
    ///
    /// # Panics
    /// Outside of a tokio run time.
    pub fn start(self) -> Supervised {
        let Self { source, mut settings } = self;
        if let Source::Attach(_) = source {
            settings.policy.hopeless_after = u32::MAX;
        }
        let log_book = LogBook::new(settings.log_level.unwrap_or(Level::TRACE));
        let source = source.recorded(log_book.clone(), settings.log_level_variable.take());
        let name: Arc<str> = source.name().into();
        let (status, status_reader) = watch::channel(PluginStatus {
            name: Arc::clone(&name),
            source: source.info(),
            state: if settings.lazy {
                PluginState::Stopped(StopReason::NotNeeded)
            } else {
                PluginState::Starting { attempt: 1 }
            },
            since: SystemTime::now(),
            starts: 0,
            restarts: 0,
            swaps: 0,
            last_failure: None,
            failed_reload: None,
        });
        let (route, route_reader) = watch::channel(if settings.lazy { Route::Asleep } else { Route::Down });
        let (request, requests) = mpsc::channel(REQUESTS);
        let wake = Arc::new(Notify::new());
        let recorder = Recorder::new(Arc::clone(&name));
        let crashes = Journal::new(crash::CRASHES);
        let handle = PluginHandle {
            name,
            by: OrderedBy::Host,
            request,
            status: status_reader,
            channel: PluginChannel::new(route_reader, Arc::clone(&wake)),
            events: recorder.journal.clone(),
            crashes: crashes.clone(),
            log_book: log_book.clone(),
        };
        let parts = Parts { source, settings, recorder, crashes, log_book, status, route, wake, requests };
        let task = tokio::spawn(Task::new(parts).run());
        Supervised { handle, task }
    }
}

/// A plugin that is kept running. Dropping it kills the plugin's process group, and its handles and channels say soon that it is
/// kept no longer; [`shutdown`](Self::shutdown) is kinder.
#[derive(Debug)]
#[must_use = "dropping it kills the plugin; keep it for as long as the plugin is to run"]
pub struct Supervised {
    handle: PluginHandle,
    task: JoinHandle<()>,
}

impl Supervised {
    /// For those who look and give orders.
    #[must_use]
    pub fn handle(&self) -> &PluginHandle {
        &self.handle
    }

    /// For those who call: see [`PluginHandle::channel`].
    #[must_use]
    pub fn channel(&self) -> PluginChannel {
        self.handle.channel()
    }

    /// Where the plugin is in its life: see [`PluginHandle::status`].
    #[must_use]
    pub fn status(&self) -> watch::Receiver<PluginStatus> {
        self.handle.status()
    }

    /// Waits until an instance serves: see [`PluginHandle::ready`].
    ///
    /// # Errors
    /// None will.
    pub async fn ready(&self) -> Result<Live, NotReady> {
        self.handle.ready().await
    }

    /// Ends the plugin as [`Plugin::shutdown`](super::Plugin::shutdown) does, and with it a swap under way and an instance that
    /// another has taken over from, whatever calls it has. Keeps it no longer: calls fail from now on. A service that was
    /// attached to is left running. Dropping the future kills, as dropping this does.
    ///
    /// Gives the end of the instance that served; `None` if none did.
    pub async fn shutdown(mut self) -> Option<Exit> {
        let (done, finished) = oneshot::channel();
        let asked = self.handle.request.send(Request::Shutdown { done }).await;
        let exit = if asked.is_ok() { finished.await.ok().flatten() } else { None };
        let _ended = (&mut self.task).await;
        exit
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        // Drops the plugin with the task, which kills its group.
        self.task.abort();
    }
}

/// A handle of a plugin that is kept running, for those who look and give orders. Cheap to clone. Does not keep the plugin
/// alive.
#[derive(Debug, Clone)]
pub struct PluginHandle {
    name: Arc<str>,
    /// Whose orders it gives.
    by: OrderedBy,
    request: mpsc::Sender<Request>,
    status: watch::Receiver<PluginStatus>,
    channel: PluginChannel,
    events: Journal<Event>,
    crashes: Journal<CrashReport>,
    log_book: LogBook,
}

/// Why an order did not lead to what it was to lead to.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum OrderError {
    /// The plugin is disabled. Enable it first.
    #[error("the plugin is disabled")]
    Disabled,
    /// The plugin is somebody else's: it can be attached to, and not be exchanged.
    #[error("the plugin is not this host's to exchange")]
    NotOurs,
    /// Too many swaps wait already.
    #[error("too many reloads are waiting")]
    Busy,
    /// It did not start. Whether it is tried again is for the policy, and in a swap the old instance goes on.
    #[error("the plugin did not start")]
    NotStarted(#[source] Failure),
    /// The new instance ended before it had taken over. The old one goes on.
    #[error("the new instance did not last")]
    Ended(#[source] Failure),
    /// The new instance was not well before it had taken over. The old one goes on.
    #[error("the new instance is not well")]
    Unwell(#[source] Degradation),
    /// The new instance speaks an older version than the one that it was to take over from. The old one goes on.
    #[error("the new instance speaks version {new}, the old one {old}")]
    OlderVersion {
        /// Of the one that goes on.
        old: AppVersion,
        /// Of the other.
        new: AppVersion,
    },
    /// Another order was given, and that one counts.
    #[error("another order came in between")]
    Superseded,
    /// The plugin is not kept any more.
    #[error("the host is stopping")]
    Gone,
}

impl OrderError {
    /// All there is to say, on one line, the plugin's own last words among it.
    #[must_use]
    pub fn detail(&self) -> String {
        match self {
            Self::NotStarted(failure) | Self::Ended(failure) => failure.detail(),
            other => one_line(other).to_string(),
        }
    }
}

/// Why no instance serves, and none will unless an order, or a new file where that is watched, brings one.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum NotReady {
    /// It is not started any more.
    #[error("the plugin was given up, as {why}")]
    GaveUp {
        /// Why.
        why: GiveUpReason,
        /// What happened last.
        #[source]
        last: Option<Failure>,
    },
    /// It need not run.
    #[error("the plugin does not run: {why}")]
    Stopped {
        /// Why.
        why: StopReason,
        /// What happened last, if anything did.
        #[source]
        last: Option<Failure>,
    },
    /// It must not run.
    #[error("the plugin is disabled")]
    Disabled,
}

/// Orders. Each may be given at any time and any number of times; those that ask for what is so already change nothing.
/// They return when it is so, or cannot become so; dropping the future does not take an order back.
///
/// They give the instance that serves then. `None`: none does, as after [`stop`](Self::stop), or after
/// [`clear`](Self::clear) and [`enable`](Self::enable) of a plugin that is stopped or waits for its next start.
impl PluginHandle {
    /// The same handle, for orders of operators.
    pub(super) fn for_operators(self) -> Self {
        Self { by: OrderedBy::Operator, ..self }
    }

    /// What the plugin is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the plugin is in its life, for as long as anybody wants to know.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<PluginStatus> {
        self.status.clone()
    }

    /// The channel to whichever instance serves.
    #[must_use]
    pub fn channel(&self) -> PluginChannel {
        self.channel.clone()
    }

    /// Waits until an instance serves, however many starts that takes: how long is the caller's to limit. Wakes a plugin
    /// that rests, as a call does. Cancel safe.
    ///
    /// # Errors
    /// None will: it was given up, or is stopped or disabled.
    pub async fn ready(&self) -> Result<Live, NotReady> {
        let mut status = self.status.clone();
        loop {
            if status.has_changed().is_err() {
                return Err(NotReady::Stopped { why: StopReason::Shutdown, last: None });
            }
            if let Some(ready) = self.readiness(&status.borrow_and_update()) {
                return ready;
            }
            let _changed_or_gone = status.changed().await;
        }
    }

    /// Whether waiting is over.
    fn readiness(&self, status: &PluginStatus) -> Option<Result<Live, NotReady>> {
        Some(match &status.state {
            PluginState::Serving(live) => Ok(live.clone()),
            PluginState::GaveUp { why, last } => Err(NotReady::GaveUp { why: *why, last: last.clone() }),
            PluginState::Stopped(StopReason::NotNeeded | StopReason::Idle) => {
                self.channel.wake();
                return None;
            }
            PluginState::Stopped(why) => {
                Err(NotReady::Stopped { why: *why, last: status.last_failure.clone() })
            }
            PluginState::Disabled => Err(NotReady::Disabled),
            PluginState::Starting { .. }
            | PluginState::Degraded { .. }
            | PluginState::Stopping
            | PluginState::BackingOff { .. } => return None,
        })
    }

    /// What was decided and seen, and why: the latest 1,000 events.
    #[must_use]
    pub fn events(&self) -> &Journal<Event> {
        &self.events
    }

    /// The latest 20 crashes.
    #[must_use]
    pub fn crashes(&self) -> &Journal<CrashReport> {
        &self.crashes
    }

    /// What the plugin has said: the latest 2,000 lines, of all its instances.
    #[must_use]
    pub fn logs(&self) -> &Journal<LogLine> {
        &self.log_book.lines
    }

    /// The least important level at which what the plugin says is logged by the host.
    #[must_use]
    pub fn log_level(&self) -> Level {
        self.log_book.level()
    }

    /// Has the host log what the plugin says from this level on. [`logs`](Self::logs) has all of it.
    pub fn set_log_level(&self, level: Level) {
        self.log_book.set_level(level);
    }

    /// Ends the instance that runs, and starts another; starts one if none runs. Two operators who do so at once get one
    /// restart. A swap under way is given up; calls to an instance that another has taken over from go on.
    ///
    /// # Errors
    /// [`OrderError::NotStarted`] if the first attempt fails; others may follow. [`OrderError::Disabled`].
    pub async fn restart(&self) -> Result<Option<Live>, OrderError> {
        self.order(Order::Restart).await
    }

    /// Has another instance take over without a call being lost: of the same executable, whatever its file holds now, or of
    /// `program`, which is then what is started from now on. If none runs, starts one.
    ///
    /// Returns when calls go to the new instance. The old one may have calls still, for [`Swap::drain`] at most, so a stream
    /// that stays open keeps it for so long; [`EventKind::Drained`] tells of its end. The next swap waits for that.
    ///
    /// # Errors
    /// Why the old instance goes on, and `program` is forgotten. If none ran, the plugin is where it was, stopped or given up or
    /// waiting for its next start.
    pub async fn reload(&self, program: Option<PathBuf>) -> Result<Option<Live>, OrderError> {
        self.ask(|reply| Request::Reload { program, by: self.by, reply }).await
    }

    /// Starts the plugin if it does not run, at once and with all failures forgotten.
    ///
    /// # Errors
    /// As [`restart`](Self::restart).
    pub async fn start(&self) -> Result<Option<Live>, OrderError> {
        self.order(Order::Start).await
    }

    /// Ends the plugin. It stays ended until it is started. An instance that another has taken over from is ended with it,
    /// whatever calls it has. Reloads that wait are superseded.
    ///
    /// # Errors
    /// [`OrderError::Superseded`] if somebody starts it meanwhile.
    pub async fn stop(&self) -> Result<Option<Live>, OrderError> {
        self.order(Order::Stop).await
    }

    /// Ends the plugin, as [`stop`](Self::stop) does. It can be started only after it was enabled.
    ///
    /// # Errors
    /// [`OrderError::Superseded`] if somebody enables it meanwhile.
    pub async fn disable(&self) -> Result<Option<Live>, OrderError> {
        self.order(Order::Disable).await
    }

    /// Starts the plugin if it was disabled.
    ///
    /// # Errors
    /// As [`restart`](Self::restart).
    pub async fn enable(&self) -> Result<Option<Live>, OrderError> {
        self.order(Order::Enable).await
    }

    /// Forgets all failures: starts the plugin if it was given up or waits for its next start.
    ///
    /// # Errors
    /// As [`restart`](Self::restart).
    pub async fn clear(&self) -> Result<Option<Live>, OrderError> {
        self.order(Order::Clear).await
    }

    async fn order(&self, order: Order) -> Result<Option<Live>, OrderError> {
        self.ask(|reply| Request::Order { order, by: self.by, reply }).await
    }

    async fn ask(&self, request: impl FnOnce(Reply) -> Request) -> Result<Option<Live>, OrderError> {
        let (reply, answer) = oneshot::channel();
        self.request.send(request(reply)).await.map_err(|_| OrderError::Gone)?;
        answer.await.unwrap_or(Err(OrderError::Gone))
    }
}

/// A random number in `0.0..1.0`, good enough to spread starts over time.
fn random() -> f64 {
    // Each hasher has keys of its own; 53 bits are what an f64 holds.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
    let part = (RandomState::new().hash_one(()) >> 11) as f64;
    part / (1_u64 << 53) as f64
}
