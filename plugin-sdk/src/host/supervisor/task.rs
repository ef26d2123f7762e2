//! The one task that owns a plugin: it does what the [`Machine`] decides, and publishes what there is.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::channel::{BreakerChange, Route};
use super::crash::{CrashReport, OomKills, check_dir};
use super::event::Recorder;
use super::file_watch::{self, FileWatch};
use super::instance::{Happened, Instance};
use super::machine::{Act, Input, Machine, Order, Phase, Then};
use super::policy::Settings;
use super::random;
use super::start::{NotStarted, Source, Started, Starting};
use super::swap::{Begun, Candidate, Draining, Successor, Swapping};
use super::{
    Degradation, EventKind, FailedReload, Failure, Live, Off, OrderError, OrderedBy, PluginState,
    PluginStatus, StopReason,
};
use crate::clock::after;
use crate::host::Exit;
use crate::host::journal::Journal;
use crate::host::logbook::LogBook;
use crate::one_line;

/// What the task is asked for.
#[derive(Debug)]
pub(super) enum Request {
    Order { order: Order, by: OrderedBy, reply: Reply },
    Reload { program: Option<PathBuf>, by: OrderedBy, reply: Reply },
    Shutdown { done: oneshot::Sender<Option<Exit>> },
}

/// To whoever waits for what an order leads to: the instance that serves then, if one does.
pub(super) type Reply = oneshot::Sender<Result<Option<Live>, OrderError>>;

pub(super) type Done = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What the task is made of.
pub(super) struct Parts {
    pub(super) source: Source,
    pub(super) settings: Settings,
    pub(super) recorder: Recorder,
    pub(super) crashes: Journal<CrashReport>,
    pub(super) log_book: LogBook,
    pub(super) status: watch::Sender<PluginStatus>,
    pub(super) route: watch::Sender<Route>,
    pub(super) wake: Arc<Notify>,
    pub(super) requests: mpsc::Receiver<Request>,
}

pub(super) struct Task {
    source: Source,
    pub(super) settings: Settings,
    recorder: Recorder,
    crashes: Journal<CrashReport>,
    /// Writing crash reports, or looking whether they can be.
    reports: JoinSet<Option<PathBuf>>,
    log_book: LogBook,
    status: watch::Sender<PluginStatus>,
    route: watch::Sender<Route>,
    end: End,
    wake: Arc<Notify>,
    requests: mpsc::Receiver<Request>,
    changes: (mpsc::UnboundedSender<BreakerChange>, mpsc::UnboundedReceiver<BreakerChange>),
    machine: Machine,
    work: Work,
    pub(super) swapping: Swapping,
    /// What the running instance has taken over from.
    pub(super) draining: Option<Draining>,
    /// What is to be started next, on trial.
    trial: Option<Source>,
    /// Swaps that have to wait for the one before them, or for a start.
    reloads: VecDeque<(Option<PathBuf>, Option<Reply>)>,
    waiting: Vec<Waiting>,
    file: Option<FileWatch>,
    file_check: Instant,
    /// Whether it was a call that has asked for the start.
    woken: bool,
    /// Whether an instance has served.
    has_served: bool,
    unwell: Option<Degradation>,
    breaker_open: bool,
    /// When the plugin may be idle.
    idle_check: Option<Instant>,
    /// Instances so far.
    instances: u64,
}

/// Publishes, when it is dropped, that the plugin is kept no longer: the task may be dropped at any moment.
struct End {
    status: watch::Sender<PluginStatus>,
    route: watch::Sender<Route>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.status.send_modify(|status| {
            status.since = SystemTime::now();
            status.state = PluginState::Stopped(StopReason::Shutdown);
        });
        self.route.send_replace(Route::Gone);
    }
}

/// What there is of the plugin.
enum Work {
    Nothing,
    Starting {
        starting: Starting,
        number: u64,
        begun: Instant,
        oom_kills: OomKills,
        /// Takes the place of the source if the start succeeds.
        adopt: Option<Source>,
    },
    Running(Box<Instance>),
    /// It did not answer and is being killed.
    Killing {
        killing: Pin<Box<dyn Future<Output = (Box<Instance>, Failure)> + Send>>,
    },
    Ending(Done),
}

/// What happened to it.
enum Worked {
    Started(Result<Started, NotStarted>),
    Happened(Happened),
    Killed(Box<Instance>, Failure),
    Gone,
}

