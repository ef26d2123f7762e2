//! The control socket of a host, with real plugins behind it and everything that may come to it.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use plugin_sdk::control::{
    self, EventsRequest, GetCrashRequest, GetRequest, Level, ListCrashesRequest, ListRequest, LogsRequest,
    LogsResponse, OrderRequest, Outcome, Plugin, PluginControlClient, Reason, ReloadRequest,
    SetLogLevelRequest, State, Wait, events_response, failure, logs_response, plugin, set_log_level_request,
};
use plugin_sdk::host::{
    Backoff, ControlError, ControlOptions, ControlServer, Launch, RestartPolicy, Supervised, Supervisor, Swap,
};
use rustix::process::Signal;
use sample_plugin::sample_client::SampleClient;
use support::{LIMIT, SAMPLE, is_running, launch_of, sample, signal, until};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

mod support;

type Client = PluginControlClient<Channel>;

/// A host's plugins and its control socket.
struct Host {
    plugins: Vec<Supervised>,
    server: ControlServer,
    dir: TempDir,
}

impl Host {
    async fn start<const N: usize>(plugins: [Supervised; N]) -> Self {
        Self::start_with(plugins, ControlOptions::default()).await
    }

    async fn start_with<const N: usize>(plugins: [Supervised; N], options: ControlOptions) -> Self {
        let plugins = Vec::from(plugins);
        let dir = tempfile::tempdir().expect("a directory can be made");
        let handles = plugins.iter().map(|plugin| plugin.handle().clone()).collect();
        let server = ControlServer::start_at(dir.path().join("control"), handles, options).await;
        let server = server.expect("it can listen");
        Self { plugins, server, dir }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("control")
    }

    async fn client(&self) -> Client {
        control::connect(&self.socket()).await.expect("it answers")
    }

    async fn stop(self) {
        for plugin in self.plugins {
            plugin.shutdown().await;
        }
        self.server.shutdown().await;
    }
}

/// A plugin that is not started again by itself, and whose swaps do not wait.
fn supervise(launch: Launch) -> Supervised {
    let backoff = Backoff::constant(Duration::from_secs(100_000));
    Supervisor::launch(launch)
        .policy(RestartPolicy { backoff, stable_after: Duration::MAX, ..RestartPolicy::default() })
        .swap(Swap { settle: Duration::ZERO, ..Swap::default() })
        .start()
}

async fn serving(launch: Launch) -> Supervised {
    let plugin = supervise(launch);
    until("the plugin serves", async || plugin.status().borrow().state.live().is_some()).await;
    plugin
}

/// A host with one plugin that serves, and an operator.
async fn one() -> (Host, Client) {
    let host = Host::start([serving(sample()).await]).await;
    let client = host.client().await;
    (host, client)
}

fn order(plugin: &str) -> OrderRequest {
    OrderRequest { plugin: plugin.to_owned(), wait: Wait::Done.into() }
}

fn reload(program: &str) -> ReloadRequest {
    ReloadRequest { program: program.to_owned(), ..ReloadRequest::default() }
}

async fn get(client: &mut Client, plugin: &str) -> Plugin {
    let answer = client.get(GetRequest { plugin: plugin.to_owned() }).await;
    answer.expect("it is there").into_inner().plugin.expect("that is the answer")
}

fn pid(plugin: &Plugin) -> u32 {
    plugin.instance.as_ref().and_then(|instance| instance.pid).expect("it runs")
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, Reason) {
    let status = answer.expect_err("it is refused");
    (status.code(), Reason::of(&status).unwrap_or_default())
}

#[tokio::test]
async fn plugins_are_listed_as_they_are() {
    let broken = supervise(launch_of("/no/such/plugin").name("broken"));
    let host = Host::start([serving(sample().name("good")).await, broken]).await;
    let mut client = host.client().await;
    let list = client.list(ListRequest {}).await.unwrap().into_inner();
    let about = list.host.unwrap();
    assert_eq!(about.pid, std::process::id());
    assert!(about.name.starts_with("control-"), "{}", about.name);
    let [good, _] = list.plugins.as_slice() else { panic!("{:?}", list.plugins) };
    assert_eq!((good.name.as_str(), good.state()), ("good", State::Serving));
    assert_eq!(good.source, Some(plugin::Source::Program(SAMPLE.to_owned())));
    assert!(is_running(pid(good)));
    let instance = good.instance.as_ref().unwrap();
    assert!(instance.resident_bytes > Some(0) && instance.cpu_time.is_some());
    assert_eq!((good.starts, good.restarts, good.last_failure.as_ref()), (1, 0, None));
    until("the other is given up", async || get(&mut client, "broken").await.state() != State::Starting)
        .await;
    let broken = get(&mut client, "broken").await;
    assert!(broken.instance.is_none());
    assert!(broken.last_failure.unwrap().detail.contains("there is no such file"));
    host.stop().await;
}

