//! The task that owns the line: it takes what waits, decides how it travels, and hands the answers out.

use std::{
    future,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    task::Poll,
};

use cache_proto::{GetManyRequest, SetManyRequest, cache_client::CacheClient};
use plugin_sdk::host::PluginChannel;
use tokio::{
    sync::mpsc,
    task::{self, JoinError, JoinSet},
    time::{self, Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request};
use tracing::{debug, warn};

use super::{
    Alone, Unavailable,
    batch::{Call, Get, Gets, Miscounted, Set, Sets},
    flying::{Batch, Calls, Flying, Landing},
    patience::Patience,
    pipe::{End, Happened, Pipe},
};

/// Batches of lookups under way at a time: one is on the wire while the other is worked on. More were measured to be no
/// faster, and one to give a tenth fewer answers at 16 connections, a fifth fewer where the plugin asks Redis.
const GET_BATCHES: usize = 2;

/// Batches of stores under way at a time.
const SET_BATCHES: usize = 1;

/// Calls taken from a queue for one batch.
const BATCH: usize = 1_000;

/// Bytes of entries that travel as one. A larger entry travels alone.
const SET_BATCH_BYTES: usize = 1 << 20;

/// A stream that was not used for so long is ended, so that a plugin that nobody needs can be seen to be idle.
const IDLE: Duration = Duration::from_secs(1);

pub(super) struct Driver {
    channel: PluginChannel,
    client: CacheClient<PluginChannel>,
    timeout: Duration,
    known: Known,
    alone: Arc<Alone>,
    patience: Patience,
    waiting: Calls,
    pipe: Option<Pipe>,
    last_sent: Instant,
    /// Streams to instances that are not called any more, and calls that turn out to be unanswered.
    retiring: JoinSet<Calls>,
    get_calls: JoinSet<Called<Gets>>,
    set_calls: JoinSet<Called<Sets>>,
}

/// How calls travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Pipe,
    Many,
    Alone,
}

/// What has been found out about one instance. Nothing is known of instance 0, which there is not.
#[derive(Clone, Copy, Debug)]
struct Known {
    instance: u64,
    gets: Way,
    sets: Way,
    /// Nonsense of its has been logged.
    is_strange: bool,
}

/// What became of a call of GetMany or SetMany.
enum Called<B> {
    Settled,
    Miscounted(Miscounted),
    /// This instance has no such method. Nothing was done.
    Unimplemented(B, Option<u64>),
}

impl Driver {
    pub(super) fn new(
        channel: PluginChannel,
        client: CacheClient<PluginChannel>,
        timeout: Duration,
        alone: Arc<Alone>,
    ) -> Self {
        Self {
            channel,
            client,
            timeout,
            known: Known::nothing(0),
            alone,
            patience: Patience::NEW,
            waiting: Calls::default(),
            pipe: None,
            last_sent: Instant::now(),
            retiring: JoinSet::new(),
            get_calls: JoinSet::new(),
            set_calls: JoinSet::new(),
        }
    }