/// Who waits for what an order leads to.
struct Waiting {
    goal: Goal,
    reply: Reply,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Goal {
    Serving,
    Gone,
}

/// What wakes the task.
enum Woken {
    Request(Option<Request>),
    Worked(Worked),
    Swapped(super::swap::Happened),
    Drained { open_calls: usize },
    Wanted,
    Breaker(BreakerChange),
    Timer,
    IdleCheck,
    FileCheck,
    Reported(Option<PathBuf>),
}

/// The order that no machine knows.
const RELOAD: &str = "reload";

/// Swaps that may wait.
const MAX_RELOADS: usize = 16;

impl Work {
    async fn next(&mut self) -> Worked {
        match self {
            Self::Nothing => std::future::pending().await,
            Self::Starting { starting, .. } => Worked::Started(starting.outcome().await),
            Self::Running(instance) => Worked::Happened(instance.next().await),
            Self::Killing { killing } => {
                let (instance, failure) = killing.as_mut().await;
                Worked::Killed(instance, failure)
            }
            Self::Ending(ending) => {
                ending.as_mut().await;
                Worked::Gone
            }
        }
    }

    /// Ends what there is. Tells how the instance ended that was running.
    async fn end(self) -> Option<Exit> {
        match self {
            Self::Nothing => None,
            Self::Starting { starting, .. } => {
                starting.give_up().await;
                None
            }
            Self::Running(instance) => Some(instance.plugin.shutdown().await),
            Self::Killing { killing } => killing.await.1.exit().cloned(),
            Self::Ending(ending) => {
                ending.await;
                None
            }
        }
    }
}

impl Task {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { source, settings, recorder, crashes, log_book, status, route, wake, requests } = parts;
        let file = match &source {
            Source::Launch(launch) if settings.watch_file => Some(FileWatch::new(launch.program())),
            _ => None,
        };
        Self {
            machine: Machine::new(settings.policy),
            source,
            settings,
            recorder,
            crashes,
            reports: JoinSet::new(),
            log_book,
            end: End { status: status.clone(), route: route.clone() },
            status,
            route,
            wake,
            requests,
            changes: mpsc::unbounded_channel(),
            work: Work::Nothing,
            swapping: Swapping::No,
            draining: None,
            trial: None,
            reloads: VecDeque::new(),
            waiting: Vec::new(),
            file,
            file_check: Instant::now() + file_watch::INTERVAL,
            woken: false,
            has_served: false,
            unwell: None,
            breaker_open: false,
            idle_check: None,
            instances: 0,
        }
    }

    /// Looks after the plugin until it is asked to stop doing so, or until nobody is left who could.
    pub(super) async fn run(mut self) {
        self.check_crash_dir();
        if self.settings.lazy {
            self.publish();
        } else {
            // Nothing is disabled yet.
            let _ = self.step(Input::Order(Order::Start));
        }
        let done = loop {
            match self.next().await {
                Woken::Request(None) => break None,
                Woken::Request(Some(Request::Shutdown { done })) => break Some(done),
                Woken::Request(Some(Request::Order { order, by, reply })) => self.obey(order, by, reply),
                Woken::Request(Some(Request::Reload { program, by, reply })) => {
                    self.note(EventKind::Ordered { order: RELOAD, by });
                    self.reload(program, Some(reply));
                }
                Woken::Worked(worked) => self.worked(worked),
                Woken::Swapped(happened) => self.swapped(happened),
                Woken::Drained { open_calls } => self.drained(open_calls),
                Woken::Wanted => self.wanted(),
                Woken::Breaker(change) => self.breaker_changed(change),
                Woken::Timer => _ = self.step(Input::Timer),
                Woken::IdleCheck => self.check_idle(),
                Woken::FileCheck => self.check_file(),
                Woken::Reported(Some(path)) => self.note(EventKind::CrashFile { path }),
                Woken::Reported(None) => {}
            }
            self.next_reload();
        };
        let exit = self.finish().await;
        if let Some(done) = done {
            let _nobody_waits = done.send(exit);
        }
    }

