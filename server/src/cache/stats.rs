//! What the plugin has counted, for operators. To ask is to use the plugin; who only looks must not keep one running that
//! would be ended for not being used. So, where it may be ended, it is asked once after each use, and the answer stands until the
//! next.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cache_proto::{StatsRequest, StatsResponse, cache_client::CacheClient};
use plugin_sdk::host::PluginChannel;
use tokio::time;
use tonic::{Code, Request};

use super::Unavailable;

/// An answer to the question what the plugin has counted since its process started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatsAnswer {
    /// Meanings as in the contract.
    Stats(StatsResponse),
    /// This plugin does not count.
    Unsupported,
    /// There was no answer.
    Unavailable(Unavailable),
}

/// Asks, and knows when it need not.
#[derive(Debug)]
pub(super) struct Stats {
    client: CacheClient<PluginChannel>,
    channel: PluginChannel,
    timeout: Duration,
    keeping: Keeping,
    /// Lookups and stores that have ended.
    uses: AtomicU64,
    /// The number of the instance that has said that it does not implement Stats. A newer one may. Instances are counted from 1.
    without: AtomicU64,
    kept: Mutex<Option<Kept>>,
}

/// Whether an answer stands while the plugin is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeping {
    /// Each time is worth a call: entries expire, and others may use the plugin.
    Never,
    /// The plugin is ended when it is not used.
    UntilUsed,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    instance: u64,
    uses: u64,
    stats: StatsResponse,
}

/// A lookup or a store, until it is dropped.
pub(super) struct Use<'a>(&'a AtomicU64);

impl Drop for Use<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Stats {
    pub(super) fn new(channel: PluginChannel, timeout: Duration, keeping: Keeping) -> Self {
        let client = CacheClient::new(channel.clone());
        let (uses, without, kept) = Default::default();
        Self { client, channel, timeout, keeping, uses, without, kept }
    }

    /// To be held while the plugin is called. Counts where an answer is kept, and only there.
    pub(super) fn begin_use(&self) -> Option<Use<'_>> {
        (self.keeping == Keeping::UntilUsed).then(|| Use(&self.uses))
    }

    /// What the plugin has counted. Starts none.
    pub(super) async fn get(&self) -> StatsAnswer {
        // A call would start one that rests.
        let Some(instance) = self.channel.instance() else {
            return StatsAnswer::Unavailable(Unavailable::Down);
        };
        if self.without.load(Ordering::Relaxed) == instance {
            return StatsAnswer::Unsupported;
        }
        // One that is under way ends later, and what is kept is out of date then.
        let uses = self.uses.load(Ordering::Relaxed);
        if let Some(stats) = self.kept(instance, uses) {
            return StatsAnswer::Stats(stats);
        }
        let mut client = self.client.clone();
        // Given up rather than with a deadline: that would count as a call that the plugin has not answered, and who asks for
        // this must take nothing from lookups.
        let call = client.stats(Request::new(StatsRequest {}));
        let Ok(answer) = time::timeout(self.timeout, call).await else {
            return StatsAnswer::Unavailable(Unavailable::TimedOut);
        };
        match answer {
            Ok(counted) => {
                let stats = counted.into_inner();
                self.keep(Kept { instance, uses, stats });
                StatsAnswer::Stats(stats)
            }
            Err(status) if status.code() == Code::Unimplemented => {
                self.without.store(instance, Ordering::Relaxed);
                StatsAnswer::Unsupported
            }
            Err(status) => StatsAnswer::Unavailable((&status).into()),
        }
    }

    fn kept(&self, instance: u64, uses: u64) -> Option<StatsResponse> {
        let kept = *self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.filter(|kept| (kept.instance, kept.uses) == (instance, uses)).map(|kept| kept.stats)
    }

    fn keep(&self, kept: Kept) {
        if self.keeping == Keeping::UntilUsed {
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        }
    }
}