    /// Works until the queues are closed or `stop` says so; then until what is under way has ended.
    pub(super) async fn run(
        mut self,
        mut gets: mpsc::Receiver<Get>,
        mut sets: mpsc::Receiver<Set>,
        stop: CancellationToken,
    ) {
        let mut stopped = pin!(stop.cancelled());
        // For as long as there is a stream. It is looked at when it rings, not with each batch.
        let mut alarm = pin!(time::sleep(Duration::ZERO));
        let mut is_set = false;
        loop {
            self.send();
            if self.pipe.is_some() && !is_set {
                alarm.as_mut().reset(Instant::now() + self.timeout.min(IDLE));
                is_set = true;
            }
            let (get_room, set_room) = (self.room_for_gets(), self.room_for_sets());
            tokio::select! {
                biased;
                () = &mut stopped => break,
                () = &mut alarm, if is_set => {
                    is_set = false;
                    if let Some(at) = self.look_at_the_clock(Instant::now()) {
                        alarm.as_mut().reset(at);
                        is_set = true;
                    }
                }
                happened = next(&mut self.pipe) => self.happened(happened),
                Some(called) = self.get_calls.join_next() => self.called(called, Batch::Gets),
                Some(called) = self.set_calls.join_next() => self.called(called, Batch::Sets),
                // A task that was lost has dropped its calls, which those who wait see.
                Some(calls) = self.retiring.join_next() => self.waiting.put_back(calls.unwrap_or_default()),
                received = gets.recv_many(&mut self.waiting.gets, get_room), if get_room > 0 => {
                    if received == 0 {
                        break;
                    }
                    gather(&mut self.waiting.gets, &mut gets).await;
                }
                received = sets.recv_many(&mut self.waiting.sets, set_room), if set_room > 0 => {
                    if received == 0 {
                        break;
                    }
                    gather(&mut self.waiting.sets, &mut sets).await;
                }
            }
        }
        self.finish(gets, sets).await;
    }

    /// How many lookups to take from the queue: none while they could not leave.
    fn room_for_gets(&self) -> usize {
        if self.gets_may_leave() { BATCH.saturating_sub(self.waiting.gets.len()) } else { 0 }
    }

    fn room_for_sets(&self) -> usize {
        if self.sets_may_leave() { BATCH.saturating_sub(self.waiting.sets.len()) } else { 0 }
    }

    fn gets_may_leave(&self) -> bool {
        match self.ways().gets {
            // If they are to be turned away, then at once.
            Way::Pipe => self.under_way(Flying::gets) < GET_BATCHES || !self.patience.is_trusting(),
            Way::Many => self.get_calls.len() < GET_BATCHES,
            Way::Alone => true,
        }
    }

    fn sets_may_leave(&self) -> bool {
        match self.ways().sets {
            Way::Pipe => self.under_way(Flying::sets) < SET_BATCHES || !self.patience.is_trusting(),
            Way::Many => self.set_calls.len() < SET_BATCHES,
            Way::Alone => true,
        }
    }

    fn under_way(&self, count: impl Fn(&Flying) -> usize) -> usize {
        self.pipe.as_ref().map_or(0, |pipe| count(&pipe.flying))
    }

    /// What is known of the instance that calls go to.
    fn ways(&self) -> Known {
        match self.channel.instance().unwrap_or_default() {
            instance if instance == self.known.instance => self.known,
            other => Known::nothing(other),
        }
    }

    /// Sends what waits and may leave.
    fn send(&mut self) {
        if !self.waiting.gets.is_empty() && self.gets_may_leave() {
            self.send_gets();
        }
        if !self.waiting.sets.is_empty() && self.sets_may_leave() {
            self.send_sets();
        }
    }

    fn send_gets(&mut self) {
        let way = self.ways().gets;
        if way == Way::Alone {
            return self.waiting.gets.drain(..).for_each(Call::call_alone);
        }
        let (gets, now) = (Gets::gather(&mut self.waiting.gets), Instant::now());
        if gets.is_empty() {
        } else if way == Way::Many {
            let (client, instance) = (self.client.clone(), self.channel.instance());
            self.get_calls.spawn(get_many(client, gets, self.timeout, instance));
        } else if self.patience.admits(now) {
            self.put_on_pipe(Batch::Gets(gets), now);
        } else {
            gets.fail(Unavailable::Down);
        }
    }

    fn send_sets(&mut self) {
        let way = self.ways().sets;
        if way == Way::Alone {
            return self.waiting.sets.drain(..).for_each(Call::call_alone);
        }
        let (sets, now) = (Sets::gather(&mut self.waiting.sets, SET_BATCH_BYTES), Instant::now());
        if sets.is_empty() {
        } else if way == Way::Many {
            let (client, instance) = (self.client.clone(), self.channel.instance());
            self.set_calls.spawn(set_many(client, sets, self.timeout, instance));
        } else if self.patience.is_trusting() {
            self.put_on_pipe(Batch::Sets(sets), now);
        } else {
            sets.fail(Unavailable::Down);
        }
    }