#[tokio::test]
async fn a_plugin_has_to_be_named_only_where_there_are_several() {
    let (host, mut client) = one().await;
    assert_eq!(get(&mut client, "").await.name, "sample-plugin");
    let status = client.get(GetRequest { plugin: "other".into() }).await.unwrap_err();
    assert_eq!(Reason::metadata(&status, "plugins").as_deref(), Some("sample-plugin"));
    assert_eq!(refused(Err::<(), _>(status)), (Code::NotFound, Reason::NoSuchPlugin));
    host.stop().await;
    let host = Host::start([supervise(sample().name("a")), supervise(sample().name("b"))]).await;
    let mut client = host.client().await;
    let status = client.restart(order("")).await.unwrap_err();
    assert_eq!(Reason::metadata(&status, "plugins").as_deref(), Some("a, b"));
    assert_eq!(refused(Err::<(), _>(status)), (Code::InvalidArgument, Reason::PluginNotNamed));
    host.stop().await;
    let host = Host::start([]).await;
    let answer = host.client().await.get(GetRequest::default()).await;
    assert_eq!(refused(answer), (Code::NotFound, Reason::NoSuchPlugin));
    host.stop().await;
}

#[tokio::test]
async fn orders_do_what_they_say_and_tell_what_was_so_already() {
    let (host, mut client) = one().await;
    let first = pid(&get(&mut client, "").await);
    macro_rules! give {
        ($order:ident) => {{
            let answer = client.$order(order("")).await.unwrap().into_inner();
            (answer.outcome(), answer.plugin.unwrap().state())
        }};
    }
    assert_eq!(give!(start), (Outcome::Unchanged, State::Serving));
    assert_eq!(give!(enable), (Outcome::Unchanged, State::Serving));
    assert_eq!(give!(clear), (Outcome::Unchanged, State::Serving));
    assert_eq!(pid(&get(&mut client, "").await), first);
    assert_eq!(give!(restart), (Outcome::Done, State::Serving));
    assert!(!is_running(first));
    assert_eq!(give!(stop), (Outcome::Done, State::Stopped));
    assert_eq!(give!(stop), (Outcome::Unchanged, State::Stopped));
    assert_eq!(give!(clear), (Outcome::Unchanged, State::Stopped));
    assert_eq!(give!(start), (Outcome::Done, State::Serving));
    assert_eq!(give!(disable), (Outcome::Done, State::Disabled));
    assert_eq!(give!(disable), (Outcome::Unchanged, State::Disabled));
    for answer in [client.restart(order("")).await, client.start(order("")).await] {
        assert_eq!(refused(answer), (Code::FailedPrecondition, Reason::Disabled));
    }
    let answer = client.reload(ReloadRequest::default()).await;
    assert_eq!(refused(answer), (Code::FailedPrecondition, Reason::Disabled));
    assert_eq!(give!(enable), (Outcome::Done, State::Serving));
    host.stop().await;
}

#[tokio::test]
async fn a_plugin_that_was_given_up_is_started_by_clear() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("plugin");
    std::os::unix::fs::symlink("/no/such/plugin", &program).unwrap();
    let policy = RestartPolicy { hopeless_after: 1, ..RestartPolicy::default() };
    let host = Host::start([Supervisor::launch(launch_of(&program)).policy(policy).start()]).await;
    let mut client = host.client().await;
    until("it is given up", async || get(&mut client, "").await.state() == State::GaveUp).await;
    assert!(!get(&mut client, "").await.reason.is_empty());
    assert_eq!(refused(client.clear(order("")).await), (Code::FailedPrecondition, Reason::NotStarted));
    std::fs::remove_file(&program).unwrap();
    std::os::unix::fs::symlink(SAMPLE, &program).unwrap();
    let answer = client.clear(order("")).await.unwrap().into_inner();
    assert_eq!((answer.outcome(), answer.plugin.unwrap().state()), (Outcome::Done, State::Serving));
    host.stop().await;
}

