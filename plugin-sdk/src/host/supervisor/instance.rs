//! One running instance, as the supervisor looks after it: its end, its health, the way to it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Code;
use tonic::transport::Channel;

use super::breaker::Breaker;
use super::channel::{BreakerChange, LiveRoute};
use super::crash::OomKills;
use super::gate::Gate;
use super::policy::Probe;
use super::prepare::Kept;
use super::start::Started;
use super::{Failure, Live};
use crate::clock::{after, later};
use crate::host::link::check;
use crate::host::{HealthError, Plugin};

/// An instance that has been started, or attached to, and was well.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) plugin: Box<Plugin>,
    pub(super) live: Live,
    pub(super) route: Arc<LiveRoute>,
    pub(super) oom_kills: OomKills,
    /// Dropped with it.
    _kept: Option<Kept>,
    probe: Probe,
    probing: Probing,
    /// Health checks in a row without an answer.
    silent: u32,
}

/// Where the health check is.
enum Probing {
    At(Instant),
    Asking(Pin<Box<dyn Future<Output = Result<(), HealthError>> + Send>>),
}

impl std::fmt::Debug for Probing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::At(at) => f.debug_tuple("At").field(at).finish(),
            Self::Asking(_) => f.write_str("Asking"),
        }
    }
}

/// What happened to an instance.
#[derive(Debug)]
pub(super) enum Happened {
    Ended(Failure),
    Well,
    NotServing(&'static str),
    /// So many checks in a row had no answer.
    Silent {
        probes: u32,
    },
}

impl Instance {
    pub(super) fn new(
        number: u64,
        Started { plugin, kept }: Started,
        oom_kills: OomKills,
        probe: Probe,
        changes: mpsc::UnboundedSender<BreakerChange>,
    ) -> Self {
        let now = Instant::now();
        let live = Live {
            instance: number,
            pid: plugin.pid(),
            app_version: plugin.app_version(),
            address: plugin.address().clone(),
            since: now,
            since_time: SystemTime::now(),
        };
        let route = Arc::new(LiveRoute {
            instance: number,
            app_version: plugin.app_version(),
            channel: plugin.channel(),
            broker: plugin.broker().clone(),
            gate: Gate::new(),
            retired: AtomicBool::new(false),
            breaker: Breaker::new(),
            changes,
        });
        let probing = Probing::At(later(now, probe.interval));
        Self { plugin, live, route, oom_kills, _kept: kept, probe, probing, silent: 0 }
    }

    /// Waits for something to happen. Cancel safe.
    pub(super) async fn next(&mut self) -> Happened {
        let Self { plugin, probe, probing, silent, .. } = self;
        tokio::select! {
            biased;
            exit = plugin.exited() => {
                // Mostly its pipe ends with it, and this takes no time.
                plugin.stderr_read().await;
                Happened::Ended(Failure::Ended(exit))
            }
            () = plugin.lost() => Happened::Ended(Failure::Lost),
            answer = probing.answer(plugin, *probe) => match answer {
                Ok(()) => {
                    *silent = 0;
                    Happened::Well
                }
                Err(HealthError::NotServing(status)) => {
                    *silent = 0;
                    Happened::NotServing(status)
                }
                // A plugin without the health service answers all the same.
                Err(HealthError::Check(status)) if status.code() == Code::Unimplemented => {
                    *silent = 0;
                    Happened::Well
                }
                Err(HealthError::Check(_) | HealthError::TimedOut(_)) => {
                    *silent += 1;
                    Happened::Silent { probes: *silent }
                }
            },
        }
    }

    /// Has the next health check made now, unless one is under way.
    pub(super) fn probe_now(&mut self) {
        if let Probing::At(at) = &mut self.probing {
            *at = Instant::now();
        }
    }
}

impl Probing {
    /// Makes one health check, when it is due. Cancel safe.
    async fn answer(&mut self, plugin: &Plugin, probe: Probe) -> Result<(), HealthError> {
        loop {
            match self {
                Self::At(at) => {
                    tokio::time::sleep_until(*at).await;
                    *self = Self::Asking(Box::pin(ask(plugin.channel(), probe.timeout)));
                }
                Self::Asking(asking) => {
                    let answer = asking.as_mut().await;
                    *self = Self::At(after(probe.interval));
                    return answer;
                }
            }
        }
    }
}

/// Makes one health check. That it failed is told a little later than it could be: mostly the process has just ended, which
/// is the better reason and may be on its way.
async fn ask(channel: Channel, timeout: Duration) -> Result<(), HealthError> {
    let check = tokio::time::timeout(timeout, check(channel));
    let answer = check.await.unwrap_or(Err(HealthError::TimedOut(timeout)));
    if let Err(HealthError::Check(_)) = answer {
        tokio::time::sleep(EXIT_NEWS).await;
    }
    answer
}

/// How long the end of a process may take to be known, after its connections have broken.
pub(super) const EXIT_NEWS: Duration = Duration::from_millis(250);