    fn put_on_pipe(&mut self, batch: Batch, now: Instant) {
        self.last_sent = now;
        let pipe = self.pipe.get_or_insert_with(|| Pipe::open(self.client.clone(), self.channel.clone()));
        if !pipe.send(batch, now) {
            self.missed(now);
        }
    }

    /// Acts on what has happened on the stream.
    fn happened(&mut self, happened: Happened) {
        let Some(pipe) = &mut self.pipe else { return };
        match happened {
            Happened::Answer(answer) => match pipe.land(answer) {
                Landing::Gets => self.patience.restore(),
                Landing::Sets | Landing::Late => {}
                // No results at all: the lookups have failed.
                Landing::Miscounted(Miscounted { got: 0, .. }) => self.patience.restore(),
                Landing::Miscounted(miscounted) => {
                    self.patience.restore();
                    self.complain(&miscounted);
                }
                Landing::Unasked => {
                    // Whatever it means by its answers, they will not be for our questions.
                    pipe.flying.fail(Unavailable::Failed(Code::Internal));
                    self.pipe = None;
                    self.complain(&"an answer to a batch that was not sent");
                }
            },
            Happened::Ended(status) => {
                debug!(?status, "the stream to the cache plugin has ended");
                let (instance, end) = (pipe.instance, pipe.ended(status));
                self.pipe = None;
                self.patience.restore();
                if let End::Unimplemented(calls) = end {
                    self.waiting.put_back(calls);
                    self.learn(instance, |known| (known.gets, known.sets) = (Way::Many, Way::Many));
                }
            }
            Happened::Changed => self.retire(),
        }
    }

    fn called<B>(&mut self, called: Result<Called<B>, JoinError>, kind: fn(B) -> Batch) {
        match called {
            Ok(Called::Settled) => {}
            Ok(Called::Miscounted(miscounted)) => self.complain(&miscounted),
            Ok(Called::Unimplemented(batch, instance)) => {
                let batch = kind(batch);
                let is_gets = matches!(batch, Batch::Gets(_));
                let mut calls = Calls::default();
                calls.add(batch);
                self.waiting.put_back(calls);
                self.learn(instance, |known| {
                    *(if is_gets { &mut known.gets } else { &mut known.sets }) = Way::Alone;
                });
            }
            // Its calls were dropped with it, which those who wait see.
            Err(error) => debug!(%error, "a call of the cache plugin was lost"),
        }
    }

    /// Takes note of what this instance has shown, if calls still go to it; if not, it may have been another one.
    fn learn(&mut self, instance: Option<u64>, change: impl FnOnce(&mut Known)) {
        let Some(number) = instance.filter(|_| instance == self.channel.instance()) else { return };
        self.known = self.ways();
        change(&mut self.known);
        debug!(known = ?self.known, "how the cache plugin can be called");
        let alone = |way| if way == Way::Alone { number } else { 0 };
        self.alone.gets.store(alone(self.known.gets), Ordering::Relaxed);
        self.alone.sets.store(alone(self.known.sets), Ordering::Relaxed);
    }

    /// Logs nonsense, once for each instance.
    fn complain(&mut self, what: &dyn std::fmt::Debug) {
        self.known = self.ways();
        if !std::mem::replace(&mut self.known.is_strange, true) {
            warn!(?what, "the cache plugin gives answers that do not fit their questions");
        }
    }

    /// Looks for batches that take too long. Gives the time for the next look, while there is a stream.
    fn look_at_the_clock(&mut self, now: Instant) -> Option<Instant> {
        let pipe = self.pipe.as_mut()?;
        for _ in 0..pipe.flying.give_up(self.timeout, now) {
            self.missed(now);
        }
        match self.pipe.as_ref()?.flying.oldest() {
            Some(oldest) => Some(oldest + self.timeout),
            None if self.last_sent + IDLE <= now => {
                self.retire();
                None
            }
            None => Some(now + self.timeout.min(IDLE)),
        }
    }