#[tokio::test]
async fn a_reload_that_fails_says_why_and_leaves_the_old_instance() {
    let (host, mut client) = one().await;
    let old = pid(&get(&mut client, "").await);
    for (program, expected) in [
        ("/etc/passwd", (Code::FailedPrecondition, Reason::NotStarted)),
        ("/no/such/plugin", (Code::FailedPrecondition, Reason::NotStarted)),
        ("relative", (Code::InvalidArgument, Reason::BadRequest)),
    ] {
        assert_eq!(refused(client.reload(reload(program)).await), expected, "{program}");
        assert_eq!(pid(&get(&mut client, "").await), old);
    }
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("new");
    std::os::unix::fs::symlink(SAMPLE, &link).unwrap();
    let new = client.reload(reload(link.to_str().unwrap())).await.unwrap().into_inner().plugin.unwrap();
    assert_eq!(new.source, Some(plugin::Source::Program(link.display().to_string())));
    assert_eq!(new.swaps, 1);
    assert_ne!(pid(&new), old);
    host.stop().await;
}

#[tokio::test]
async fn an_order_can_be_given_without_waiting() {
    let (host, mut client) = one().await;
    let old = pid(&get(&mut client, "").await);
    // Its end takes as long as it takes to give it up.
    signal(old, Signal::STOP);
    let request = OrderRequest { wait: Wait::Accepted.into(), ..order("") };
    let answer = client.restart(request).await.unwrap().into_inner();
    assert_eq!(answer.outcome(), Outcome::Accepted);
    until("it is restarted", async || {
        let plugin = get(&mut client, "").await;
        plugin.state() == State::Serving && pid(&plugin) != old
    })
    .await;
    let request = OrderRequest { wait: 7, ..order("") };
    assert_eq!(refused(client.restart(request).await), (Code::InvalidArgument, Reason::BadRequest));
    host.stop().await;
}

#[tokio::test]
async fn an_order_is_not_taken_back_with_its_call() {
    let (host, mut client) = one().await;
    let old = pid(&get(&mut client, "").await);
    signal(old, Signal::STOP);
    let mut request = tonic::Request::new(order(""));
    request.set_timeout(Duration::from_millis(200));
    client.restart(request).await.unwrap_err();
    until("it is restarted", async || {
        let plugin = get(&mut client, "").await;
        plugin.state() == State::Serving && pid(&plugin) != old
    })
    .await;
    host.stop().await;
}

#[tokio::test]
async fn two_operators_who_restart_at_once_get_one_restart() {
    let plugin = serving(sample().shutdown_grace(Duration::from_secs(1))).await;
    let host = Host::start([plugin]).await;
    let (mut first, mut second) = (host.client().await, host.client().await);
    // So that its end takes some time, and neither is done before the other has begun.
    signal(pid(&get(&mut first, "").await), Signal::STOP);
    let (one, other) = tokio::join!(first.restart(order("")), second.restart(order("")));
    let [one, other] = [one, other].map(|answer| answer.unwrap().into_inner().plugin.unwrap());
    assert_eq!(pid(&one), pid(&other));
    assert_eq!(get(&mut first, "").await.starts, 2);
    host.stop().await;
}

#[tokio::test]
async fn reloads_of_two_operators_come_one_after_the_other() {
    let (host, mut first) = one().await;
    let mut second = host.client().await;
    let (one, other) = tokio::join!(first.reload(reload("")), second.reload(reload("")));
    assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
    let plugin = get(&mut first, "").await;
    assert_eq!((plugin.swaps, plugin.starts, plugin.state()), (2, 3, State::Serving));
    host.stop().await;
}

/// What a plugin is made to log at level warn.
async fn log(host: &Host, text: &str) {
    SampleClient::new(host.plugins[0].channel()).log(text.to_owned()).await.expect("it serves");
}