    /// Has it be known at once that reports cannot be written, not with the first crash.
    fn check_crash_dir(&mut self) {
        let Some(dir) = self.settings.crash_dir.clone() else { return };
        let plugin = Arc::clone(&self.status.borrow().name);
        self.reports.spawn(async move {
            let checked = tokio::task::spawn_blocking(move || check_dir(&dir)).await;
            if let Ok(Err(error)) = checked {
                tracing::warn!(plugin = &*plugin, "crash reports cannot be written: {}", one_line(&error));
            }
            None
        });
    }

    async fn next(&mut self) -> Woken {
        let (timer, idle_check) = (self.machine.timer(), self.idle_check);
        let file_check = self.file.as_ref().map(|_| self.file_check);
        tokio::select! {
            biased;
            worked = self.work.next() => Woken::Worked(worked),
            request = self.requests.recv() => Woken::Request(request),
            happened = self.swapping.next() => Woken::Swapped(happened),
            open_calls = drained(&mut self.draining) => Woken::Drained { open_calls },
            () = self.wake.notified() => Woken::Wanted,
            Some(change) = self.changes.1.recv() => Woken::Breaker(change),
            Some(reported) = self.reports.join_next() => Woken::Reported(reported.ok().flatten()),
            () = at(timer) => Woken::Timer,
            () = at(idle_check) => Woken::IdleCheck,
            () = at(file_check) => Woken::FileCheck,
        }
    }

    fn obey(&mut self, order: Order, by: OrderedBy, reply: Reply) {
        self.note(EventKind::Ordered { order: order.name(), by });
        if self.step(Input::Order(order)).is_err() {
            return self.refuse(order.name(), OrderError::Disabled, Some(reply));
        }
        let goal = match order {
            Order::Stop | Order::Disable => {
                self.supersede_reloads();
                Goal::Gone
            }
            Order::Start | Order::Restart | Order::Enable | Order::Clear => Goal::Serving,
        };
        match self.machine.phase() {
            // What it leads to is here already.
            Phase::Stopped(_) | Phase::Disabled | Phase::GaveUp(_) | Phase::BackingOff { .. }
                if goal == Goal::Serving || self.draining.is_none() =>
            {
                let _nobody_waits = reply.send(Ok(None));
            }
            _ => {
                self.waiting.push(Waiting { goal, reply });
                self.answer_those_who_wait();
            }
        }
    }

    /// Answers an order that is not followed.
    fn refuse(&mut self, order: &'static str, why: OrderError, reply: Option<Reply>) {
        self.note(EventKind::Refused { order, why: why.to_string() });
        answer(reply, Err(why));
    }

    /// Has the machine take one step, does what it says, and publishes what has become of it.
    fn step(&mut self, input: Input) -> Result<(), super::machine::Disabled> {
        let before = self.machine.phase();
        let act = self.machine.on(input, Instant::now(), random())?;
        let after = self.machine.phase();
        if before != after {
            self.note_phase(after);
        }
        match act {
            Act::Nothing => {}
            Act::Start => self.start(),
            Act::End => self.end(),
        }
        if let (Some(draining), true) = (&self.draining, after.is_unwanted()) {
            draining.cut();
        }
        self.publish();
        self.answer_those_who_wait();
        Ok(())
    }

    fn note_phase(&mut self, phase: Phase) {
        match phase {
            // These have events of their own.
            Phase::Starting | Phase::Running { .. } => {}
            Phase::Stopping(_) => self.note(EventKind::Stopping),
            Phase::BackingOff { retry_at } => {
                let delay = retry_at.saturating_duration_since(Instant::now());
                self.note(EventKind::BackingOff { attempt: self.machine.attempt(), delay });
            }
            Phase::GaveUp(why) => self.note(EventKind::GaveUp { why }),
            Phase::Stopped(why) => self.note(EventKind::Stopped { why }),
            Phase::Disabled => self.note(EventKind::Disabled),
        }
    }

    fn start(&mut self) {
        debug_assert!(matches!(self.work, Work::Nothing), "there are never two instances");
        let restart = self.instances > 0;
        let number = self.next_number();
        self.status.send_modify(|status| status.restarts += u64::from(restart));
        self.recorder.note(Some(number), None, EventKind::Starting { attempt: self.machine.attempt() });
        let (begun, oom_kills) = (Instant::now(), OomKills::now());
        let adopt = self.trial.take();
        let starting = adopt.as_ref().unwrap_or(&self.source).start(self.settings.prepare.clone());
        self.work = Work::Starting { starting, number, begun, oom_kills, adopt };
    }

