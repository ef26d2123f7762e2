//! The line to the cache plugin: the calls of all requests travel on it together, in as few messages as there can be
//! without anybody waiting for the next one.
//!
//! ```text
//! requests ── get, set ─▶ queues ─▶ driver ─┬─ Pipe: one stream, two batches of lookups and one of stores at a time
//!    ▲                                      ├─ GetMany, SetMany: as many calls
//!    └────────── each its own answer ◀──────┴─ "call alone": the request makes its own call of Get or Set
//! ```
//!
//! There is no timer: a line that is free sends at once, and what comes while its batches are under way leaves with the
//! next one. A batch is as large as the plugin is slow.
//!
//! Which way is taken is found out once for each instance of the plugin, by what it says is not implemented.
//!
//! A call waits no longer than its timeout, whatever becomes of its batch, and costs nothing once nobody waits for it. A
//! batch that fails fails its own calls and nobody else's, unless the stream is of no more use: when it breaks, when it has
//! an answer to what was never sent, and when the plugin has not answered for so long that it is left alone, all that is on
//! it fails. Nothing is ever sent twice.
//!
//! A store that is not answered in time is not made again, nor is another: the plugin may be at work on it, and what it can
//! do at a time is for lookups. Stores fail at once until it has answered, or the stream has ended.
//!
//! | file | has | does I/O |
//! |---|---|---|
//! | [`batch`] | calls that travel as one, who gets which answer | no |
//! | [`flying`] | batches on their way, which answer is for which | no |
//! | [`known`] | what is known of an instance: which way calls go, whether they are sent | no |
//! | [`patience`] | when a plugin that does not answer is left alone | no |
//! | [`lone`] | the same, for lookups that are made alone | no |
//! | [`faults`] | what a plugin says of its failures, for the log | no |
//! | [`pipe`] | one stream to one instance | yes |
//! | [`driver`] | the task that owns all of it | yes |

mod batch;
mod driver;
mod faults;
mod flying;
mod known;
mod lone;
#[cfg(feature = "measure")]
mod measure;
mod patience;
mod pipe;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cache_proto::{GetRequest, GetResponse, MAX_MESSAGE_BYTES, SetRequest, cache_client::CacheClient};
use plugin_sdk::host::PluginChannel;
use tokio::{
    sync::{mpsc, oneshot},
    time::{self, Instant},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status};

#[cfg(feature = "measure")]
pub use self::measure::Round;
use self::{
    batch::{Call, Get, Reply, Set},
    driver::Driver,
    faults::{Failing, Faults},
    lone::LonePatience,
};
use super::Unavailable;

/// Lookups that wait for the line: as many as there can be requests by default. More are not made.
const WAITING_GETS: usize = 10_000;

/// Stores that wait for the line. More are not made.
const WAITING_SETS: usize = 1_000;

/// A line to whichever instance of the plugin serves. Cheap to clone; it ends with the last clone, or by
/// [`close`](Self::close).
#[derive(Clone, Debug)]
pub(super) struct Line {
    gets: mpsc::Sender<Get>,
    sets: mpsc::Sender<Set>,
    channel: PluginChannel,
    client: CacheClient<PluginChannel>,
    timeout: Duration,
    alone: Arc<Alone>,
    faults: Arc<Faults>,
    stop: CancellationToken,
    /// The driver, and calls that are made alone.
    tasks: TaskTracker,
}

/// The instance that takes single calls only, of either kind. Instances are counted from 1; 0 is none. It spares callers
/// the way through the driver, and is no more than a hint.
#[derive(Debug, Default)]
struct Alone {
    gets: AtomicU64,
    sets: AtomicU64,
    patience: LonePatience,
}

impl Line {
    /// A line for calls that wait up to `timeout` each. Sends nothing before there is a call.
    ///
    /// # Panics
    /// Outside of a tokio run time.
    pub(super) fn new(channel: PluginChannel, timeout: Duration) -> Self {
        // A stream has no deadline as a whole: its calls have.
        let channel = channel.timeout(None);
        let client = CacheClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let (gets, waiting_gets) = mpsc::channel(WAITING_GETS);
        let (sets, waiting_sets) = mpsc::channel(WAITING_SETS);
        let (alone, faults) = (Arc::default(), Arc::default());
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let driver =
            Driver::new(channel.clone(), client.clone(), timeout, Arc::clone(&alone), Arc::clone(&faults));
        tasks.spawn(driver.run(waiting_gets, waiting_sets, stop.clone()));
        tasks.close();
        Self { gets, sets, channel, client, timeout, alone, faults, stop, tasks }
    }