async fn messages(client: &mut Client, request: LogsRequest) -> Vec<String> {
    let mut lines = client.logs(request).await.expect("there are logs").into_inner();
    let mut texts = Vec::new();
    while let Some(answer) = lines.message().await.expect("they end in order") {
        texts.push(text(answer));
    }
    texts
}

fn text(answer: LogsResponse) -> String {
    match answer.item.expect("of a version that is known") {
        logs_response::Item::Line(line) => line.message,
        logs_response::Item::Missed(missed) => format!("missed {missed}"),
    }
}

#[tokio::test]
async fn logs_are_shown_as_far_back_as_is_wanted_and_followed() {
    let (host, mut client) = one().await;
    let ours = || LogsRequest { min_level: Level::Warn.into(), ..LogsRequest::default() };
    log(&host, "one").await;
    log(&host, "two").await;
    until("both are kept", async || messages(&mut client, ours()).await.len() == 2).await;
    let later = SystemTime::now();
    let follow = LogsRequest { tail: Some(1), follow: true, ..ours() };
    let mut lines = client.logs(follow).await.unwrap().into_inner();
    assert_eq!(text(lines.message().await.unwrap().unwrap()), "two");
    log(&host, "three").await;
    let three = lines.message().await.unwrap().unwrap();
    let Some(logs_response::Item::Line(line)) = &three.item else { panic!("{three:?}") };
    assert_eq!(
        (line.level(), line.fields.as_str(), line.stream.as_str()),
        (Level::Warn, r#"{"answer":42}"#, "")
    );
    assert_eq!((line.pid, text(three.clone()).as_str()), (Some(pid(&get(&mut client, "").await)), "three"));
    assert_eq!(messages(&mut client, ours()).await, ["one", "two", "three"]);
    let last = LogsRequest { tail: Some(2), ..ours() };
    assert_eq!(messages(&mut client, last).await, ["two", "three"]);
    let since = LogsRequest { since: Some(later.into()), ..ours() };
    assert_eq!(messages(&mut client, since).await, ["three"]);
    let errors = LogsRequest { min_level: Level::Error.into(), ..ours() };
    assert!(messages(&mut client, errors).await.is_empty());
    let unknown = LogsRequest { min_level: 99, ..ours() };
    assert_eq!(refused(client.logs(unknown).await), (Code::InvalidArgument, Reason::BadRequest));
    host.stop().await;
}

#[tokio::test]
async fn a_follower_that_does_not_read_is_told_what_it_has_missed_and_holds_up_nobody() {
    const LINES: u32 = 4_000;
    let (host, mut client) = one().await;
    let request =
        LogsRequest { follow: true, tail: Some(0), min_level: Level::Warn.into(), ..LogsRequest::default() };
    let mut lines = client.logs(request).await.unwrap().into_inner();
    let filler = "x".repeat(1_000);
    for number in 1..=LINES {
        log(&host, &format!("{filler} {number}")).await;
    }
    assert_eq!(get(&mut host.client().await, "").await.state(), State::Serving);
    let (mut got, mut missed, mut last) = (0, 0, 0);
    while last < LINES {
        match lines.message().await.unwrap().unwrap().item.unwrap() {
            logs_response::Item::Line(line) => {
                got += 1;
                last = line.message.rsplit_once(' ').unwrap().1.parse().unwrap();
            }
            logs_response::Item::Missed(more) => missed += more,
        }
    }
    assert!(missed > 0, "it was quick enough for {got} lines");
    assert_eq!(got + missed, u64::from(LINES));
    host.stop().await;
}

#[tokio::test]
async fn events_of_all_plugins_are_told_with_their_reasons() {
    let host = Host::start([serving(sample().name("a")).await, serving(sample().name("b")).await]).await;
    let mut client = host.client().await;
    let request = EventsRequest { follow: true, tail: Some(0), ..EventsRequest::default() };
    let mut events = client.events(request).await.unwrap().into_inner();
    host.client().await.restart(order("b")).await.unwrap();
    let mut kinds = Vec::new();
    while kinds.last().is_none_or(|kind| kind != "serving") {
        let answer = events.message().await.unwrap().unwrap();
        assert_eq!(answer.plugin, "b");
        let Some(events_response::Item::Event(event)) = answer.item else { panic!("{answer:?}") };
        assert!(!event.text.is_empty() && event.at.is_some());
        kinds.push(event.kind);
    }
    assert_eq!(kinds, ["ordered", "stopping", "starting", "serving"]);
    let mut kept = client.events(EventsRequest::default()).await.unwrap().into_inner();
    let mut all = Vec::new();
    while let Some(answer) = kept.message().await.unwrap() {
        let Some(events_response::Item::Event(event)) = answer.item else { panic!("{answer:?}") };
        all.push((answer.plugin, event));
    }
    let at = |event: &control::Event| SystemTime::try_from(event.at.unwrap()).unwrap();
    assert!(all.windows(2).all(|pair| at(&pair[0].1) <= at(&pair[1].1)));
    assert!(all.iter().any(|(plugin, _)| plugin == "a"));
    let request = EventsRequest { plugin: "a".into(), tail: Some(1), ..EventsRequest::default() };
    let mut last = client.events(request).await.unwrap().into_inner();
    let event = last.message().await.unwrap().unwrap();
    assert!(matches!(event.item, Some(events_response::Item::Event(event)) if event.kind == "serving"));
    assert!(last.message().await.unwrap().is_none());
    host.stop().await;
}

#[tokio::test]
async fn crashes_are_remembered_with_what_was_said_last() {
    let (host, mut client) = one().await;
    let none = client.get_crash(GetCrashRequest::default()).await;
    assert_eq!(refused(none), (Code::NotFound, Reason::NoSuchCrash));
    let dead = pid(&get(&mut client, "").await);
    log(&host, "last words").await;
    SampleClient::new(host.plugins[0].channel()).die("exit 7".to_owned()).await.unwrap_err();
    until("the crash is reported", async || get(&mut client, "").await.crashes == 1).await;
    let crashes = client.list_crashes(ListCrashesRequest::default()).await.unwrap().into_inner().crashes;
    assert_eq!((crashes.len(), crashes[0].stderr.len(), crashes[0].pid), (1, 0, Some(dead)));
    for number in [0, crashes[0].number] {
        let request = GetCrashRequest { number, ..GetCrashRequest::default() };
        let crash = client.get_crash(request).await.unwrap().into_inner().crash.unwrap();
        assert_eq!(crash.failure.unwrap().exit, Some(failure::Exit::Code(7)));
        assert!(crash.stderr.last().unwrap().contains("last words"), "{:?}", crash.stderr);
    }
    let request = GetCrashRequest { number: 99, ..GetCrashRequest::default() };
    assert_eq!(refused(client.get_crash(request).await), (Code::NotFound, Reason::NoSuchCrash));
    host.stop().await;
}

#[tokio::test]
async fn log_levels_are_changed_while_the_host_runs() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let set = {
        let seen = Arc::clone(&seen);
        move |level| {
            seen.lock().unwrap().push(level);
            if level == tracing::Level::TRACE { Err("no") } else { Ok(()) }
        }
    };
    let options = ControlOptions::default().host_log_level(set);
    let host = Host::start_with([serving(sample()).await], options).await;
    let mut client = host.client().await;
    let request = |target, level: Level| SetLogLevelRequest { target, level: level.into() };
    let of_host = || Some(set_log_level_request::Target::Host(()));
    client.set_log_level(request(None, Level::Error)).await.unwrap();
    assert_eq!(get(&mut client, "").await.log_level(), Level::Error);
    assert_eq!(host.plugins[0].handle().log_level(), tracing::Level::ERROR);
    client.set_log_level(request(of_host(), Level::Debug)).await.unwrap();
    let answer = client.set_log_level(request(of_host(), Level::Trace)).await;
    assert_eq!(refused(answer), (Code::Internal, Reason::HostFailed));
    assert_eq!(*seen.lock().unwrap(), [tracing::Level::DEBUG, tracing::Level::TRACE]);
    let answer = client.set_log_level(request(of_host(), Level::Unspecified)).await;
    assert_eq!(refused(answer), (Code::InvalidArgument, Reason::BadRequest));
    host.stop().await;
    let (host, mut client) = one().await;
    let answer = client.set_log_level(request(of_host(), Level::Info)).await;
    assert_eq!(refused(answer), (Code::Unimplemented, Reason::NoHostLevel));
    host.stop().await;
}