    fn next_number(&mut self) -> u64 {
        self.instances += 1;
        self.status.send_modify(|status| status.starts = self.instances);
        self.instances
    }

    /// Ends whatever runs or is being started; when it is gone, that is told as [`Worked::Gone`].
    fn end(&mut self) {
        let candidate = self.give_up_swap(&OrderError::Superseded);
        let work = std::mem::replace(&mut self.work, Work::Nothing);
        self.unwell = None;
        self.work = Work::Ending(Box::pin(async move {
            tokio::join!(work.end(), candidate);
        }));
    }

    fn worked(&mut self, worked: Worked) {
        match (std::mem::replace(&mut self.work, Work::Nothing), worked) {
            (Work::Starting { number, begun, oom_kills, adopt, .. }, Worked::Started(outcome)) => {
                match outcome {
                    Ok(started) => {
                        if let Some(source) = adopt {
                            self.adopt(source);
                        }
                        let instance = self.instance(number, started, oom_kills);
                        self.serve(instance, begun.elapsed());
                        let _ = self.step(Input::Started);
                    }
                    Err(NotStarted::Failed(failure)) => {
                        self.start_failed(number, failure, oom_kills, adopt.as_ref());
                    }
                    // Nobody cancels a start but `end`, which has taken it out of `work`.
                    Err(NotStarted::Cancelled) => {}
                }
            }
            (Work::Running(instance), Worked::Happened(happened)) => self.happened(instance, happened),
            (Work::Killing { .. }, Worked::Killed(instance, failure)) => self.ended(instance, failure),
            (Work::Ending(_), Worked::Gone) => self.gone(),
            (work, _) => self.work = work,
        }
    }

    /// `replacement` is what was started, if that was not the source itself.
    fn start_failed(
        &mut self,
        number: u64,
        failure: Failure,
        oom_kills: OomKills,
        replacement: Option<&Source>,
    ) {
        let program = replacement.unwrap_or(&self.source).program();
        self.report_failed_start(number, program, &failure, oom_kills);
        match replacement {
            Some(_) => self.reload_failed(&OrderError::NotStarted(failure.clone())),
            None => {
                self.recorder.note(Some(number), None, EventKind::StartFailed { failure: failure.clone() });
                self.remember(failure.clone());
            }
        }
        let input = match replacement {
            _ if failure.is_unwell() => Input::StartedUnwell,
            None if failure.is_file_away() && self.has_served => Input::FileAway,
            None => Input::StartFailed { permanent: failure.is_permanent() },
            // What keeps a replacement from starting is no fault of the program that is started next.
            Some(_) => Input::StartFailed { permanent: false },
        };
        self.woken = false;
        self.answer(Goal::Serving, || Err(OrderError::NotStarted(failure.clone())));
        let _ = self.step(input);
    }

    /// What was being ended has ended. Nothing is left, unless another is to be started.
    fn gone(&mut self) {
        if self.draining.is_none() || !self.machine.phase().is_unwanted() {
            let _ = self.step(Input::Gone);
        }
    }

    /// The instance that another had taken over from has ended.
    fn drained(&mut self, open_calls: usize) {
        if let Some(old) = self.draining.take() {
            self.note_of(&old.live, EventKind::Drained { open_calls });
        }
        match (self.machine.phase(), &self.work) {
            // The other was waiting for this one.
            (Phase::Stopping(_), Work::Nothing) => self.gone(),
            _ => self.answer_those_who_wait(),
        }
    }

    fn happened(&mut self, instance: Box<Instance>, happened: Happened) {
        let unwell = match happened {
            Happened::Ended(failure) => return self.ended(instance, failure),
            Happened::Well => None,
            Happened::NotServing(status) => Some(Degradation::NotServing(status)),
            Happened::Silent { probes } if probes >= self.settings.probe.max_silent => {
                self.degrade(Some(Degradation::Silent { probes }), &instance);
                self.work = kill(instance, probes);
                return self.publish();
            }
            Happened::Silent { probes } => Some(Degradation::Silent { probes }),
        };
        self.degrade(unwell, &instance);
        self.work = Work::Running(instance);
        self.publish();
    }