    /// Looks a key up. Dropping the future gives up.
    pub(super) async fn get(&self, key: String) -> Result<GetResponse, Unavailable> {
        let alone = async |key, deadline| {
            let mut client = self.client.clone();
            let call = single(deadline, GetRequest { key }, |request| client.get(request));
            self.look_up_alone(call).await
        };
        self.call(&self.gets, &self.alone.gets, key, alone).await
    }

    /// Takes note that the value of a key, from this instance, is of no use.
    pub(super) fn complain_of_value(&self, instance: Option<u64>, key: &str, value: &[u8]) {
        self.faults.tell_corrupt(instance, key, value, Instant::now());
    }

    /// Stores an entry. Dropping the future gives up; it may be stored all the same.
    pub(super) async fn set(&self, entry: SetRequest) -> Result<(), Unavailable> {
        let alone = async |entry, deadline| {
            let mut client = self.client.clone();
            let call = single(deadline, entry, |request| client.set(request));
            // The plugin would be left alone by halves.
            if self.alone.patience.rests(self.channel.instance()) {
                return Err(Unavailable::Down);
            }
            self.call_alone(Failing::Stores, call).await.map(drop)
        };
        self.call(&self.sets, &self.alone.sets, entry, alone).await
    }

    /// Ends the line: calls fail from now on, and those under way are waited for, up to their timeout. The plugin has no
    /// stream open afterwards that it would wait for.
    pub(super) async fn close(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }

    /// Each call that is made alone is in a box: nearly all go by the queue, and would be ten times as large.
    async fn call<Q, A>(
        &self,
        queue: &mpsc::Sender<Call<Q, A>>,
        alone: &AtomicU64,
        request: Q,
        call_alone: impl AsyncFnOnce(Q, Instant) -> Result<A, Unavailable>,
    ) -> Result<A, Unavailable> {
        let deadline = Instant::now() + self.timeout;
        let loner = alone.load(Ordering::Relaxed);
        if loner != 0 && self.channel.instance() == Some(loner) {
            return Box::pin(call_alone(request, deadline)).await;
        }
        let (reply, answer) = oneshot::channel();
        queue.try_send(Call { request, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unavailable::Overloaded,
            mpsc::error::TrySendError::Closed(_) => Unavailable::Down,
        })?;
        match time::timeout_at(deadline, answer).await {
            Ok(Ok(Reply::Answered(answer))) => Ok(answer),
            Ok(Ok(Reply::Unavailable(why))) => Err(why),
            Ok(Ok(Reply::CallAlone(request))) => Box::pin(call_alone(request, deadline)).await,
            // The driver has ended.
            Ok(Err(_)) => Err(Unavailable::Down),
            Err(_) => Err(Unavailable::TimedOut),
        }
    }

    /// Makes a lookup, unless the plugin is left alone.
    async fn look_up_alone(
        &self,
        call: impl Future<Output = Result<GetResponse, Status>>,
    ) -> Result<GetResponse, Unavailable> {
        let (instance, patience) = (self.channel.instance(), &self.alone.patience);
        if !patience.admits(instance, Instant::now()) {
            return Err(Unavailable::Down);
        }
        let found = self.call_alone(Failing::Lookups, call).await;
        let now = Instant::now();
        match found {
            Err(Unavailable::TimedOut) if patience.missed(instance, now) => {
                self.faults.tell_hung(instance, now);
            }
            // It was not asked.
            Err(Unavailable::TimedOut | Unavailable::Down | Unavailable::Overloaded) => {}
            Ok(_) | Err(Unavailable::Failed(_)) => patience.heard(instance),
        }
        found
    }

    async fn call_alone<A>(
        &self,
        failing: Failing,
        call: impl Future<Output = Result<A, Status>>,
    ) -> Result<A, Unavailable> {
        // First, so that whoever ends the line waits for this call, or it is not made.
        let _under_way = self.tasks.token();
        if self.stop.is_cancelled() {
            return Err(Unavailable::Down);
        }
        let instance = self.channel.instance();
        call.await.map_err(|status| {
            self.faults.tell_status(failing, instance, &status, Instant::now());
            Unavailable::from(&status)
        })
    }
}

/// One call with what is left of its time, which the plugin is told and the channel keeps.
async fn single<Q, A, F>(
    deadline: Instant,
    message: Q,
    call: impl FnOnce(Request<Q>) -> F,
) -> Result<A, Status>
where
    F: Future<Output = Result<Response<A>, Status>>,
{
    let mut request = Request::new(message);
    request.set_timeout(deadline.saturating_duration_since(Instant::now()));
    Ok(call(request).await?.into_inner())
}

#[cfg(test)]
mod tests;
