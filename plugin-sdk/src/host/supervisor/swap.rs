//! Swaps: an instance takes over from another without a call being lost.
//!
//! ```text
//! start beside the old one ─▶ settle: has to be well for a while ─▶ switch: done ─▶ drain the old one, end it
//!          └──────── any failure: the new one is ended, the old one goes on ──────────┘
//! ```
//!
//! The drain is apart from the swap: the new instance may be restarted meanwhile, and whoever wants no instance at all does
//! not wait for calls to the old one. The next swap does, so that there are never three.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;

use super::apart::{NoOutcome, apart};
use super::crash::OomKills;
use super::instance::{self, Instance};
use super::start::{NotStarted, Source, Started, Starting};
use super::state::Live;
use super::task::{Done, Reply, Task, answer};
use super::{EventKind, OrderError, one_line};
use crate::clock::after;

/// Hands what the old instance knows over to the new one, before it is called.
pub(super) type WarmUp = Arc<dyn Fn(Channel, Channel) -> WarmingUp + Send + Sync>;

pub(super) type WarmingUp = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

/// How long a warm-up may take.
const WARM_UP_LIMIT: Duration = Duration::from_secs(10);

/// Where a swap is.
pub(super) enum Swapping {
    No,
    Starting(Begun),
    WarmingUp {
        candidate: Candidate,
        warming_up: Pin<Box<dyn Future<Output = Result<(), String>> + Send>>,
    },
    Settling {
        candidate: Candidate,
        until: Instant,
    },
    /// The new instance was not good enough.
    Abandoning {
        ending: Done,
        why: OrderError,
        reply: Option<Reply>,
    },
}

/// An instance that another has taken over from: calls to it end, then it does. Dropping it kills the instance.
pub(super) struct Draining {
    pub(super) live: Live,
    ended: Pin<Box<dyn Future<Output = usize> + Send>>,
    cut: CancellationToken,
}

/// The start of an instance that is to take over.
pub(super) struct Begun {
    pub(super) starting: Starting,
    pub(super) source: Source,
    pub(super) number: u64,
    pub(super) begun: Instant,
    pub(super) oom_kills: OomKills,
    pub(super) reply: Option<Reply>,
}

/// An instance that is to take over.
pub(super) struct Candidate {
    pub(super) instance: Box<Instance>,
    pub(super) source: Source,
    pub(super) reply: Option<Reply>,
}

/// What can take the place of an instance that has just ended.
pub(super) enum Successor {
    Begun(Begun),
    Ready(Candidate),
}

/// What happened to a swap.
pub(super) enum Happened {
    Started(Result<Started, NotStarted>),
    WarmedUp(Result<(), String>),
    /// To the instance that has to be well for a while.
    Instance(instance::Happened),
    Settled,
    Abandoned,
}

impl Swapping {
    /// Waits for the next thing to happen. Cancel safe.
    pub(super) async fn next(&mut self) -> Happened {
        match self {
            Self::No => std::future::pending().await,
            Self::Starting(begun) => Happened::Started(begun.starting.outcome().await),
            Self::WarmingUp { warming_up, .. } => Happened::WarmedUp(warming_up.as_mut().await),
            Self::Settling { candidate, until } => {
                tokio::select! {
                    biased;
                    happened = candidate.instance.next() => Happened::Instance(happened),
                    () = tokio::time::sleep_until(*until) => Happened::Settled,
                }
            }
            Self::Abandoning { ending, .. } => {
                ending.as_mut().await;
                Happened::Abandoned
            }
        }
    }

    /// What can take the place of an instance that has just ended.
    pub(super) fn into_successor(self) -> Result<Successor, Self> {
        match self {
            Self::Starting(begun) => Ok(Successor::Begun(begun)),
            Self::WarmingUp { candidate, .. } | Self::Settling { candidate, .. } => {
                Ok(Successor::Ready(candidate))
            }
            other => Err(other),
        }
    }
}

impl Draining {
    /// Closes `old` to new calls, and gives those that it has the time `limit`.
    fn begin(old: Box<Instance>, limit: Duration) -> Self {
        // A call that finds it closed finds the new route as well, which is published.
        old.route.gate.close();
        let live = old.live.clone();
        let cut = CancellationToken::new();
        let cutting = cut.clone();
        let ended = Box::pin(async move {
            let emptied = cutting.run_until_cancelled(old.route.gate.emptied());
            let _ = tokio::time::timeout(limit, emptied).await;
            let open_calls = old.route.gate.count();
            old.plugin.shutdown().await;
            open_calls
        });
        Self { live, ended, cut }
    }

    /// Has the instance ended now, as one that is stopped is.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }

    /// Waits for its end; tells how many calls were broken off. Cancel safe.
    pub(super) async fn ended(&mut self) -> usize {
        self.ended.as_mut().await
    }
}

impl Task {
    pub(super) fn begin_swap(&self, source: Source, number: u64, reply: Option<Reply>) -> Swapping {
        let (starting, begun, oom_kills) =
            (source.start(self.settings.prepare.clone()), Instant::now(), OomKills::now());
        Swapping::Starting(Begun { starting, source, number, begun, oom_kills, reply })
    }