    fn degrade(&mut self, unwell: Option<Degradation>, instance: &Instance) {
        let same_kind = match (self.unwell, unwell) {
            (None, None) => true,
            (Some(before), Some(now)) => std::mem::discriminant(&before) == std::mem::discriminant(&now),
            _ => false,
        };
        self.unwell = unwell;
        if !same_kind {
            let what = unwell.map_or(EventKind::Recovered, |why| EventKind::Degraded { why });
            self.recorder.note(Some(instance.live.instance), instance.live.pid, what);
        }
    }

    /// An instance that served has ended.
    fn ended(&mut self, instance: Box<Instance>, failure: Failure) {
        self.unwell = None;
        let open_calls = instance.route.gate.count();
        let stderr_tail = instance.plugin.stderr_tail().shortened();
        let what = EventKind::Ended { failure: failure.clone(), open_calls, stderr_tail };
        self.recorder.note(Some(instance.live.instance), instance.live.pid, what);
        let success = failure.is_success();
        self.remember(failure.clone());
        self.report(*instance, failure, open_calls);
        match std::mem::replace(&mut self.swapping, Swapping::No).into_successor() {
            // The one that was to take over does so now.
            Ok(Successor::Begun(Begun { starting, source, number, begun, oom_kills, reply })) => {
                self.work = Work::Starting { starting, number, begun, oom_kills, adopt: Some(source) };
                self.waiting.extend(reply.map(|reply| Waiting { goal: Goal::Serving, reply }));
                let _ = self.step(Input::Replaced);
            }
            Ok(Successor::Ready(Candidate { instance, source, reply })) => {
                self.adopt(source);
                let live = instance.live.clone();
                self.take_over(instance);
                answer(reply, Ok(Some(live)));
            }
            Err(swapping) => {
                self.swapping = swapping;
                let _ = self.step(Input::Ended { success });
            }
        }
    }

    /// Makes `instance` the one that is called, without a start.
    pub(super) fn take_over(&mut self, instance: Box<Instance>) {
        self.recorder.note(
            Some(instance.live.instance),
            instance.live.pid,
            EventKind::Swapped { pid: instance.live.pid },
        );
        self.status.send_modify(|status| {
            status.swaps += 1;
            status.failed_reload = None;
        });
        self.work = Work::Running(instance);
        self.unwell = None;
        self.breaker_open = false;
        self.plan_idle_check();
        let _ = self.step(Input::Swapped);
    }

    fn serve(&mut self, instance: Box<Instance>, after: Duration) {
        let what = EventKind::Serving {
            pid: instance.live.pid,
            app_version: instance.live.app_version.get(),
            after,
        };
        self.recorder.note(Some(instance.live.instance), instance.live.pid, what);
        self.status.send_modify(|status| status.failed_reload = None);
        self.work = Work::Running(instance);
        self.has_served = true;
        self.unwell = None;
        self.breaker_open = false;
        self.woken = false;
        self.plan_idle_check();
    }

    pub(super) fn instance(&self, number: u64, started: Started, oom_kills: OomKills) -> Box<Instance> {
        Box::new(Instance::new(number, started, oom_kills, self.settings.probe, self.changes.0.clone()))
    }

    pub(super) fn adopt(&mut self, source: Source) {
        if let (Source::Launch(launch), Some(file)) = (&source, &mut self.file) {
            *file = FileWatch::new(launch.program());
        }
        self.source = source;
        self.status.send_modify(|status| status.source = self.source.info());
    }

    fn wanted(&mut self) {
        let rests = matches!(
            self.machine.phase(),
            Phase::Stopped(StopReason::NotNeeded | StopReason::Idle)
                | Phase::Stopping(Then::Rest(StopReason::Idle))
        );
        if rests {
            self.note(EventKind::Wanted);
            self.woken = true;
            let _ = self.step(Input::Wanted);
        }
    }

    fn breaker_changed(&mut self, change: BreakerChange) {
        let Work::Running(instance) = &mut self.work else { return };
        if instance.live.instance != change.instance || self.breaker_open == change.open {
            return;
        }
        self.breaker_open = change.open;
        instance.probe_now();
        if self.unwell.is_none() {
            let what = if change.open {
                EventKind::Degraded { why: Degradation::CallsFail }
            } else {
                EventKind::Recovered
            };
            self.note(what);
        }
        self.publish();
    }

    fn plan_idle_check(&mut self) {
        self.idle_check = self.settings.idle_after.map(after);
    }