#[tokio::test]
async fn those_who_follow_or_wait_are_told_that_the_host_stops() {
    let (host, mut client) = one().await;
    let logs = LogsRequest { follow: true, tail: Some(0), ..LogsRequest::default() };
    let mut lines = client.logs(logs).await.unwrap().into_inner();
    let events = EventsRequest { follow: true, tail: Some(0), ..EventsRequest::default() };
    let mut events = client.events(events).await.unwrap().into_inner();
    let stopped = pid(&get(&mut client, "").await);
    // The order takes two seconds, and is under way when the server ends.
    signal(stopped, Signal::STOP);
    let mut waiting = host.client().await;
    let waiting = tokio::spawn(async move { waiting.restart(order("")).await });
    until("the order is taken", async || get(&mut client, "").await.state() == State::Stopping).await;
    let Host { plugins, server, dir } = host;
    server.shutdown().await;
    let expected = (Code::Unavailable, Reason::HostStopping);
    let end = loop {
        match lines.message().await {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert_eq!(refused(end), expected);
    let end = loop {
        match events.message().await {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert_eq!(refused(end), expected);
    assert_eq!(refused(waiting.await.unwrap()), expected);
    assert!(!dir.path().join("control").exists());
    for plugin in plugins {
        plugin.shutdown().await;
    }
}

#[tokio::test]
async fn followers_are_limited_and_make_room_for_others() {
    let (host, mut client) = one().await;
    let request = || LogsRequest { follow: true, ..LogsRequest::default() };
    let mut followers = Vec::new();
    // More than one connection may have, so that it is the number of followers that counts.
    let mut other = host.client().await;
    for _ in 0..32 {
        followers.push(client.logs(request()).await.unwrap());
        followers.push(other.logs(request()).await.unwrap());
    }
    assert_eq!(refused(client.logs(request()).await), (Code::ResourceExhausted, Reason::TooManyFollowers));
    // Those who do not follow are not concerned.
    client.logs(LogsRequest::default()).await.unwrap();
    followers.clear();
    until("there is room", async || client.logs(request()).await.is_ok()).await;
    host.stop().await;
}

#[tokio::test]
async fn readers_that_do_not_read_are_limited_and_make_room_for_others() {
    let (host, mut client) = one().await;
    let filler = "x".repeat(1_000);
    for _ in 0..1_500 {
        log(&host, &filler).await;
    }
    let mut other = host.client().await;
    let mut readers = Vec::new();
    // The first few are done by themselves, as their connection takes some megabytes before anybody reads.
    let refusal = loop {
        assert!(readers.len() < 64, "there is no limit");
        match other.logs(LogsRequest::default()).await {
            Ok(reader) => readers.push(reader),
            Err(status) => break status,
        }
    };
    assert_eq!(refused(Err::<(), _>(refusal)), (Code::ResourceExhausted, Reason::TooManyFollowers));
    assert_eq!(get(&mut client, "").await.state(), State::Serving);
    readers.clear();
    until("there is room", async || client.logs(LogsRequest::default()).await.is_ok()).await;
    host.stop().await;
}

#[tokio::test]
async fn what_speaks_no_http2_is_sent_away_and_disturbs_nobody() {
    let (host, mut client) = one().await;
    for rubbish in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\0\xff\xfe\r\n", b"PRI * HTTP/1.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = UnixStream::connect(host.socket()).await.unwrap();
        stream.write_all(rubbish).await.unwrap();
        assert_eq!(ended(stream).await, 0);
    }
    // Half of what a client says first, and nothing.
    let mut half = UnixStream::connect(host.socket()).await.unwrap();
    half.write_all(b"PRI * HTT").await.unwrap();
    let nothing = UnixStream::connect(host.socket()).await.unwrap();
    assert_eq!(get(&mut client, "").await.state(), State::Serving);
    assert_eq!(tokio::join!(ended(half), ended(nothing)), (0, 0));
    host.stop().await;
}

/// Waits until the other end closes, and gives how much it has said until then.
async fn ended(mut stream: UnixStream) -> usize {
    let mut said = Vec::new();
    let read = tokio::time::timeout(LIMIT, stream.read_to_end(&mut said)).await.expect("it ends");
    // Unread bytes make it a reset.
    read.map_or(0, |_| said.len())
}

const PREFACE_AND_SETTINGS: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test]
async fn half_a_request_disturbs_neither_others_nor_the_end() {
    let (host, mut client) = one().await;
    let mut stream = UnixStream::connect(host.socket()).await.unwrap();
    stream.write_all(PREFACE_AND_SETTINGS).await.unwrap();
    // The head of a HEADERS frame of 100 bytes, and 3 of them.
    stream.write_all(b"\0\0\x64\x01\x04\0\0\0\x01abc").await.unwrap();
    assert_eq!(get(&mut client, "").await.state(), State::Serving);
    let begun = std::time::Instant::now();
    let socket = host.socket();
    host.stop().await;
    assert!(begun.elapsed() < LIMIT && !socket.exists());
    // It is cut off.
    ended(stream).await;
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused_before_it_is_read() {
    let (host, mut client) = one().await;
    let answer = client.get(GetRequest { plugin: "x".repeat(1 << 20) }).await;
    assert_eq!(answer.unwrap_err().code(), Code::OutOfRange);
    assert_eq!(get(&mut client, "").await.state(), State::Serving);
    // A length of one gigabyte, of which nothing comes.
    let mut stream = UnixStream::connect(host.socket()).await.unwrap();
    stream.write_all(PREFACE_AND_SETTINGS).await.unwrap();
    stream.write_all(b"\xff\xff\xff\x00\0\0\0\0\x01").await.unwrap();
    assert!(ended(stream).await > 0);
    assert_eq!(get(&mut client, "").await.state(), State::Serving);
    host.stop().await;
}

#[tokio::test]
async fn connections_are_limited_and_make_room_for_others() {
    let (host, mut client) = one().await;
    let mut silent = Vec::new();
    for _ in 0..63 {
        let mut stream = UnixStream::connect(host.socket()).await.unwrap();
        stream.write_all(PREFACE_AND_SETTINGS).await.unwrap();
        silent.push(stream);
    }
    let one_more = UnixStream::connect(host.socket()).await.unwrap();
    assert_eq!(ended(one_more).await, 0);
    assert_eq!(get(&mut client, "").await.state(), State::Serving);
    silent.clear();
    until("there is room", async || match control::connect(&host.socket()).await {
        Ok(mut client) => client.list(ListRequest {}).await.is_ok(),
        Err(_) => false,
    })
    .await;
    host.stop().await;
}

#[tokio::test]
async fn the_socket_is_for_its_user_alone_and_goes_with_the_server() {
    let (host, _client) = one().await;
    let socket = host.socket();
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let Host { plugins, server, dir } = host;
    drop(server);
    until("the socket is gone", async || !socket.exists()).await;
    control::connect(&socket).await.unwrap_err();
    // Another can take its place.
    let handles = || plugins.iter().map(|plugin| plugin.handle().clone());
    let server =
        ControlServer::start_at(&socket, handles().collect(), ControlOptions::default()).await.unwrap();
    let taken = ControlServer::start_at(&socket, Vec::new(), ControlOptions::default()).await;
    assert!(matches!(taken, Err(ControlError::Listen(_))), "{taken:?}");
    let twice = handles().chain(handles()).collect();
    let other = dir.path().join("other");
    let twice = ControlServer::start_at(&other, twice, ControlOptions::default()).await;
    assert!(matches!(twice, Err(ControlError::SameName(name)) if name == "sample-plugin"));
    assert!(!other.exists());
    server.shutdown().await;
}

#[tokio::test]
async fn a_host_is_found_by_its_runtime_directory() {
    let plugin = serving(sample()).await;
    let handles = vec![plugin.handle().clone()];
    let server = ControlServer::start(handles, ControlOptions::default().name("mine")).await.unwrap();
    let found = || control::sockets().unwrap().into_iter().find(|host| host.pid == std::process::id());
    let socket = found().unwrap();
    assert_eq!(socket.path, server.path());
    let mut client = control::connect(&socket.path).await.unwrap();
    assert_eq!(client.list(ListRequest {}).await.unwrap().into_inner().host.unwrap().name, "mine");
    plugin.shutdown().await;
    server.shutdown().await;
    assert_eq!(found(), None);
}