    pub(super) fn swapped(&mut self, happened: Happened) {
        let swapping = std::mem::replace(&mut self.swapping, Swapping::No);
        let next = match (swapping, happened) {
            (Swapping::Starting(begun), Happened::Started(Ok(started))) => {
                let instance = self.instance(begun.number, started, begun.oom_kills);
                self.begun(Candidate { instance, source: begun.source, reply: begun.reply })
            }
            (Swapping::Starting(Begun { reply, .. }), Happened::Started(Err(not_started))) => {
                let why = match not_started {
                    NotStarted::Failed(failure) => OrderError::NotStarted(failure),
                    NotStarted::Cancelled => OrderError::Superseded,
                };
                self.swap_failed(why, reply);
                Swapping::No
            }
            (Swapping::WarmingUp { candidate, .. }, Happened::WarmedUp(outcome)) => {
                if let Err(why) = outcome {
                    self.note(EventKind::WarmUpFailed { why });
                }
                self.settle(candidate)
            }
            (Swapping::Settling { candidate, until }, Happened::Instance(happened)) => match happened {
                instance::Happened::Well => Swapping::Settling { candidate, until },
                instance::Happened::Ended(failure) => abandon(candidate, OrderError::Ended(failure)),
                instance::Happened::NotServing(status) => {
                    abandon(candidate, OrderError::Unwell(super::Degradation::NotServing(status)))
                }
                instance::Happened::Silent { probes } => {
                    abandon(candidate, OrderError::Unwell(super::Degradation::Silent { probes }))
                }
            },
            (Swapping::Settling { candidate, .. }, Happened::Settled) => self.switch(candidate),
            (Swapping::Abandoning { why, reply, .. }, Happened::Abandoned) => {
                self.swap_failed(why, reply);
                Swapping::No
            }
            (other, _) => other,
        };
        self.swapping = next;
    }

    fn begun(&mut self, candidate: Candidate) -> Swapping {
        let Some(old) = self.running() else { return self.settle(candidate) };
        let (version, channel) = (old.live.app_version, old.plugin.channel());
        let new = candidate.instance.live.app_version;
        if new < version {
            return abandon(candidate, OrderError::OlderVersion { old: version, new });
        }
        let new_channel = candidate.instance.plugin.channel();
        match self.settings.warm_up.clone() {
            None => self.settle(candidate),
            Some(warm_up) => {
                let warming_up = Box::pin(async move {
                    match apart(WARM_UP_LIMIT, async move { warm_up(channel, new_channel).await }).await {
                        Ok(outcome) => outcome.map_err(|status| one_line(&status).to_string()),
                        Err(NoOutcome::Panicked) => Err("it panicked".to_owned()),
                        Err(NoOutcome::TimedOut) => Err(format!("it took longer than {WARM_UP_LIMIT:?}")),
                    }
                });
                Swapping::WarmingUp { candidate, warming_up }
            }
        }
    }

    fn settle(&mut self, candidate: Candidate) -> Swapping {
        let settle = self.settings.swap.settle;
        let live = &candidate.instance.live;
        self.note_of(live, EventKind::SwapSettling { pid: live.pid, settle });
        Swapping::Settling { candidate, until: after(settle) }
    }

    /// Has calls go to the new instance from now on. The old one ends when its calls have ended.
    fn switch(&mut self, candidate: Candidate) -> Swapping {
        let Candidate { instance, source, reply } = candidate;
        let old = self.take_running();
        if let Some(old) = &old {
            old.route.retired.store(true, Ordering::Release);
        }
        self.adopt(source);
        self.take_over(instance);
        // No swap is begun while one drains.
        self.draining = old.map(|old| Draining::begin(old, self.settings.swap.drain));
        answer(reply, Ok(self.running().map(|instance| instance.live.clone())));
        Swapping::No
    }

    fn swap_failed(&mut self, why: OrderError, reply: Option<Reply>) {
        self.reload_failed(&why);
        answer(reply, Err(why));
    }

    /// Gives a swap up. The future ends what there is of it.
    pub(super) fn give_up_swap(&mut self, why: &OrderError) -> Done {
        match std::mem::replace(&mut self.swapping, Swapping::No) {
            Swapping::No => Box::pin(std::future::ready(())),
            Swapping::Starting(Begun { starting, reply, .. }) => {
                self.swap_failed(why.clone(), reply);
                Box::pin(starting.give_up())
            }
            Swapping::WarmingUp { candidate, .. } | Swapping::Settling { candidate, .. } => {
                self.swap_failed(why.clone(), candidate.reply);
                end(candidate.instance)
            }
            Swapping::Abandoning { ending, why, reply } => {
                self.swap_failed(why, reply);
                ending
            }
        }
    }
}

fn abandon(Candidate { instance, reply, .. }: Candidate, why: OrderError) -> Swapping {
    Swapping::Abandoning { ending: end(instance), why, reply }
}

fn end(instance: Box<Instance>) -> Done {
    Box::pin(async move { _ = instance.plugin.shutdown().await })
}