    fn check_idle(&mut self) {
        self.idle_check = None;
        let (Work::Running(instance), Some(idle)) = (&self.work, self.settings.idle_after) else { return };
        if self.is_swapping() {
            return self.plan_idle_check();
        }
        match instance.route.gate.close_if_idle(idle, Instant::now()) {
            Ok(()) => _ = self.step(Input::Idle),
            Err(due) => self.idle_check = Some(due),
        }
    }

    fn check_file(&mut self) {
        self.file_check = Instant::now() + file_watch::INTERVAL;
        let (Source::Launch(launch), Some(file)) = (&self.source, &mut self.file) else { return };
        if !file.has_changed(launch.program()) {
            return;
        }
        self.note(EventKind::FileChanged);
        match self.machine.phase() {
            Phase::Running { .. } | Phase::Starting => self.reload(None, None),
            _ => _ = self.step(Input::FileChanged),
        }
    }

    /// Has another instance take over, or has it started on trial if none runs.
    fn reload(&mut self, program: Option<PathBuf>, reply: Option<Reply>) {
        let Source::Launch(launch) = &self.source else {
            return self.refuse(RELOAD, OrderError::NotOurs, reply);
        };
        if self.machine.phase() == Phase::Disabled {
            return self.refuse(RELOAD, OrderError::Disabled, reply);
        }
        let busy = !self.is_settled() || self.is_swapping() || !self.reloads.is_empty();
        if busy {
            if self.reloads.len() >= MAX_RELOADS {
                return self.refuse(RELOAD, OrderError::Busy, reply);
            }
            return self.reloads.push_back((program, reply));
        }
        let mut next = (**launch).clone();
        if let Some(program) = program.clone() {
            next = next.with_program(program);
        }
        if let Phase::Running { .. } = self.machine.phase() {
            let number = self.next_number();
            self.recorder.note(Some(number), None, EventKind::SwapStarted { program });
            self.swapping = self.begin_swap(Source::Launch(Box::new(next)), number, reply);
            return;
        }
        if let Err(error) = next.check() {
            let why = OrderError::NotStarted(Failure::Start(Arc::new(error)));
            self.reload_failed(&why);
            return answer(reply, Err(why));
        }
        self.trial = Some(Source::Launch(Box::new(next)));
        // No order, so that it is not refused.
        let _ = self.step(Input::Trial);
        self.waiting.extend(reply.map(|reply| Waiting { goal: Goal::Serving, reply }));
    }

    /// Begins the next swap that has waited, and answers those before it that are refused at once.
    fn next_reload(&mut self) {
        while self.is_settled()
            && !self.is_swapping()
            && let Some((program, reply)) = self.reloads.pop_front()
        {
            // So that it does not take itself for one that has to wait.
            let rest = std::mem::take(&mut self.reloads);
            self.reload(program, reply);
            self.reloads.extend(rest);
        }
    }

    /// Whether there is a second instance.
    fn is_swapping(&self) -> bool {
        !matches!(self.swapping, Swapping::No) || self.draining.is_some()
    }

    fn is_settled(&self) -> bool {
        !matches!(self.machine.phase(), Phase::Starting | Phase::Stopping(_))
    }

    fn supersede_reloads(&mut self) {
        for (_, reply) in std::mem::take(&mut self.reloads) {
            self.refuse(RELOAD, OrderError::Superseded, reply);
        }
    }

    /// Tells of a reload that has changed nothing.
    pub(super) fn reload_failed(&mut self, why: &OrderError) {
        self.note(EventKind::SwapFailed { why: why.detail() });
        // That somebody wants something else is no failure.
        if !matches!(why, OrderError::Superseded) {
            let failed = FailedReload { at: SystemTime::now(), why: why.clone() };
            self.status.send_modify(|status| status.failed_reload = Some(failed));
        }
    }

    pub(super) fn running(&self) -> Option<&Instance> {
        match &self.work {
            Work::Running(instance) => Some(instance),
            _ => None,
        }
    }

    pub(super) fn take_running(&mut self) -> Option<Box<Instance>> {
        match std::mem::replace(&mut self.work, Work::Nothing) {
            Work::Running(instance) => Some(instance),
            other => {
                self.work = other;
                None
            }
        }
    }

    pub(super) fn note_of(&mut self, instance: &Live, what: EventKind) {
        self.recorder.note(Some(instance.instance), instance.pid, what);
    }