    fn missed(&mut self, now: Instant) {
        if self.patience.missed(now)
            && let Some(mut pipe) = self.pipe.take()
        {
            warn!("the cache plugin does not answer; it is not asked for a second");
            // The next one is for the trial, and has nothing of this one before it.
            pipe.flying.fail(Unavailable::TimedOut);
        }
    }

    /// Ends the stream in order; what comes from now on opens another.
    fn retire(&mut self) {
        self.patience.restore();
        if let Some(pipe) = self.pipe.take() {
            self.retiring.spawn(pipe.retire(self.timeout));
        }
    }

    /// Turns away what waits, and waits for what is under way.
    async fn finish(mut self, mut gets: mpsc::Receiver<Get>, mut sets: mpsc::Receiver<Set>) {
        gets.close();
        sets.close();
        self.retire();
        while let Ok(call) = gets.try_recv() {
            call.fail(Unavailable::Down);
        }
        while let Ok(call) = sets.try_recv() {
            call.fail(Unavailable::Down);
        }
        self.waiting.fail(Unavailable::Down);
        while self.get_calls.join_next().await.is_some() {}
        while self.set_calls.join_next().await.is_some() {}
        while self.retiring.join_next().await.is_some() {}
    }
}

impl Known {
    fn nothing(instance: u64) -> Self {
        Self { instance, gets: Way::Pipe, sets: Way::Pipe, is_strange: false }
    }
}

/// What happens next on a stream, if there is one. Cancel safe.
async fn next(pipe: &mut Option<Pipe>) -> Happened {
    match pipe {
        Some(pipe) => pipe.next().await,
        None => future::pending().await,
    }
}

/// Takes more calls for the same batch.
async fn gather<T>(waiting: &mut Vec<T>, queue: &mut mpsc::Receiver<T>) {
    // What they ask for leaves now and not with the next batch. It makes a third fewer batches.
    after_others().await;
    take(waiting, queue);
    if waiting.len() > 1 {
        // There is more than one client, so there may be more to be heard of from the operating system. Who is alone is
        // spared that system call.
        task::yield_now().await;
        take(waiting, queue);
    }
}

fn take<T>(waiting: &mut Vec<T>, queue: &mut mpsc::Receiver<T>) {
    while waiting.len() < BATCH
        && let Ok(call) = queue.try_recv()
    {
        waiting.push(call);
    }
}

/// Lets each task that can go on do so first. Unlike `yield_now` it does not ask the operating system for more of them.
async fn after_others() {
    let mut is_first = true;
    future::poll_fn(|cx| {
        if !std::mem::replace(&mut is_first, false) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn get_many(
    mut client: CacheClient<PluginChannel>,
    gets: Gets,
    timeout: Duration,
    instance: Option<u64>,
) -> Called<Gets> {
    let mut request = Request::new(GetManyRequest { keys: gets.keys().to_vec() });
    request.set_timeout(timeout);
    match client.get_many(request).await {
        Ok(response) => match gets.answer(response.into_inner().results) {
            Ok(()) => Called::Settled,
            Err(miscounted) => Called::Miscounted(miscounted),
        },
        Err(status) if status.code() == Code::Unimplemented => Called::Unimplemented(gets, instance),
        Err(status) => {
            gets.fail(status.into());
            Called::Settled
        }
    }
}

async fn set_many(
    mut client: CacheClient<PluginChannel>,
    sets: Sets,
    timeout: Duration,
    instance: Option<u64>,
) -> Called<Sets> {
    let mut request = Request::new(SetManyRequest { entries: sets.entries().to_vec() });
    request.set_timeout(timeout);
    match client.set_many(request).await {
        Ok(_) => sets.answer(Vec::new()),
        Err(status) if status.code() == Code::Unimplemented => return Called::Unimplemented(sets, instance),
        Err(status) => sets.fail(status.into()),
    }
    Called::Settled
}
