//! A plugin that is kept running: real processes that crash, hang, are replaced and steered, with calls all the while.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use plugin_sdk::host::{
    Attach, Backoff, CallError, Degradation, EventKind, Failure, GiveUpReason, Launch, LaunchError, Live,
    NotReady, Off, OrderError, PluginChannel, PluginHandle, PluginState, PluginStatus, Probe, Restart,
    RestartPolicy, Security, SourceInfo, StopReason, Supervised, Supervisor, Swap,
};
use rustix::process::Signal;
use sample_plugin::sample_client::SampleClient;
use support::{LIMIT, SAMPLE, contract, is_running, launch_of, sample, script, signal, until};
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::{Code, Request, Status};

mod support;

/// As fast as it goes, for tests that are not about how long it takes.
fn fast() -> RestartPolicy {
    RestartPolicy { backoff: Backoff::constant(Duration::from_millis(10)), ..RestartPolicy::default() }
}

fn supervise(launch: Launch) -> Supervised {
    Supervisor::launch(launch).policy(fast()).swap(quick_swap()).start()
}

fn quick_swap() -> Swap {
    Swap { settle: Duration::from_millis(50), drain: Duration::from_secs(5) }
}

fn client(handle: &PluginHandle) -> SampleClient<PluginChannel> {
    SampleClient::new(handle.channel())
}

/// Waits until the published state is one that is wanted.
async fn state(handle: &PluginHandle, what: &str, wanted: impl Fn(&PluginState) -> bool) -> PluginStatus {
    let mut status = handle.status();
    let reached = tokio::time::timeout(LIMIT, status.wait_for(|status| wanted(&status.state))).await;
    match reached {
        Ok(found) => found.expect("the supervisor is there").clone(),
        Err(_) => panic!("not within {LIMIT:?}: {what}; it is {:?}", handle.status().borrow().state),
    }
}

async fn serving(handle: &PluginHandle) -> Live {
    let status = state(handle, "serving", |state| matches!(state, PluginState::Serving(_))).await;
    status.state.live().expect("it serves").clone()
}

/// Waits until an instance after `before` serves.
async fn serving_after(handle: &PluginHandle, before: &Live) -> Live {
    let next =
        |state: &PluginState| matches!(state, PluginState::Serving(live) if live.instance > before.instance);
    state(handle, "another instance serves", next).await.state.live().expect("it serves").clone()
}

fn pid(live: &Live) -> u32 {
    live.pid.expect("a child has a process")
}

fn names(handle: &PluginHandle) -> Vec<&'static str> {
    handle.events().kept().iter().map(|event| event.entry.what.name()).collect()
}