    pub(super) fn note(&mut self, what: EventKind) {
        let (instance, pid) = match &self.work {
            Work::Running(instance) => (Some(instance.live.instance), instance.live.pid),
            Work::Starting { number, .. } => (Some(*number), None),
            _ => (None, None),
        };
        self.recorder.note(instance, pid, what);
    }

    fn remember(&mut self, failure: Failure) {
        self.status.send_modify(|status| status.last_failure = Some(failure));
    }

    fn report_failed_start(
        &mut self,
        number: u64,
        program: Option<PathBuf>,
        failure: &Failure,
        oom_kills: OomKills,
    ) {
        let Failure::Start(error) = failure else { return };
        let Some(stderr_tail) = error.stderr_tail() else { return };
        let report = CrashReport {
            plugin: Arc::clone(&self.status.borrow().name),
            instance: number,
            pid: None,
            program,
            at: SystemTime::now(),
            out_of_memory: oom_kills.explain(failure),
            uptime: failure.exit().map(|exit| exit.uptime),
            open_calls: 0,
            stderr: stderr_tail.lines().to_vec(),
            failure: failure.clone(),
        };
        let (crashes, dir) = (self.crashes.clone(), self.settings.crash_dir.clone());
        self.reports.spawn(keep(report, crashes, dir));
    }

    /// Collects what the instance has said last, which may take a moment, and keeps its report.
    fn report(&mut self, instance: Instance, failure: Failure, open_calls: usize) {
        if !instance.plugin.is_ours() {
            return;
        }
        let Instance { plugin, live, oom_kills, .. } = instance;
        let (name, program) = (Arc::clone(&self.status.borrow().name), self.source.program());
        let (crashes, dir) = (self.crashes.clone(), self.settings.crash_dir.clone());
        let at = SystemTime::now();
        self.reports.spawn(async move {
            let stderr = plugin.last_words().await.lines().to_vec();
            let report = CrashReport {
                plugin: name,
                instance: live.instance,
                pid: live.pid,
                program,
                at,
                out_of_memory: oom_kills.explain(&failure),
                uptime: failure.exit().map(|exit| exit.uptime),
                open_calls,
                stderr,
                failure,
            };
            keep(report, crashes, dir).await
        });
    }

    pub(super) fn publish(&mut self) {
        // First: whoever reads that it serves may call it.
        let route = self.way();
        self.route.send_if_modified(|current| {
            let changed = !current.is_same(&route);
            if changed {
                *current = route;
            }
            changed
        });
        let state = self.state();
        self.status.send_modify(|status| {
            if status.state.name() != state.name() || state.live() != status.state.live() {
                status.since = SystemTime::now();
            }
            status.state = state;
        });
    }

    fn state(&self) -> PluginState {
        let last = || self.status.borrow().last_failure.clone();
        match self.machine.phase() {
            Phase::Starting => PluginState::Starting { attempt: self.machine.attempt() },
            Phase::Running { .. } => match (&self.work, self.unwell) {
                (Work::Running(instance), None) if !self.breaker_open => {
                    PluginState::Serving(instance.live.clone())
                }
                (Work::Running(instance), unwell) => PluginState::Degraded {
                    live: instance.live.clone(),
                    why: unwell.unwrap_or(Degradation::CallsFail),
                },
                // It is being killed; or replaced, within the step that publishes next.
                _ => self.status.borrow().state.clone(),
            },
            Phase::Stopping(_) => PluginState::Stopping,
            Phase::BackingOff { retry_at } => {
                PluginState::BackingOff { attempt: self.machine.attempt(), retry_at, last: last() }
            }
            Phase::GaveUp(why) => PluginState::GaveUp { why, last: last() },
            Phase::Stopped(why) => PluginState::Stopped(why),
            Phase::Disabled => PluginState::Disabled,
        }
    }

