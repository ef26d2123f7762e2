//! The task that owns the line: it takes what waits, decides how it travels, and hands the answers out.

use std::{
    future,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    task::Poll,
};

use cache_proto::{GetManyRequest, SetError, SetManyRequest, cache_client::CacheClient};
use plugin_sdk::host::PluginChannel;
use tokio::{
    sync::mpsc,
    task::{self, JoinError, JoinSet},
    time::{self, Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};
use tracing::{debug, warn};

use super::{
    Alone, Unavailable,
    batch::{Call, Get, Gets, Miscounted, Set, Sets},
    faults::{Failing, Faults},
    flying::{Batch, Calls, GivenUp, Landing, Stores},
    known::{Known, Way},
    pipe::{End, Happened, Pipe},
};

/// Calls taken from a queue for one batch.
const BATCH: usize = 1_000;

/// Bytes of entries that travel as one. A larger entry travels alone.
const SET_BATCH_BYTES: usize = 1 << 20;

/// A stream that was not used for so long is ended, so that a plugin that nobody needs can be seen to be idle.
const IDLE: Duration = Duration::from_secs(1);

/// A stream whose stores were not answered for so long is left for another, as an answer may have been lost.
const STUCK: Duration = Duration::from_secs(10);

pub(super) struct Driver {
    channel: PluginChannel,
    client: CacheClient<PluginChannel>,
    timeout: Duration,
    known: Known,
    alone: Arc<Alone>,
    faults: Arc<Faults>,
    waiting: Calls,
    /// Leads to the instance that `known` is about.
    pipe: Option<Pipe>,
    last_sent: Instant,
    /// Streams to instances that are not called any more, and calls that turn out to be unanswered.
    retiring: JoinSet<Calls>,
    get_calls: JoinSet<Called<Gets>>,
    set_calls: JoinSet<Called<Sets>>,
}

/// What became of a call of GetMany or SetMany.
enum Called<B> {
    Settled,
    Miscounted(Miscounted),
    Failed(Failing, Option<u64>, Status),
    /// This instance has no such method. Nothing was done.
    Unimplemented(B, Option<u64>),
}

impl Driver {
    pub(super) fn new(
        channel: PluginChannel,
        client: CacheClient<PluginChannel>,
        timeout: Duration,
        alone: Arc<Alone>,
        faults: Arc<Faults>,
    ) -> Self {
        Self {
            channel,
            client,
            timeout,
            known: Known::nothing(),
            alone,
            faults,
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
                Some(called) = self.get_calls.join_next() => {
                    self.judge(&called, Instant::now());
                    self.called(called, Batch::Gets);
                }
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
        self.known.gets_may_leave(self.gets_under_way())
    }

    fn sets_may_leave(&self) -> bool {
        self.known.sets_may_leave(self.sets_under_way())
    }

    fn gets_under_way(&self) -> usize {
        match self.known.gets() {
            Way::Pipe => self.pipe.as_ref().map_or(0, |pipe| pipe.flying.gets()),
            Way::Many => self.get_calls.len(),
            Way::Alone => 0,
        }
    }

    fn sets_under_way(&self) -> Stores {
        match self.known.sets() {
            Way::Pipe => self.pipe.as_ref().map_or(Stores::UnderWay(0), |pipe| pipe.flying.sets()),
            Way::Many => Stores::UnderWay(self.set_calls.len()),
            Way::Alone => Stores::UnderWay(0),
        }
    }

    /// Sends what waits and may leave, to where calls go now. Those who have asked while they went to a new instance are not
    /// to have an old one's answer.
    fn send(&mut self) {
        self.follow();
        if !self.waiting.gets.is_empty() && self.gets_may_leave() {
            self.send_gets();
        }
        if !self.waiting.sets.is_empty() && self.sets_may_leave() {
            self.send_sets();
        }
    }

    /// Takes note of where calls go.
    fn follow(&mut self) {
        if self.known.follow(self.channel.instance()) {
            self.retire();
        }
    }

    fn send_gets(&mut self) {
        let way = self.known.gets();
        if way == Way::Alone {
            return self.waiting.gets.drain(..).for_each(Call::call_alone);
        }
        let (gets, now) = (Gets::gather(&mut self.waiting.gets), Instant::now());
        if gets.is_empty() {
        } else if !self.known.admits_gets(self.gets_under_way(), now) {
            gets.fail(Unavailable::Down);
        } else if way == Way::Many {
            let (client, instance) = (self.client.clone(), self.known.instance());
            self.get_calls.spawn(get_many(client, gets, self.timeout, instance));
        } else {
            self.put_on_pipe(Batch::Gets(gets), now);
        }
    }

    fn send_sets(&mut self) {
        let way = self.known.sets();
        if way == Way::Alone {
            return self.waiting.sets.drain(..).for_each(Call::call_alone);
        }
        let (sets, now) = (Sets::gather(&mut self.waiting.sets, SET_BATCH_BYTES), Instant::now());
        if sets.is_empty() {
        } else if let Some(why) = self.known.turns_sets_away(self.sets_under_way()) {
            sets.fail(why);
        } else if way == Way::Many {
            let (client, instance) = (self.client.clone(), self.known.instance());
            self.set_calls.spawn(set_many(client, sets, self.timeout, instance));
        } else {
            self.put_on_pipe(Batch::Sets(sets), now);
        }
    }

    fn put_on_pipe(&mut self, batch: Batch, now: Instant) {
        self.last_sent = now;
        let pipe = self.pipe.get_or_insert_with(|| {
            Pipe::open(self.client.clone(), self.channel.clone(), self.known.instance())
        });
        if !pipe.send(batch, now) {
            self.missed(1, now);
        }
    }

    /// Acts on what has happened on the stream.
    fn happened(&mut self, happened: Happened) {
        let Some(pipe) = &mut self.pipe else { return };
        match happened {
            Happened::Answer(answer) => match pipe.land(answer) {
                Landing::Gets => self.known.heard(),
                Landing::Sets(errors) => self.tell_errors(&errors),
                Landing::Late => {}
                Landing::Miscounted(miscounted) => {
                    self.known.heard();
                    self.miscounted(&miscounted);
                }
                Landing::Unasked => {
                    self.known.heard();
                    // Whatever it means by its answers, they will not be for our questions.
                    self.break_off(Unavailable::Failed(Code::Internal));
                    self.complain(&"an answer to a batch that was not sent");
                }
            },
            Happened::Ended(status) => self.ended(status),
            Happened::Changed => {
                self.follow();
                // Also if calls go there again by now.
                self.retire();
            }
        }
    }

    /// Acts on the end of the stream, which comes from the plugin.
    fn ended(&mut self, status: Option<Status>) {
        debug!(?status, "the stream to the cache plugin has ended");
        self.known.heard();
        let Some(mut pipe) = self.pipe.take() else { return };
        let instance = self.known.instance();
        match pipe.ended(status.as_ref()) {
            End::Unimplemented(calls) => {
                self.waiting.put_back(calls);
                self.learn(instance, Known::has_no_pipe);
            }
            End::Broken => {
                if let Some(status) = &status {
                    self.faults.tell_status(Failing::Stream, instance, status, Instant::now());
                }
            }
            End::Cut => self.faults.tell_cut(instance, Instant::now()),
        }
    }

    /// Takes note of whether a batch of lookups was answered.
    fn judge(&mut self, called: &Result<Called<Gets>, JoinError>, now: Instant) {
        match called {
            Ok(Called::Failed(_, instance, status)) => match Unavailable::from(status) {
                Unavailable::TimedOut if *instance == self.known.instance() => self.missed(1, now),
                // It was not asked, or the word is late.
                Unavailable::TimedOut | Unavailable::Down | Unavailable::Overloaded => {}
                Unavailable::Failed(_) => self.known.heard(),
            },
            Ok(_) => self.known.heard(),
            Err(_) => {}
        }
    }

    fn called<B>(&mut self, called: Result<Called<B>, JoinError>, kind: fn(B) -> Batch) {
        match called {
            Ok(Called::Settled) => {}
            Ok(Called::Miscounted(miscounted)) => self.miscounted(&miscounted),
            Ok(Called::Failed(failing, instance, status)) => {
                self.faults.tell_status(failing, instance, &status, Instant::now());
            }
            Ok(Called::Unimplemented(batch, instance)) => {
                let batch = kind(batch);
                let lacks = match &batch {
                    Batch::Gets(_) => Known::has_no_get_many,
                    Batch::Sets(_) => Known::has_no_set_many,
                };
                let mut calls = Calls::default();
                calls.add(batch);
                self.waiting.put_back(calls);
                self.learn(instance, lacks);
            }
            // Its calls were dropped with it, which those who wait see.
            Err(error) => debug!(%error, "a call of the cache plugin was lost"),
        }
    }

    /// Takes note of what this instance has shown, if calls still go to it; if not, it may have been another one.
    fn learn(&mut self, instance: Option<u64>, lacks: fn(&mut Known)) {
        self.follow();
        let Some(number) = instance.filter(|_| instance == self.known.instance()) else { return };
        lacks(&mut self.known);
        debug!(known = ?self.known, "how the cache plugin can be called");
        let alone = |way| if way == Way::Alone { number } else { 0 };
        self.alone.gets.store(alone(self.known.gets()), Ordering::Relaxed);
        self.alone.sets.store(alone(self.known.sets()), Ordering::Relaxed);
    }

    fn miscounted(&mut self, miscounted: &Miscounted) {
        if miscounted.got > 0 {
            return self.complain(miscounted);
        }
        self.faults.tell_wordless(self.known.instance(), Instant::now());
    }

    /// Logs nonsense, once for each instance.
    fn complain(&mut self, what: &dyn std::fmt::Debug) {
        if self.known.is_newly_strange() {
            warn!(?what, "the cache plugin gives answers that do not fit their questions");
        }
    }

    fn tell_errors(&self, errors: &[SetError]) {
        for SetError { code, message, .. } in errors {
            let code = Code::from(*code);
            self.faults.tell(Failing::Stores, self.known.instance(), code, message, Instant::now());
        }
    }

    /// Looks for batches that take too long. Gives the time for the next look, while there is a stream.
    fn look_at_the_clock(&mut self, now: Instant) -> Option<Instant> {
        let GivenUp { gets, sets } = self.pipe.as_mut()?.flying.give_up(self.timeout, now);
        self.missed(gets, now);
        if sets > 0 && self.known.instance().is_some() {
            self.faults.tell_stuck(self.known.instance(), now);
        }
        let flying = &self.pipe.as_ref()?.flying;
        let oldest = flying.oldest();
        let is_idle = oldest.is_none() && self.last_sent + IDLE <= now;
        if is_idle || flying.stuck_since().is_some_and(|since| since + STUCK <= now) {
            self.retire();
            return None;
        }
        Some((oldest.unwrap_or(now) + self.timeout).min(now + IDLE))
    }

    fn missed(&mut self, batches: u32, now: Instant) {
        if self.known.missed(batches, now) {
            // The next one is for the trial, and has nothing of this one before it.
            self.break_off(Unavailable::TimedOut);
            // Whoever waits for an instance to start has asked none.
            if self.known.instance().is_some() {
                self.faults.tell_hung(self.known.instance(), now);
            }
        }
    }

    /// Drops the stream: what is on it has failed, for this reason.
    fn break_off(&mut self, why: Unavailable) {
        if let Some(mut pipe) = self.pipe.take() {
            pipe.flying.fail(why);
        }
    }

    /// Ends the stream in order: what is on it is still answered; what comes from now on opens another.
    fn retire(&mut self) {
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
            gets.fail((&status).into());
            Called::Failed(Failing::Lookups, instance, status)
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
        Ok(_) => {
            sets.answer(&[]);
            Called::Settled
        }
        Err(status) if status.code() == Code::Unimplemented => Called::Unimplemented(sets, instance),
        Err(status) => {
            sets.fail((&status).into());
            Called::Failed(Failing::Stores, instance, status)
        }
    }
}

#[cfg(test)]
mod tests {
    use cache_proto::SetRequest;
    use plugin_sdk::host::Supervised;
    use plugin_testkit::Logged;
    use tokio::sync::oneshot;

    use super::{
        super::{
            batch::Reply,
            tests::peer::{Methods, Peer},
        },
        *,
    };

    type Answer = oneshot::Receiver<Reply<String, cache_proto::GetResponse>>;

    /// A driver that nothing happens to but what the test does, as if its task had not run.
    async fn driver(peer: &Peer) -> (Driver, Supervised) {
        let plugin = peer.supervised().await;
        let channel = plugin.channel();
        let client = CacheClient::new(channel.clone());
        let limit = Duration::from_secs(60);
        (Driver::new(channel, client, limit, Arc::default(), Arc::default()), plugin)
    }

    fn ask(driver: &mut Driver) -> Answer {
        let (reply, answer) = oneshot::channel();
        driver.waiting.gets.push(Call { request: "a".into(), reply });
        driver.send();
        answer
    }

    fn store(driver: &mut Driver) -> oneshot::Receiver<Reply<SetRequest, ()>> {
        let (reply, answer) = oneshot::channel();
        driver.waiting.sets.push(Call { request: SetRequest::default(), reply });
        driver.send();
        answer
    }

    #[tokio::test]
    async fn nothing_is_put_on_a_stream_to_an_instance_that_calls_go_to_no_more() {
        let peer = Peer::start(Methods::Pipe);
        let (mut driver, plugin) = driver(&peer).await;
        let mut old = ask(&mut driver);
        let live = plugin.handle().restart().await.unwrap().unwrap();
        assert_eq!(live.instance, 2);
        let _new = ask(&mut driver);
        assert_eq!(driver.retiring.len(), 1, "the old stream is ended in order");
        assert_eq!(driver.pipe.as_ref().map(|pipe| pipe.flying.gets()), Some(1));
        assert!(old.try_recv().is_err(), "it may still be answered");
    }

    #[tokio::test]
    async fn stores_that_are_never_answered_do_not_stop_others_for_ever() {
        let peer = Peer::start(Methods::Pipe);
        let (mut driver, _plugin) = driver(&peer).await;
        let (now, limit) = (Instant::now(), Duration::from_secs(60));
        let mut lost = store(&mut driver);
        // Lookups keep the stream in use.
        driver.last_sent = now + 3 * limit;
        driver.look_at_the_clock(now + 2 * limit);
        assert_eq!(lost.try_recv(), Ok(Reply::Unavailable(Unavailable::TimedOut)));
        let mut refused = store(&mut driver);
        assert_eq!(refused.try_recv(), Ok(Reply::Unavailable(Unavailable::Overloaded)));
        driver.look_at_the_clock(now + 2 * limit + STUCK);
        let mut sent = store(&mut driver);
        assert!(sent.try_recv().is_err(), "it is under way");
        assert_eq!(driver.retiring.len(), 1);
    }

    #[tokio::test]
    async fn plugin_that_hangs_is_logged_when_it_begins_and_not_with_each_trial() {
        let log = Logged::begin();
        let peer = Peer::start(Methods::Pipe);
        let (mut driver, _plugin) = driver(&peer).await;
        driver.follow();
        let begun = Instant::now();
        for trial in 0..5 {
            driver.missed(3, begun + trial * Duration::from_secs(1));
        }
        let told = log.lines().into_iter().filter(|line| line.message().contains("does not answer"));
        assert_eq!(told.count(), 1);
    }

    #[tokio::test]
    async fn new_instance_is_asked_though_the_old_one_was_left_alone() {
        let peer = Peer::start(Methods::Pipe);
        let (mut driver, plugin) = driver(&peer).await;
        let mut hung = ask(&mut driver);
        // Far in the future, so that the rest is not over when the new one is there.
        driver.missed(3, Instant::now() + Duration::from_secs(600));
        assert_eq!(hung.try_recv(), Ok(Reply::Unavailable(Unavailable::TimedOut)));
        assert_eq!(ask(&mut driver).try_recv(), Ok(Reply::Unavailable(Unavailable::Down)));
        let live = plugin.handle().restart().await.unwrap().unwrap();
        assert_eq!(live.instance, 2);
        let _asked = ask(&mut driver);
        assert_eq!(driver.pipe.as_ref().map(|pipe| pipe.flying.gets()), Some(1));
    }
}