async fn who(handle: &PluginHandle) -> Result<String, Status> {
    client(handle).who(()).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn one_client_calls_whichever_instance_serves() {
    let plugin = supervise(sample());
    let handle = &plugin.handle().clone();
    let first = serving(handle).await;
    let mut client = client(handle);
    assert_eq!(client.who(()).await.unwrap().into_inner(), "rust 1");
    signal(pid(&first), Signal::KILL);
    let second = serving_after(handle, &first).await;
    assert_ne!(first.pid, second.pid);
    assert_eq!(client.who(()).await.unwrap().into_inner(), "rust 1");
    let status = handle.status().borrow().clone();
    assert_eq!((status.starts, status.restarts), (2, 1));
    assert_eq!(status.last_failure.unwrap().to_string(), "exited: signal 9 (SIGKILL)");
    assert_eq!(
        names(handle),
        ["starting", "serving", "ended", "backing-off", "starting", "serving"],
        "the trace is the documented one"
    );
    assert!(plugin.shutdown().await.expect("it served").is_success());
    assert!(!is_running(pid(&second)));
    let error = CallError::of(&client.who(()).await.unwrap_err());
    assert_eq!(error, Some(CallError::Down));
}

#[tokio::test]
async fn after_a_stable_run_the_restart_comes_at_once() {
    let policy = RestartPolicy {
        backoff: Backoff::constant(Duration::from_secs(3_600)),
        stable_after: Duration::from_millis(20),
        ..RestartPolicy::default()
    };
    let plugin = Supervisor::launch(sample()).policy(policy).start();
    let first = serving(plugin.handle()).await;
    until("the run is stable", async || first.since.elapsed() >= policy.stable_after).await;
    signal(pid(&first), Signal::KILL);
    serving_after(plugin.handle(), &first).await;
    assert!(!names(plugin.handle()).contains(&"backing-off"));
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_plugin_that_never_serves_is_given_up_until_an_operator_clears_it() {
    let dir = tempfile::tempdir().unwrap();
    let plugin = supervise(script(dir.path(), "echo oh no >&2; exit 7"));
    let handle = plugin.handle();
    let gave_up = |state: &PluginState| matches!(state, PluginState::GaveUp { .. });
    let status = state(handle, "given up", gave_up).await;
    let PluginState::GaveUp { why, last } = status.state else { unreachable!() };
    assert_eq!(why, GiveUpReason::NeverServed { starts: 5 });
    assert_eq!(last.unwrap().to_string(), "exited before it was ready: exit status 7");
    assert_eq!(status.starts, 5);
    let error = who(handle).await.unwrap_err();
    let off = CallError::Off(Off::GaveUp(why));
    assert_eq!((CallError::of(&error), error.code()), (Some(off), Code::Unavailable));
    // An order, which fails as all starts do.
    let error = handle.clear().await.unwrap_err();
    assert!(error.detail().contains("oh no"), "{}", error.detail());
    assert!(!error.to_string().contains("oh no"), "a plugin's words are for operators alone");
    state(handle, "given up again", gave_up).await;
    assert_eq!(handle.status().borrow().starts, 10);
    plugin.shutdown().await;
}

#[tokio::test]
async fn what_no_restart_can_mend_is_given_up_at_once() {
    let certificate = "AAAA".repeat(100);
    // One half asks for what the other has not got, and neither changes between two starts.
    for (security, multiplexing, line) in [
        (Security::Plain, false, "1|1|unix|/tmp/x|netrpc|"),
        (Security::AutoMtls, false, "1|1|unix|/tmp/x|grpc|"),
        (Security::Plain, false, &format!("1|1|unix|/tmp/x|grpc|{certificate}")),
        (Security::Plain, true, "1|1|unix|/tmp/x|grpc||false"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let launch = script(dir.path(), &format!("echo '{line}'; exec sleep 1000"));
        let plugin = supervise(launch.security(security).multiplexing(multiplexing));
        let gave_up = |state: &PluginState| matches!(state, PluginState::GaveUp { .. });
        let status = state(plugin.handle(), "given up", gave_up).await;
        let permanent = matches!(status.state, PluginState::GaveUp { why: GiveUpReason::Permanent, .. });
        assert!(permanent, "{line}: {:?}", status.state);
        assert_eq!(status.starts, 1, "{line}");
        plugin.shutdown().await;
    }
}

#[tokio::test]
async fn who_waits_for_a_plugin_is_told_that_it_serves_or_never_will() {
    let ready = async |plugin: &Supervised| {
        tokio::time::timeout(LIMIT, plugin.ready()).await.expect("nobody waits for ever")
    };
    let dir = tempfile::tempdir().unwrap();
    // Its first start fails, the second one succeeds.
    let first = dir.path().join("first");
    let text = format!("mkdir {} 2>/dev/null && exit 3; exec {SAMPLE}", first.display());
    let plugin = supervise(script(dir.path(), &text));
    let live = ready(&plugin).await.unwrap();
    assert_eq!(live.instance, 2);
    let handle = plugin.handle().clone();
    handle.stop().await.unwrap();
    let error = ready(&plugin).await.unwrap_err();
    assert!(matches!(error, NotReady::Stopped { why: StopReason::Operator, .. }), "{error:?}");
    handle.disable().await.unwrap();
    assert!(matches!(ready(&plugin).await, Err(NotReady::Disabled)));
    plugin.shutdown().await;
    let error = handle.ready().await.unwrap_err();
    assert!(matches!(error, NotReady::Stopped { why: StopReason::Shutdown, .. }), "{error:?}");

    let hopeless = supervise(script(dir.path(), "exit 3"));
    let error = ready(&hopeless).await.unwrap_err();
    let last = std::error::Error::source(&error).expect("there is a cause");
    assert_eq!(last.to_string(), "exited before it was ready: exit status 3");
    drop(hopeless);

    let lazy = Supervisor::launch(sample()).lazy(true).start();
    assert_eq!(ready(&lazy).await.unwrap().instance, 1, "it was woken");
    lazy.shutdown().await;
}

#[tokio::test]
async fn policies_say_what_is_started_again() {
    for (restart, how, again) in [
        (Restart::Never, "abort", false),
        (Restart::OnFailure, "exit 0", false),
        (Restart::OnFailure, "exit 1", true),
        (Restart::Always, "exit 0", true),
    ] {
        let plugin = Supervisor::launch(sample()).policy(RestartPolicy { restart, ..fast() }).start();
        let handle = plugin.handle();
        let first = serving(handle).await;
        assert!(client(handle).die(how.to_owned()).await.is_err());
        if again {
            serving_after(handle, &first).await;
        } else {
            let stopped = |state: &PluginState| matches!(state, PluginState::Stopped(StopReason::Policy));
            state(handle, "stopped", stopped).await;
        }
        until("it is reported", async || handle.crashes().len() == 1).await;
        let (report, events) = (handle.crashes().kept().remove(0).entry, handle.events().kept());
        assert!(handle.status().borrow().last_failure.is_some());
        assert_eq!(report.failure.is_success(), how == "exit 0");
        let ended = events.iter().find(|event| event.entry.what.name() == "ended").expect("it has ended");
        assert!(ended.entry.what.is_warning(), "nobody has asked for {how}");
        plugin.shutdown().await;
    }
}

#[tokio::test]
async fn a_plugin_that_hangs_is_found_out_and_replaced_and_nobody_waits_for_it() {
    let probe =
        Probe { interval: Duration::from_millis(50), timeout: Duration::from_millis(500), max_silent: 3 };
    let plugin = Supervisor::launch(sample()).policy(fast()).probe(probe).start();
    let handle = plugin.handle();
    let first = serving(handle).await;
    signal(pid(&first), Signal::STOP);
    let mut errors = Vec::new();
    while handle.channel().instance() == Some(first.instance) {
        let mut request = Request::new(());
        request.set_timeout(Duration::from_millis(20));
        match client(handle).who(request).await {
            Err(status) => errors.push(CallError::of(&status).expect("the plugin says nothing")),
            // The process is stopped a moment after the signal.
            Ok(_) => assert!(errors.is_empty()),
        }
    }
    assert!(errors.contains(&CallError::TimedOut) && errors.contains(&CallError::Suspended), "{errors:?}");
    let second = serving_after(handle, &first).await;
    assert!(!is_running(pid(&first)));
    assert_eq!(who(handle).await.unwrap(), "rust 1");
    let status = handle.status().borrow().clone();
    assert!(matches!(status.last_failure, Some(Failure::Silent { probes: 3, .. })));
    assert!(names(handle).contains(&"degraded"));
    assert_ne!(first.pid, second.pid);
    plugin.shutdown().await;
}

#[tokio::test]
async fn health_checks_without_an_answer_count_only_in_a_row() {
    let probe = Probe { interval: Duration::from_millis(50), timeout: Duration::from_secs(1), max_silent: 3 };
    let plugin = Supervisor::launch(sample()).policy(fast()).probe(probe).start();
    let handle = plugin.handle();
    let first = serving(handle).await;
    for _ in 0..2 {
        signal(pid(&first), Signal::STOP);
        let silent = |state: &PluginState| {
            matches!(state, PluginState::Degraded { why: Degradation::Silent { probes: 2 }, .. })
        };
        state(handle, "two checks have no answer", silent).await;
        signal(pid(&first), Signal::CONT);
        assert_eq!(serving(handle).await.pid, first.pid);
    }
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_plugin_that_says_it_is_not_well_is_left_alone_and_not_called() {
    let probe = Probe { interval: Duration::from_millis(10), ..Probe::default() };
    let plugin = Supervisor::launch(sample()).policy(fast()).probe(probe).start();
    let handle = plugin.handle();
    let live = serving(handle).await;
    // A call of its own, as the supervised channel closes with the first word.
    client(handle).die("unwell".to_owned()).await.unwrap();
    let degraded = |state: &PluginState| {
        matches!(state, PluginState::Degraded { why: Degradation::NotServing("NOT_SERVING"), .. })
    };
    state(handle, "degraded", degraded).await;
    let error = who(handle).await.unwrap_err();
    assert_eq!(CallError::of(&error), Some(CallError::NotServing));
    assert!(is_running(pid(&live)));
    plugin.shutdown().await;
}

#[tokio::test]
async fn calls_tell_why_they_were_not_answered() {
    let plugin = supervise(sample());
    let handle = plugin.handle();
    let live = serving(handle).await;
    let mut request = Request::new(());
    request.set_timeout(Duration::from_millis(50));
    let error = client(handle).hang(request).await.unwrap_err();
    assert_eq!((CallError::of(&error), error.code()), (Some(CallError::TimedOut), Code::DeadlineExceeded));
    let mut patient = SampleClient::new(handle.channel().timeout(Duration::from_millis(50)));
    let error = patient.hang(()).await.unwrap_err();
    assert_eq!(CallError::of(&error), Some(CallError::TimedOut));
    // The plugin's own answers stay as they are.
    let error = client(handle).env("NO_SUCH_VARIABLE".to_owned()).await.unwrap_err();
    assert_eq!((CallError::of(&error), error.code()), (None, Code::NotFound));
    let mut hanging = client(handle);
    let hanging = tokio::spawn(async move { hanging.hang(()).await });
    until("the call has arrived", async || client(handle).cancelled(()).await.unwrap().into_inner() == 2)
        .await;
    signal(pid(&live), Signal::KILL);
    let error = hanging.await.unwrap().unwrap_err();
    assert_eq!((CallError::of(&error), error.code()), (Some(CallError::Interrupted), Code::Unavailable));
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_stream_ends_with_its_instance() {
    let plugin = supervise(sample());
    let handle = plugin.handle();
    let live = serving(handle).await;
    let (say, said) = tokio::sync::mpsc::channel(1);
    let said = tokio_stream::wrappers::ReceiverStream::new(said);
    say.send("hello".to_owned()).await.unwrap();
    let mut answers = client(handle).chat(said).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().as_deref(), Some("hello"));
    signal(pid(&live), Signal::KILL);
    let error = answers.message().await.unwrap_err();
    assert_eq!(CallError::of(&error), Some(CallError::Interrupted));
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_plugin_whose_file_is_away_for_a_while_is_not_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let (file, away) = (dir.path().join("plugin"), dir.path().join("away"));
    std::fs::copy(SAMPLE, &file).unwrap();
    let plugin = supervise(launch_of(&file));
    let handle = plugin.handle();
    let first = serving(handle).await;
    std::fs::rename(&file, &away).unwrap();
    signal(pid(&first), Signal::KILL);
    // More often than any other failure is looked at.
    let tried = async || handle.status().borrow().starts > 8;
    until("it is looked for again and again", tried).await;
    assert!(!names(handle).contains(&"gave-up"));
    std::fs::rename(&away, &file).unwrap();
    serving_after(handle, &first).await;
    plugin.shutdown().await;

    let plugin = supervise(launch_of(dir.path().join("never-there")));
    let error = tokio::time::timeout(LIMIT, plugin.ready()).await.expect("nobody waits for it");
    assert!(matches!(error, Err(NotReady::GaveUp { .. })), "{error:?}");
    plugin.shutdown().await;
}

#[tokio::test]
async fn whoever_is_willing_to_wait_is_served_by_the_next_instance() {
    let plugin = Supervisor::launch(sample())
        .policy(RestartPolicy { backoff: Backoff::constant(Duration::from_millis(100)), ..fast() })
        .start();
    let handle = plugin.handle();
    let mut patient = SampleClient::new(handle.channel().wait_for_ready(true));
    assert_eq!(patient.who(()).await.unwrap().into_inner(), "rust 1", "before the first start is complete");
    let live = serving(handle).await;
    signal(pid(&live), Signal::KILL);
    until("it is down", async || handle.channel().instance().is_none()).await;
    assert_eq!(patient.who(()).await.unwrap().into_inner(), "rust 1");
    plugin.shutdown().await;
}

#[tokio::test]
async fn whoever_is_willing_to_wait_does_so_until_the_deadline_and_not_for_what_nobody_starts() {
    let dir = tempfile::tempdir().unwrap();
    let failing = || script(dir.path(), "exit 7");
    let patient =
        |plugin: &Supervised| SampleClient::new(plugin.channel().wait_for_ready(true).timeout(None));
    let why = async |mut patient: SampleClient<PluginChannel>| {
        let answer = tokio::time::timeout(LIMIT, patient.who(())).await.expect("it does not wait for ever");
        CallError::of(&answer.unwrap_err()).expect("nobody has answered")
    };

    let plugin = supervise(failing());
    let error = why(patient(&plugin)).await;
    let reason = GiveUpReason::NeverServed { starts: 5 };
    assert_eq!(error, CallError::Off(Off::GaveUp(reason)), "it was given up during the call");
    assert_eq!(
        error.to_string(),
        "the plugin was given up, as 5 starts in a row have failed; an operator has to start it"
    );
    plugin.shutdown().await;

    let policy = RestartPolicy { backoff: Backoff::constant(Duration::from_secs(3_600)), ..fast() };
    let plugin = Supervisor::launch(failing()).policy(policy).start();
    let (handle, patient) = (plugin.handle().clone(), patient(&plugin));
    state(&handle, "it waits", |state| matches!(state, PluginState::BackingOff { .. })).await;
    let mut request = Request::new(());
    request.set_timeout(Duration::from_millis(50));
    let error = patient.clone().who(request).await.unwrap_err();
    assert_eq!(CallError::of(&error), Some(CallError::TimedOut), "the next start comes by itself");
    handle.stop().await.unwrap();
    assert_eq!(why(patient.clone()).await, CallError::Off(Off::Stopped(StopReason::Operator)));
    handle.disable().await.unwrap();
    assert_eq!(why(patient.clone()).await, CallError::Off(Off::Disabled));
    plugin.shutdown().await;
    assert_eq!(why(patient).await, CallError::Down);
}

#[tokio::test]
async fn a_plugin_that_was_dropped_says_that_it_has_ended() {
    let plugin = supervise(sample());
    let handle = plugin.handle().clone();
    let live = serving(&handle).await;
    let mut channel = handle.channel();
    drop(plugin);
    let ended = |state: &PluginState| matches!(state, PluginState::Stopped(StopReason::Shutdown));
    until("the status says so", async || ended(&handle.status().borrow().state)).await;
    assert_eq!(tokio::time::timeout(LIMIT, channel.instance_changed(Some(1))).await, Ok(None));
    assert_eq!(CallError::of(&who(&handle).await.unwrap_err()), Some(CallError::Down));
    assert!(matches!(handle.stop().await, Err(OrderError::Gone)));
    until("its process has ended", async || !is_running(pid(&live))).await;
}

#[tokio::test]
async fn orders_are_followed_and_may_be_given_twice() {
    let plugin = supervise(sample());
    let handle = &plugin.handle().clone();
    let first = handle.start().await.unwrap().expect("it serves");
    assert_eq!(handle.start().await.unwrap(), Some(first.clone()), "it serves already");
    for _ in 0..2 {
        assert_eq!(handle.stop().await.unwrap(), None);
        assert!(matches!(handle.status().borrow().state, PluginState::Stopped(StopReason::Operator)));
    }
    assert!(!is_running(pid(&first)));
    let second = handle.start().await.unwrap().expect("it serves");
    for _ in 0..2 {
        assert_eq!(handle.disable().await.unwrap(), None);
        assert!(!is_running(pid(&second)));
    }
    for refused in [handle.start().await, handle.restart().await, handle.reload(None).await] {
        assert!(matches!(refused, Err(OrderError::Disabled)), "{refused:?}");
    }
    let third = handle.enable().await.unwrap().expect("it serves");
    assert_eq!(handle.enable().await.unwrap(), Some(third.clone()));
    let fourth = handle.restart().await.unwrap().expect("it serves");
    assert_ne!(third.pid, fourth.pid);
    assert!(!is_running(pid(&third)) && is_running(pid(&fourth)));
    plugin.shutdown().await;
    assert!(matches!(handle.restart().await, Err(OrderError::Gone)));
}

#[tokio::test]
async fn two_operators_who_restart_at_once_get_one_restart() {
    let plugin = supervise(sample());
    let handle = plugin.handle();
    let first = serving(handle).await;
    let (one, other) = tokio::join!(handle.restart(), handle.restart());
    assert_eq!(one.unwrap(), other.unwrap());
    assert_eq!(serving(handle).await.instance, first.instance + 1);
    plugin.shutdown().await;
}

#[tokio::test]
async fn an_order_that_another_one_overtakes_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let plugin = supervise(script(dir.path(), "exec sleep 1000"));
    let handle = plugin.handle();
    let (start, stop) = tokio::join!(handle.start(), handle.stop());
    assert!(matches!(start, Err(OrderError::Superseded)), "{start:?}");
    assert_eq!(stop.unwrap(), None);
    plugin.shutdown().await;
}

/// Calls without a pause, and how many were made and failed.
struct Caller {
    stop: Arc<AtomicBool>,
    made: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<Vec<String>>,
}

impl Caller {
    fn start(handle: &PluginHandle) -> Self {
        let (stop, made) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut client = client(handle);
        let (stopping, counted) = (Arc::clone(&stop), Arc::clone(&made));
        let task = tokio::spawn(async move {
            let mut errors = Vec::new();
            while !stopping.load(Ordering::Relaxed) {
                if let Err(status) = client.who(()).await {
                    errors.push(status.to_string());
                }
                counted.fetch_add(1, Ordering::Relaxed);
            }
            errors
        });
        Self { stop, made, task }
    }

    /// Waits for more calls.
    async fn more(&self, calls: usize) {
        let enough = self.made.load(Ordering::Relaxed) + calls;
        until("more calls were made", async || self.made.load(Ordering::Relaxed) >= enough).await;
    }

    async fn finish(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("it does not panic")
    }
}

#[tokio::test]
async fn swaps_lose_no_call() {
    let plugin = supervise(sample());
    let handle = plugin.handle();
    let mut pids = vec![pid(&serving(handle).await)];
    let caller = Caller::start(handle);
    for _ in 0..5 {
        caller.more(10).await;
        let live = handle.reload(None).await.unwrap().expect("it serves");
        let old = *pids.last().unwrap();
        until("the old one is gone", async || !is_running(old)).await;
        pids.push(pid(&live));
    }
    caller.more(10).await;
    assert_eq!(caller.finish().await, Vec::<String>::new());
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 6);
    assert_eq!(handle.status().borrow().swaps, 5);
    plugin.shutdown().await;
}

/// A stream that its instance keeps open until it is told to end it.
struct OpenStream {
    say: tokio::sync::mpsc::Sender<String>,
    answers: tonic::Streaming<String>,
}

impl OpenStream {
    async fn open(handle: &PluginHandle) -> Self {
        let (say, said) = tokio::sync::mpsc::channel(1);
        let said = tokio_stream::wrappers::ReceiverStream::new(said);
        let mut client = SampleClient::new(handle.channel().timeout(None));
        let answers = client.chat(said).await.expect("it serves").into_inner();
        let mut stream = Self { say, answers };
        stream.assert_open().await;
        stream
    }

    async fn assert_open(&mut self) {
        self.say.send("hello".to_owned()).await.expect("the stream is open");
        let answer = self.answers.message().await.expect("the instance answers");
        assert_eq!(answer.as_deref(), Some("hello"));
    }

    /// Whether it ends in good order.
    async fn end(self) -> bool {
        let Self { say, mut answers } = self;
        drop(say);
        answers.message().await.is_ok_and(|message| message.is_none())
    }
}

/// Much longer than any test waits.
fn patient_swap() -> Swap {
    Swap { drain: Duration::from_secs(3_600), ..quick_swap() }
}

/// A plugin that was swapped, with a stream that is still open to the old instance. If the new one dies, none is started for long.
async fn draining() -> (Supervised, Live, OpenStream, Live) {
    let policy = RestartPolicy { backoff: Backoff::constant(Duration::from_secs(3_600)), ..fast() };
    let plugin = Supervisor::launch(sample()).policy(policy).swap(patient_swap()).start();
    let handle = plugin.handle();
    let old = serving(handle).await;
    let stream = OpenStream::open(handle).await;
    let reload = tokio::time::timeout(LIMIT, handle.reload(None)).await.expect("it is done at the switch");
    let new = reload.expect("it takes over").expect("it serves");
    assert_ne!(old.instance, new.instance);
    (plugin, old, stream, new)
}

#[tokio::test]
async fn a_call_that_is_open_during_a_swap_is_answered_by_the_old_instance() {
    let (plugin, old, mut stream, _) = draining().await;
    let handle = plugin.handle();
    assert_eq!(who(handle).await.unwrap(), "rust 1");
    stream.assert_open().await;
    assert!(is_running(pid(&old)), "it waits for its calls");
    assert!(!names(handle).contains(&"drained"));
    assert!(stream.end().await);
    until("the old one is gone", async || names(handle).contains(&"drained")).await;
    assert!(!is_running(pid(&old)));
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_restart_does_not_wait_for_the_calls_of_an_instance_that_was_swapped_out() {
    let (plugin, old, mut stream, new) = draining().await;
    let handle = plugin.handle();
    let restart = tokio::time::timeout(LIMIT, handle.restart()).await.expect("it does not wait");
    let restarted = restart.unwrap().expect("it serves");
    assert!(restarted.instance > new.instance && !is_running(pid(&new)));
    who(handle).await.unwrap();
    assert!(is_running(pid(&old)));
    stream.assert_open().await;
    // The next swap waits, so that there are never three instances.
    let next = tokio::spawn({
        let handle = handle.clone();
        async move { handle.reload(None).await }
    });
    who(handle).await.unwrap();
    assert!(stream.end().await, "no call was lost");
    let swapped = tokio::time::timeout(LIMIT, next).await.expect("it does not wait any more").unwrap();
    let swapped = swapped.unwrap().expect("it serves");
    assert!(swapped.instance > restarted.instance && !is_running(pid(&old)));
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_stop_ends_an_instance_that_was_swapped_out_whatever_calls_it_has() {
    for disable in [false, true] {
        let (plugin, old, stream, new) = draining().await;
        let handle = plugin.handle();
        let stopped = async { if disable { handle.disable().await } else { handle.stop().await } };
        let stopped = tokio::time::timeout(LIMIT, stopped).await.expect("it does not wait");
        assert_eq!(stopped.unwrap(), None);
        assert!(!is_running(pid(&old)) && !is_running(pid(&new)));
        // The plugin ends its streams when it is told to end, if it gets to it.
        let _in_good_order_or_broken_off = stream.end().await;
        let drained = handle.events().kept().into_iter().map(|event| event.entry.what);
        let broken_off: Vec<_> = drained
            .filter_map(|what| match what {
                EventKind::Drained { open_calls } => Some(open_calls),
                _ => None,
            })
            .collect();
        assert_eq!(broken_off, [1]);
        plugin.shutdown().await;
    }
}

#[tokio::test]
async fn a_stop_between_two_starts_ends_an_instance_that_was_swapped_out() {
    let (plugin, old, _stream, new) = draining().await;
    let handle = plugin.handle();
    signal(pid(&new), Signal::KILL);
    state(handle, "no instance", |state| matches!(state, PluginState::BackingOff { .. })).await;
    assert!(is_running(pid(&old)));
    let stopped = tokio::time::timeout(LIMIT, handle.stop()).await.expect("it does not wait");
    assert_eq!(stopped.unwrap(), None);
    assert!(!is_running(pid(&old)), "nothing is left when the order is done");
    plugin.shutdown().await;
}

#[tokio::test]
async fn the_end_of_the_host_does_not_wait_for_calls() {
    let (plugin, old, _stream, new) = draining().await;
    tokio::time::timeout(LIMIT, plugin.shutdown()).await.expect("it does not wait");
    assert!(!is_running(pid(&old)) && !is_running(pid(&new)));
}

#[tokio::test]
async fn a_reload_is_done_when_calls_go_to_the_new_program_whatever_comes_then() {
    let dir = tempfile::tempdir().unwrap();
    let next = script(dir.path(), &format!("NEXT=yes exec {SAMPLE}"));
    let plugin = Supervisor::launch(sample()).policy(fast()).swap(patient_swap()).start();
    let handle = plugin.handle();
    serving(handle).await;
    let _stream = OpenStream::open(handle).await;
    let mut channel = handle.channel();
    let before = channel.instance();
    let reload = tokio::spawn({
        let (handle, next) = (handle.clone(), next.program().to_path_buf());
        async move { handle.reload(Some(next)).await }
    });
    channel.instance_changed(before).await;
    let stopped = tokio::time::timeout(LIMIT, handle.stop()).await.expect("it does not wait");
    stopped.unwrap();
    reload.await.unwrap().expect("the new program has taken over");
    assert_eq!(handle.status().borrow().source, SourceInfo::Program(next.program().to_path_buf()));
    plugin.shutdown().await;
}

/// Gives `program` to a running plugin, which must refuse it and go on.
async fn refused(handle: &PluginHandle, program: &Path) -> OrderError {
    let before = serving(handle).await;
    let error = handle.reload(Some(program.to_path_buf())).await.expect_err("it is no good");
    let after = serving(handle).await;
    assert_eq!(before, after, "the old instance goes on");
    assert!(is_running(pid(&before)));
    who(handle).await.expect("it is called as before");
    let last = handle.events().kept().pop().expect("there are events");
    assert!(matches!(last.entry.what, EventKind::SwapFailed { .. }));
    error
}

#[tokio::test]
async fn a_swap_that_fails_leaves_the_old_instance_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let named = |name: &str| {
        let dir = dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        dir
    };
    let settle = Duration::from_secs(2);
    let launch = Launch::new(SAMPLE, contract(&[1, 2, 3])).start_timeout(Duration::from_secs(1));
    let plugin = Supervisor::launch(launch).policy(fast()).swap(Swap { settle, ..quick_swap() }).start();
    let handle = plugin.handle();

    // An ELF file for a machine that nobody has: the header of this test with another number.
    let mut elf = std::fs::read(SAMPLE).unwrap();
    elf[18..20].copy_from_slice(&0xfff0_u16.to_le_bytes());
    let other_machine = dir.path().join("other-machine");
    std::fs::write(&other_machine, elf).unwrap();
    let executable = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    std::fs::set_permissions(&other_machine, executable).unwrap();
    let error = refused(handle, &other_machine).await;
    assert!(matches!(error, OrderError::NotStarted(Failure::Start(_))), "{error}");
    let cause = std::error::Error::source(&error).and_then(std::error::Error::source);
    assert!(
        matches!(cause.and_then(|cause| cause.downcast_ref()), Some(LaunchError::Program { .. })),
        "{cause:?}"
    );

    let error = refused(handle, Path::new("/no/such/plugin")).await;
    assert!(error.detail().contains("/no/such/plugin"), "{}", error.detail());

    let older = script(&named("older"), &format!("PLUGIN_PROTOCOL_VERSIONS=1 exec {SAMPLE}"));
    let error = refused(handle, older.program()).await;
    assert!(matches!(error, OrderError::OlderVersion { .. }), "{error}");

    let unknown = script(&named("unknown"), "echo '1|9|unix|/tmp/x|grpc|'; exec sleep 1000");
    let error = refused(handle, unknown.program()).await;
    assert!(error.detail().contains("version 9"), "{}", error.detail());

    let unwell = script(&named("unwell"), &format!("exec {SAMPLE} --not-serving"));
    let error = refused(handle, unwell.program()).await;
    assert!(matches!(error, OrderError::NotStarted(_)), "{error}");

    let short = script(&named("short"), &format!("(sleep 1; kill -9 $$) >/dev/null 2>&1 & exec {SAMPLE}"));
    let error = refused(handle, short.program()).await;
    assert!(matches!(error, OrderError::Ended(_)), "{error}");
    assert!(error.detail().contains("SIGKILL"), "{}", error.detail());
    assert_eq!(handle.status().borrow().swaps, 0);
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_new_program_that_is_good_is_what_is_started_from_then_on() {
    let dir = tempfile::tempdir().unwrap();
    let next = script(dir.path(), &format!("NEXT=yes exec {SAMPLE}"));
    let plugin = supervise(sample());
    let handle = plugin.handle();
    serving(handle).await;
    let live = handle.reload(Some(next.program().to_path_buf())).await.unwrap().unwrap();
    assert_eq!(client(handle).env("NEXT".to_owned()).await.unwrap().into_inner(), "yes");
    signal(pid(&live), Signal::KILL);
    serving_after(handle, &live).await;
    assert_eq!(client(handle).env("NEXT".to_owned()).await.unwrap().into_inner(), "yes");
    plugin.shutdown().await;
}

#[tokio::test]
async fn the_successor_takes_over_at_once_if_the_old_instance_dies_meanwhile() {
    let plugin = Supervisor::launch(sample())
        .policy(RestartPolicy { backoff: Backoff::constant(Duration::from_secs(3_600)), ..fast() })
        .swap(Swap { settle: Duration::from_secs(3_600), ..quick_swap() })
        .start();
    let handle = plugin.handle();
    let first = serving(handle).await;
    let reload = tokio::spawn({
        let handle = handle.clone();
        async move { handle.reload(None).await }
    });
    until("the new instance settles", async || names(handle).contains(&"swap-settling")).await;
    signal(pid(&first), Signal::KILL);
    let second = reload.await.unwrap().unwrap().expect("it serves");
    assert_eq!(second.instance, first.instance + 1);
    who(handle).await.unwrap();
    plugin.shutdown().await;
}

#[tokio::test]
async fn the_start_of_a_successor_is_the_next_start_if_the_old_instance_dies_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let go = dir.path().join("go");
    let slow = script(
        dir.path(),
        &format!("until [ -e '{}' ]; do sleep 0.01; done; NEXT=yes exec {SAMPLE}", go.display()),
    );
    let plugin = Supervisor::launch(sample())
        .policy(RestartPolicy { backoff: Backoff::constant(Duration::from_secs(3_600)), ..fast() })
        .swap(Swap { settle: Duration::from_secs(3_600), ..quick_swap() })
        .start();
    let handle = plugin.handle();
    let first = serving(handle).await;
    let reload = tokio::spawn({
        let (handle, program) = (handle.clone(), slow.program().to_path_buf());
        async move { handle.reload(Some(program)).await }
    });
    until("the new instance starts", async || names(handle).contains(&"swap-started")).await;
    signal(pid(&first), Signal::KILL);
    until("the old instance has ended", async || names(handle).contains(&"ended")).await;
    std::fs::write(go, "").unwrap();
    let reloaded = tokio::time::timeout(LIMIT, reload).await.expect("it takes over");
    let second = reloaded.unwrap().unwrap().expect("it serves");
    assert_eq!(second.instance, first.instance + 1);
    assert_eq!(client(handle).env("NEXT".to_owned()).await.unwrap().into_inner(), "yes");
    plugin.shutdown().await;
}

#[tokio::test]
async fn the_end_of_an_old_instance_is_told_as_its_own() {
    let plugin = supervise(sample());
    let handle = plugin.handle();
    let old = serving(handle).await;
    handle.reload(None).await.unwrap();
    until("the old instance has ended", async || names(handle).contains(&"drained")).await;
    let events = handle.events().kept();
    let drained = events.iter().find(|event| event.entry.what.name() == "drained").unwrap();
    assert_eq!(drained.entry.instance, Some(old.instance));
    plugin.shutdown().await;
}

#[tokio::test]
async fn what_the_old_instance_knows_can_be_handed_over() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let plugin = Supervisor::launch(sample())
        .policy(fast())
        .swap(quick_swap())
        .warm_up(move |old, new| {
            let tell = tell.clone();
            async move {
                for channel in [old, new] {
                    let _ = tell.send(SampleClient::new(channel).who(()).await?.into_inner());
                }
                Err(Status::unknown("that was all"))
            }
        })
        .start();
    let handle = plugin.handle();
    serving(handle).await;
    handle.reload(None).await.unwrap();
    assert_eq!(
        (told.recv().await.as_deref(), told.recv().await.as_deref()),
        (Some("rust 1"), Some("rust 1"))
    );
    assert!(names(handle).contains(&"warm-up-failed"), "which is no reason not to swap");
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_lazy_plugin_is_started_once_by_the_calls_that_need_it_and_ends_when_idle() {
    const CALLS: usize = 100;
    let plugin =
        Supervisor::launch(sample()).policy(fast()).lazy(true).idle_after(Duration::from_millis(200)).start();
    let handle = plugin.handle();
    assert!(matches!(handle.status().borrow().state, PluginState::Stopped(StopReason::NotNeeded)));
    for round in 1..=2 {
        let calls: Vec<_> = (0..CALLS)
            .map(|_| {
                let mut client = client(handle);
                tokio::spawn(async move { client.who(()).await.map(tonic::Response::into_inner) })
            })
            .collect();
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap(), "rust 1", "the first call is served, not failed");
        }
        assert_eq!(handle.status().borrow().starts, round);
        let idle = |state: &PluginState| matches!(state, PluginState::Stopped(StopReason::Idle));
        state(handle, "idle", idle).await;
    }
    plugin.shutdown().await;
}

#[tokio::test]
async fn an_open_call_is_a_reason_to_stay() {
    let plugin = Supervisor::launch(sample()).policy(fast()).idle_after(Duration::from_millis(50)).start();
    let handle = plugin.handle();
    serving(handle).await;
    let mut request = Request::new(());
    request.set_timeout(Duration::from_millis(400));
    assert!(client(handle).hang(request).await.is_err());
    assert!(!names(handle).contains(&"stopping"));
    let idle = |state: &PluginState| matches!(state, PluginState::Stopped(StopReason::Idle));
    state(handle, "idle", idle).await;
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_new_file_takes_over_and_mends_what_was_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let launch = script(dir.path(), "exit 1");
    // Checks that come more often than looks at the file do not keep it from being looked at.
    let probe = Probe { interval: Duration::from_millis(50), ..Probe::default() };
    let supervisor = Supervisor::launch(launch).policy(fast()).swap(quick_swap()).probe(probe);
    let plugin = supervisor.watch_file(true).start();
    let handle = plugin.handle();
    state(handle, "given up", |state| matches!(state, PluginState::GaveUp { .. })).await;
    script(dir.path(), &format!("FILE=2 exec {SAMPLE}"));
    let second = serving(handle).await;
    script(dir.path(), &format!("FILE=3 exec {SAMPLE}"));
    serving_after(handle, &second).await;
    assert_eq!(client(handle).env("FILE".to_owned()).await.unwrap().into_inner(), "3");
    assert_eq!(handle.status().borrow().swaps, 1);
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_service_is_attached_to_again_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("service.sock");
    let start = || {
        let mut command = tokio::process::Command::new(SAMPLE);
        command.arg(format!("--listen=unix:{}", socket.display())).kill_on_drop(true);
        command.spawn().unwrap()
    };
    let attach = Attach::to(format!("unix:{}", socket.display()).parse().unwrap(), contract(&[3]));
    let plugin = Supervisor::attach(attach).policy(fast()).start();
    let handle = plugin.handle();
    let patient = |state: &PluginState| matches!(state, PluginState::BackingOff { attempt: 7.., .. });
    state(handle, "it is not given up", patient).await;
    let mut service = start();
    let first = serving(handle).await;
    assert_eq!((who(handle).await.unwrap().as_str(), first.pid), ("rust 3", None));
    assert!(matches!(handle.reload(None).await, Err(OrderError::NotOurs)));
    service.kill().await.unwrap();
    let down = |state: &PluginState| state.live().is_none();
    let status = state(handle, "down", down).await;
    assert!(matches!(status.last_failure, Some(Failure::Lost | Failure::Attach(_))), "{status:?}");
    let mut service = start();
    serving_after(handle, &first).await;
    assert_eq!(who(handle).await.unwrap(), "rust 3");
    plugin.shutdown().await;
    assert!(service.try_wait().unwrap().is_none(), "it is left running");
}

/// A service that has nothing of the SDK's: no broker, whose stream would break, and no health service. It ends when the sender is
/// dropped.
fn service_without_the_sdk(
    socket: &Path,
) -> (oneshot::Sender<()>, tokio::task::JoinHandle<Result<(), tonic::transport::Error>>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let incoming = UnixListenerStream::new(UnixListener::bind(socket).expect("nobody has it"));
    let server = Server::builder().add_routes(Routes::default());
    let serving = tokio::spawn(server.serve_with_incoming_shutdown(incoming, async {
        let _either_way = stopped.await;
    }));
    (stop, serving)
}

#[tokio::test]
async fn a_service_that_was_restarted_is_another_instance_though_nobody_has_seen_it_away() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("service.sock");
    let (stop, serving_first) = service_without_the_sdk(&socket);
    let attach = Attach::to(format!("unix:{}", socket.display()).parse().unwrap(), contract(&[3]));
    // The next call is a health check.
    let probe = Probe { interval: Duration::from_millis(20), ..Probe::default() };
    let plugin = Supervisor::attach(attach).policy(fast()).probe(probe).start();
    let first = serving(plugin.handle()).await;
    drop(stop);
    serving_first.await.unwrap().unwrap();
    std::fs::remove_file(&socket).unwrap();
    let _second = service_without_the_sdk(&socket);
    serving_after(plugin.handle(), &first).await;
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_call_for_which_there_is_no_connection_was_not_sent() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("service.sock");
    let (stop, serving_it) = service_without_the_sdk(&socket);
    let attach = Attach::to(format!("unix:{}", socket.display()).parse().unwrap(), contract(&[3]));
    let probe = Probe { interval: Duration::from_secs(3_600), ..Probe::default() };
    let plugin = Supervisor::attach(attach).policy(fast()).probe(probe).start();
    let handle = plugin.handle();
    serving(handle).await;
    drop(stop);
    serving_it.await.unwrap().unwrap();
    std::fs::remove_file(&socket).unwrap();
    let why = async || CallError::of(&who(handle).await.unwrap_err());
    // The first may have been on the old connection.
    until("the connection is gone", async || why().await == Some(CallError::Down)).await;
    for _ in 0..20 {
        assert_eq!(why().await, Some(CallError::Down), "none of them is held against the plugin");
    }
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_crash_leaves_a_report() {
    let dir = tempfile::tempdir().unwrap();
    let plugin = Supervisor::launch(sample().name("crashing"))
        .policy(RestartPolicy { restart: Restart::Never, ..RestartPolicy::default() })
        .crash_dir(dir.path())
        .start();
    let handle = plugin.handle();
    let live = serving(handle).await;
    client(handle).log("last words".to_owned()).await.unwrap();
    let mut hanging = client(handle);
    let hanging = tokio::spawn(async move { hanging.hang(()).await });
    assert!(client(handle).die("abort".to_owned()).await.is_err());
    assert!(hanging.await.unwrap().is_err());
    until("there is a report", async || names(handle).contains(&"crash-file")).await;
    let crashes = handle.crashes().kept();
    let [crash] = &crashes[..] else { panic!("{crashes:?}") };
    assert_eq!((crash.entry.pid, &*crash.entry.plugin), (live.pid, "crashing"));
    assert!(crash.entry.stderr.iter().any(|line| line.contains("last words")), "{:?}", crash.entry.stderr);
    let files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [file] = &files[..] else { panic!("{files:?}") };
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(report["signal"], 6);
    assert_eq!(report["failure"].as_str().unwrap().split(',').next(), Some("exited: signal 6 (SIGABRT)"));
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_crash_right_before_the_end_of_the_host_leaves_its_report_and_the_event() {
    let dir = tempfile::tempdir().unwrap();
    let plugin = Supervisor::launch(sample()).crash_dir(dir.path()).start();
    let handle = plugin.handle().clone();
    let live = serving(&handle).await;
    let mut status = plugin.status();
    signal(pid(&live), Signal::KILL);
    status.wait_for(|status| status.state.live().is_none()).await.unwrap();
    plugin.shutdown().await;
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(names(&handle).iter().filter(|name| **name == "crash-file").count(), 1);
}

#[tokio::test]
async fn what_a_plugin_says_is_kept_across_instances() {
    let plugin = supervise(sample());
    let handle = plugin.handle();
    for round in ["first", "second"] {
        let live = serving(handle).await;
        client(handle).log(format!("log of the {round}")).await.unwrap();
        client(handle).print(format!("print of the {round}")).await.unwrap();
        let said = |text: &str, stream: Option<&str>| {
            let text = format!("{text} of the {round}");
            handle.logs().kept().into_iter().any(|line| {
                line.entry.message == text && line.entry.stream == stream && line.entry.pid == live.pid
            })
        };
        until("both are kept", async || said("log", None) && said("print", Some("stdout"))).await;
        handle.restart().await.unwrap();
    }
    plugin.shutdown().await;
}

#[tokio::test]
async fn dropping_it_kills_and_shutting_down_leaves_nothing_even_in_a_start() {
    let dropped = supervise(sample());
    let live = serving(dropped.handle()).await;
    drop(dropped);
    until("the process is gone", async || !is_running(pid(&live))).await;

    let dir = tempfile::tempdir().unwrap();
    let pid_file = dir.path().join("pid");
    let starting =
        supervise(script(dir.path(), &format!("echo $$ > {}; exec sleep 1000", pid_file.display())));
    let found = || std::fs::read_to_string(&pid_file).ok()?.trim().parse::<u32>().ok();
    until("it is being started", async || found().is_some()).await;
    let begun = Instant::now();
    assert_eq!(starting.shutdown().await, None, "none has served");
    assert!(!is_running(found().unwrap()));
    assert!(begun.elapsed() < Duration::from_secs(10), "a start that is given up is not waited for");
}