    fn way(&self) -> Route {
        match (self.machine.phase(), &self.work) {
            (Phase::Running { .. }, Work::Running(instance)) if self.unwell.is_none() => {
                Route::Live(Arc::clone(&instance.route))
            }
            (Phase::Running { .. }, Work::Running(_) | Work::Killing { .. }) => Route::Unwell,
            (Phase::Starting | Phase::Stopping(Then::Start), _) if self.woken => Route::Waking,
            (
                Phase::Stopped(StopReason::NotNeeded | StopReason::Idle)
                | Phase::Stopping(Then::Rest(StopReason::Idle)),
                _,
            ) => Route::Asleep,
            (Phase::Stopped(why) | Phase::Stopping(Then::Rest(why)), _) => Route::Off(Off::Stopped(why)),
            (Phase::GaveUp(why), _) => Route::Off(Off::GaveUp(why)),
            (Phase::Disabled | Phase::Stopping(Then::Disable), _) => Route::Off(Off::Disabled),
            (
                Phase::Starting
                | Phase::Running { .. }
                | Phase::Stopping(Then::Start)
                | Phase::BackingOff { .. },
                _,
            ) => Route::Down,
        }
    }

    fn answer_those_who_wait(&mut self) {
        match self.machine.phase() {
            Phase::Running { .. } => {
                let live = self.running().map(|instance| instance.live.clone());
                self.answer(Goal::Serving, || Ok(live.clone()));
                self.answer(Goal::Gone, || Err(OrderError::Superseded));
            }
            Phase::Stopped(_) | Phase::Disabled => {
                if self.draining.is_none() {
                    self.answer(Goal::Gone, || Ok(None));
                }
                self.answer(Goal::Serving, || Err(OrderError::Superseded));
            }
            Phase::Starting => self.answer(Goal::Gone, || Err(OrderError::Superseded)),
            Phase::Stopping(_) | Phase::BackingOff { .. } | Phase::GaveUp(_) => {}
        }
    }

    fn answer(&mut self, goal: Goal, outcome: impl Fn() -> Result<Option<Live>, OrderError>) {
        for waiting in std::mem::take(&mut self.waiting) {
            if waiting.goal == goal {
                let _nobody_waits = waiting.reply.send(outcome());
            } else {
                self.waiting.push(waiting);
            }
        }
    }

    /// Ends everything, for good. Tells how the instance ended that was running.
    async fn finish(mut self) -> Option<Exit> {
        let running = !matches!(self.work, Work::Nothing) || self.is_swapping();
        if running {
            self.note(EventKind::Stopping);
            self.status.send_modify(|status| status.state = PluginState::Stopping);
            self.route.send_replace(Route::Gone);
        }
        let candidate = self.give_up_swap(&OrderError::Superseded);
        let work = std::mem::replace(&mut self.work, Work::Nothing);
        let draining = self.draining.take();
        let drained = async {
            let mut draining = draining?;
            draining.cut();
            let open_calls = draining.ended().await;
            Some((draining.live, open_calls))
        };
        let (exit, drained, ()) = tokio::join!(work.end(), drained, candidate);
        if let Some((old, open_calls)) = drained {
            self.note_of(&old, EventKind::Drained { open_calls });
        }
        while let Some(reported) = self.reports.join_next().await {
            if let Ok(Some(path)) = reported {
                self.note(EventKind::CrashFile { path });
            }
        }
        self.note(EventKind::Stopped { why: StopReason::Shutdown });
        drop(self.end);
        drop(self.log_book);
        exit
    }
}

pub(super) fn answer(reply: Option<Reply>, outcome: Result<Option<Live>, OrderError>) {
    if let Some(reply) = reply {
        let _nobody_waits = reply.send(outcome);
    }
}

async fn drained(draining: &mut Option<Draining>) -> usize {
    match draining {
        Some(draining) => draining.ended().await,
        None => std::future::pending().await,
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

fn kill(instance: Box<Instance>, probes: u32) -> Work {
    let killing = Box::pin(async move {
        let exit = instance.plugin.kill().await;
        let failure =
            if instance.plugin.is_ours() { Failure::Silent { probes, exit } } else { Failure::Lost };
        (instance, failure)
    });
    Work::Killing { killing }
}

/// Keeps a report, and gives the file back that it is in.
async fn keep(report: CrashReport, crashes: Journal<CrashReport>, dir: Option<PathBuf>) -> Option<PathBuf> {
    crashes.push(report.clone());
    let (dir, plugin) = (dir?, Arc::clone(&report.plugin));
    let shown = dir.display().to_string();
    let written = tokio::task::spawn_blocking(move || report.write(&dir)).await.ok()?;
    if let Err(error) = &written {
        tracing::warn!(plugin = &*plugin, dir = shown, %error, "a crash report cannot be written");
    }
    written.ok()
}
