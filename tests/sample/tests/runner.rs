//! Plugins that are started by other means than as a child of the host, in a name space of their own: neither side can use
//! the other's names for sockets.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use plugin_sdk::host::{
    Attach, AttachError, Checksum, ChecksumError, ExitKind, Launch, LaunchError, Plugin, PluginCommand,
    Runner, Running, Security, Started, StopStep, Supervisor, Waiting,
};
use plugin_sdk::{BrokerError, PluginAddress};
use rustix::process::Signal;
use sample_plugin::Greeter;
use sample_plugin::sample_client::SampleClient;
use sample_plugin::sample_server::SampleServer;
use support::logged::Logged;
use support::{LIMIT, SAMPLE, contract, is_running, launch_of, script, signal, start, until, who};
use tokio::process::Command;
use tokio::sync::{Notify, watch};
use tonic::service::Routes;
use tracing::Level;

mod support;

/// Where the runner's plugins are, in their own name space. This machine has no such file.
const IN_THE_IMAGE: &str = "/image/sample-plugin";

/// What plugins of the runner call the socket directory: a name at their own working directory.
const SOCKETS: &str = "s";

/// Starts each plugin in a working directory of its own, from where the socket directory has another name.
struct Elsewhere {
    program: PathBuf,
    trouble: Trouble,
    root: tempfile::TempDir,
    guests: Mutex<Vec<Arc<Guest>>>,
}

/// What does not work about a runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Nothing,
    RefusesToStart,
    NeverStarts,
    CannotKill,
    CannotTranslateForHost,
    CannotTranslateForPlugin,
    TranslatesToNowhere,
}

struct Guest {
    pid: u32,
    sockets: PathBuf,
    trouble: Trouble,
    kill: Notify,
    kills: AtomicU32,
    exit: watch::Receiver<Option<ExitKind>>,
    /// Addresses that were translated, as they came in.
    translated: Mutex<Vec<String>>,
}

impl Elsewhere {
    fn new(program: impl Into<PathBuf>, trouble: Trouble) -> Arc<Self> {
        let (program, root) = (program.into(), tempfile::tempdir().expect("there is room"));
        Arc::new(Self { program, trouble, root, guests: Mutex::default() })
    }

    fn with_sample() -> Arc<Self> {
        Self::new(SAMPLE, Trouble::Nothing)
    }

    fn launch(self: &Arc<Self>) -> Launch {
        launch_of(IN_THE_IMAGE).runner(Arc::clone(self))
    }

    /// The last that was started.
    fn guest(&self) -> Arc<Guest> {
        Arc::clone(self.guests.lock().expect("nobody has panicked").last().expect("one was started"))
    }
}

#[tonic::async_trait]
impl Runner for Elsewhere {
    async fn start(&self, mut command: PluginCommand) -> io::Result<Started> {
        match self.trouble {
            Trouble::RefusesToStart => return Err(io::Error::other("no such image")),
            Trouble::NeverStarts => std::future::pending().await,
            _ => {}
        }
        assert_eq!(command.program, Path::new(IN_THE_IMAGE));
        assert_eq!(command.env["PLUGIN_UNIX_SOCKET_DIR".as_ref() as &std::ffi::OsStr], command.socket_dir);
        command.set_socket_dir(SOCKETS);
        let home = tempfile::tempdir_in(self.root.path())?.keep();
        std::os::unix::fs::symlink(&command.socket_dir, home.join(SOCKETS))?;
        let mut process = Command::new(&self.program);
        process.args(&command.args).env_clear().envs(&command.env).current_dir(home).kill_on_drop(true);
        let mut process =
            process.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (tell, exit) = watch::channel(None);
        let (stdout, stderr) =
            (process.stdout.take().expect("a pipe"), process.stderr.take().expect("a pipe"));
        let guest = Arc::new(Guest {
            pid: process.id().expect("it was not waited for"),
            sockets: command.socket_dir,
            trouble: self.trouble,
            kill: Notify::new(),
            kills: AtomicU32::new(0),
            exit,
            translated: Mutex::default(),
        });
        self.guests.lock().expect("nobody has panicked").push(Arc::clone(&guest));
        let attended = Arc::clone(&guest);
        tokio::spawn(async move {
            tokio::select! {
                _ = process.wait() => {}
                () = attended.kill.notified() => process.start_kill().expect("it is ours"),
            }
            let status = process.wait().await.expect("it is ours");
            tell.send_replace(Some(status.into()));
        });
        Ok(Started::new(guest, stdout, stderr))
    }
}

#[tonic::async_trait]
impl Running for Guest {
    fn id(&self) -> String {
        format!("guest {}", self.pid)
    }

    async fn wait(&self) -> ExitKind {
        let mut exit = self.exit.clone();
        exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit).unwrap_or(ExitKind::Unknown)
    }

    async fn kill(&self) -> io::Result<()> {
        self.kills.fetch_add(1, Ordering::SeqCst);
        if self.trouble == Trouble::CannotKill {
            return Err(io::Error::other("no connection to the machine"));
        }
        self.kill.notify_one();
        Ok(())
    }

    async fn diagnose(&self) -> String {
        format!("guest {} of\n{IN_THE_IMAGE}", self.pid)
    }

    fn plugin_to_host(&self, address: PluginAddress) -> io::Result<PluginAddress> {
        self.translated.lock().expect("nobody has panicked").push(address.to_string());
        match &address {
            _ if self.trouble == Trouble::CannotTranslateForHost => Err(io::Error::other("what is that?")),
            PluginAddress::Unix(path) => {
                let socket = path.strip_prefix(SOCKETS).map_err(io::Error::other)?;
                Ok(PluginAddress::Unix(self.sockets.join(socket)))
            }
            _ => Ok(address),
        }
    }

    fn host_to_plugin(&self, address: PluginAddress) -> io::Result<PluginAddress> {
        self.translated.lock().expect("nobody has panicked").push(address.to_string());
        match &address {
            _ if self.trouble == Trouble::CannotTranslateForPlugin => Err(io::Error::other("what is that?")),
            PluginAddress::Unix(_) if self.trouble == Trouble::TranslatesToNowhere => {
                Ok(PluginAddress::Unix("nowhere".into()))
            }
            PluginAddress::Unix(path) => {
                let socket = path.strip_prefix(&self.sockets).map_err(io::Error::other)?;
                Ok(PluginAddress::Unix(Path::new(SOCKETS).join(socket)))
            }
            _ => Ok(address),
        }
    }
}

/// Whether both sides can call what the other serves through the broker.
async fn assert_broker_works(plugin: &Plugin) {
    let mut client = SampleClient::new(plugin.channel());
    let broker = plugin.broker();
    let server = broker
        .accept_and_serve(broker.next_id(), Routes::new(SampleServer::new(Greeter)))
        .await
        .expect("there is room");
    assert_eq!(
        client.call_back(server.id()).await.expect("the plugin reaches the host").into_inner(),
        b"host got from plugin"
    );
    let lent = client.lend(()).await.expect("the plugin lends").into_inner();
    let mut borrowed = SampleClient::new(broker.dial(lent).await.expect("the host reaches the plugin"));
    assert_eq!(borrowed.who(()).await.expect("it answers").into_inner(), "rust 1");
}

#[tokio::test]
async fn a_plugin_in_another_name_space_is_started_called_and_stopped() {
    for (security, multiplexing) in [
        (Security::Plain, false),
        (Security::AutoMtls, false),
        (Security::Plain, true),
        (Security::AutoMtls, true),
    ] {
        let runner = Elsewhere::with_sample();
        let way = format!("{security:?}, multiplexing {multiplexing}");
        let launch = runner.launch().security(security).multiplexing(multiplexing);
        let (plugin, _) = start(&launch).await;
        let guest = runner.guest();
        assert_eq!(who(&plugin).await, "rust 1", "{way}");
        assert_eq!((plugin.pid(), plugin.id()), (None, Some(format!("guest {}", guest.pid))), "{way}");
        let socket = support::socket(&plugin);
        assert_eq!(socket.parent(), Some(&*guest.sockets), "{way}");

        assert_broker_works(&plugin).await;
        let translated = guest.translated.lock().unwrap().clone();
        let of_plugin = translated.iter().filter(|address| address.starts_with("s/plugin")).count();
        let of_host =
            translated.iter().filter(|address| Path::new(address).starts_with(&guest.sockets)).count();
        // The announced one, and without multiplexing one for each side's brokered server.
        let expected = if multiplexing { (1, 0) } else { (2, 1) };
        assert_eq!((of_plugin, of_host), expected, "{way}: {translated:?}");

        let exit = plugin.shutdown().await;
        assert_eq!((exit.status, exit.after), (ExitKind::Code(0), StopStep::Shutdown), "{way}");
        assert!(!is_running(guest.pid) && !guest.sockets.exists(), "{way}");
        assert_eq!(guest.kills.load(Ordering::SeqCst), 0, "{way}");
    }
}

#[tokio::test]
async fn tcp_addresses_come_to_the_runner_as_well() {
    let runner = Elsewhere::with_sample();
    let (plugin, _) = start(&runner.launch().arg("--tcp")).await;
    assert_broker_works(&plugin).await;
    let translated = runner.guest().translated.lock().unwrap().clone();
    assert_eq!(translated[0], plugin.address().to_string());
    plugin.shutdown().await;
}

#[tokio::test]
async fn what_a_plugin_of_a_runner_writes_reaches_the_host() {
    let logged = Logged::begin();
    let copied = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&copied);
    let launch = Elsewhere::with_sample()
        .launch()
        .stderr_copy(move |bytes| sink.lock().unwrap().extend_from_slice(bytes));
    let (plugin, mut client) = start(&launch).await;
    client.print("printed".to_owned()).await.unwrap();
    client.log("logged".to_owned()).await.unwrap();
    logged.line(|line| line.field("stream") == "stdout" && line.message() == "printed").await;
    let line = logged.line(|line| line.message() == "logged").await;
    assert_eq!((line.level, line.field("plugin")), (Level::WARN, "sample-plugin"));
    plugin.shutdown().await;
    assert!(String::from_utf8_lossy(&copied.lock().unwrap()).contains("logged"));
}

#[tokio::test]
async fn the_end_of_a_plugin_is_learnt_from_its_runner() {
    let runner = Elsewhere::with_sample();
    let (plugin, mut client) = start(&runner.launch()).await;
    assert!(client.die("exit 7".to_owned()).await.is_err());
    let exit = plugin.exited().await;
    assert_eq!((exit.status, exit.after), (ExitKind::Code(7), StopStep::Nothing));
    assert!(plugin.health().await.is_err());
    assert_eq!(plugin.shutdown().await.status, ExitKind::Code(7));
    assert_eq!(runner.guest().kills.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_plugin_that_does_not_follow_is_killed_by_its_runner() {
    let runner = Elsewhere::with_sample();
    let (plugin, _) = start(&runner.launch().shutdown_grace(Duration::from_millis(100))).await;
    let guest = runner.guest();
    signal(guest.pid, Signal::STOP);
    let exit = plugin.shutdown().await;
    let killed = ExitKind::Signal { number: 9, core_dumped: false };
    assert_eq!((exit.status, exit.after), (killed, StopStep::Kill));
    assert!(!is_running(guest.pid) && !guest.sockets.exists());
    assert_eq!(guest.kills.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_runner_that_cannot_kill_is_given_up() {
    let logged = Logged::begin();
    let runner = Elsewhere::new(SAMPLE, Trouble::CannotKill);
    let (plugin, _) = start(&runner.launch().shutdown_grace(Duration::from_millis(100))).await;
    let guest = runner.guest();
    signal(guest.pid, Signal::STOP);
    let begun = Instant::now();
    let exit = plugin.shutdown().await;
    assert_eq!((exit.status, exit.after), (ExitKind::Unreaped, StopStep::Kill));
    assert!(begun.elapsed() >= Duration::from_secs(5) && begun.elapsed() < LIMIT);
    assert!(!guest.sockets.exists());
    logged.line(|line| line.level == Level::WARN && line.field("error").contains("no connection")).await;
    signal(guest.pid, Signal::KILL);
}

#[tokio::test]
async fn dropping_any_step_has_the_runner_kill_it() {
    let runner = Elsewhere::with_sample();
    for step in ["spawned", "announced", "connected"] {
        let spawned = runner.launch().spawn().await.unwrap();
        assert_eq!(spawned.pid(), None);
        let guest = runner.guest();
        match step {
            "spawned" => drop(spawned),
            "announced" => drop(spawned.handshake().await.unwrap()),
            _ => drop(spawned.handshake().await.unwrap().connect().await.unwrap()),
        }
        until("nothing is left", async || !is_running(guest.pid) && !guest.sockets.exists()).await;
        assert_eq!(
            (guest.kills.load(Ordering::SeqCst), guest.wait().await),
            (1, ExitKind::Signal { number: 9, core_dumped: false }),
            "{step}"
        );
    }
}

#[tokio::test]
async fn the_runners_diagnosis_is_a_part_of_the_error() {
    let dir = tempfile::tempdir().unwrap();
    for (text, cause) in [
        ("echo hello; exec sleep 60", "cannot be used"),
        ("echo no licence >&2; exit 3", "exit status 3"),
        ("exec >&-; exec sleep 60", "closed its stdout"),
    ] {
        let program = script(dir.path(), text).program().to_path_buf();
        let runner = Elsewhere::new(program, Trouble::Nothing);
        let error = runner.launch().start().await.unwrap_err().to_string();
        let guest = runner.guest();
        let diagnosis = format!(r#"; its runner says "guest {} of\n{IN_THE_IMAGE}""#, guest.pid);
        assert!(error.contains(cause) && error.ends_with(&diagnosis), "{error}");
        assert!(!is_running(guest.pid) && !guest.sockets.exists());
    }
}

#[tokio::test]
async fn a_runner_that_does_not_start_is_an_error_in_time() {
    let refused = Elsewhere::new(SAMPLE, Trouble::RefusesToStart).launch().start().await.unwrap_err();
    let LaunchError::Spawn { program, source } = &refused else { panic!("{refused:?}") };
    assert_eq!((program.as_path(), source.to_string().as_str()), (Path::new(IN_THE_IMAGE), "no such image"));

    let launch = Elsewhere::new(SAMPLE, Trouble::NeverStarts).launch();
    let late = launch.start_timeout(Duration::from_millis(100)).start().await.unwrap_err();
    assert!(matches!(late, LaunchError::TimedOut { waiting_for: Waiting::Runner, .. }), "{late:?}");
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_runner_that_does_not_start() {
    let launch = Elsewhere::new(SAMPLE, Trouble::NeverStarts).launch();
    let plugin = Supervisor::launch(launch.start_timeout(Duration::from_secs(3_600))).start();
    let handle = plugin.handle().clone();
    until("it is being started", async || !handle.events().is_empty()).await;
    let stopped = tokio::time::timeout(LIMIT, handle.stop()).await.expect("it stops in time");
    assert_eq!(stopped.unwrap(), None);
    plugin.shutdown().await;
}

#[tokio::test]
async fn what_a_runner_starts_cannot_be_pinned() {
    let launch = Elsewhere::with_sample().launch().checksum(Checksum::sha256([0; 32]));
    let error = launch.start().await.unwrap_err();
    assert!(matches!(error, LaunchError::Checksum { source: ChecksumError::Runner, .. }), "{error:?}");
    assert!(error.is_permanent());
}

#[tokio::test]
async fn addresses_are_used_as_the_runner_translates_them() {
    let runner = Elsewhere::new(SAMPLE, Trouble::CannotTranslateForHost);
    let error = runner.launch().start().await.unwrap_err();
    let LaunchError::Connect { address, source, .. } = error else { panic!("{error:?}") };
    assert!(address.to_string().starts_with("s/plugin"), "{address}");
    assert!(matches!(source, BrokerError::Translation { .. }), "{source:?}");

    let greeter = || Routes::new(SampleServer::new(Greeter));
    let (plugin, _) = start(&Elsewhere::new(SAMPLE, Trouble::CannotTranslateForPlugin).launch()).await;
    let refused = plugin.broker().accept_and_serve(1, greeter()).await;
    assert!(matches!(refused, Err(BrokerError::Translation { .. })), "{refused:?}");
    plugin.shutdown().await;

    let (plugin, mut client) = start(&Elsewhere::new(SAMPLE, Trouble::TranslatesToNowhere).launch()).await;
    let _server = plugin.broker().accept_and_serve(1, greeter()).await.unwrap();
    assert!(client.call_back(1).await.is_err(), "the plugin was told another address");
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_plugin_of_a_runner_is_handed_over_without_a_process_id() {
    let runner = Elsewhere::with_sample();
    let (first, _) = start(&runner.launch()).await;
    let guest = runner.guest();
    let config = first.reattach_config().unwrap().clone();
    assert_eq!((config.pid, config.test, &config.address), (None, false, first.address()));
    let found = Arc::clone(&guest);
    let attach = Attach::reattach(config, contract(&[1]))
        .runner(move || Ok(Arc::clone(&found)))
        .socket_dir(&guest.sockets);

    let second = attach.connect().await.unwrap();
    assert_eq!((second.pid(), second.id()), (None, first.id()));
    assert_broker_works(&second).await;
    drop(second);
    assert_eq!(who(&first).await, "rust 1", "a host that only leaves does not end it");

    let found = Arc::clone(&guest);
    let service = Attach::to(first.address().clone(), contract(&[1])).socket_dir(&guest.sockets);
    let service = service.runner(move || Ok(Arc::clone(&found))).connect().await.unwrap();
    assert_broker_works(&service).await;
    assert_eq!(service.shutdown().await.status, ExitKind::LeftRunning);

    let third = attach.connect().await.unwrap();
    let exit = third.shutdown().await;
    assert_eq!((exit.status, exit.after), (ExitKind::Code(0), StopStep::Shutdown));
    assert_eq!(first.exited().await.status, ExitKind::Code(0));
    assert_eq!(guest.kills.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_host_that_attached_by_function_has_a_stopped_plugin_killed() {
    let runner = Elsewhere::with_sample();
    let (first, _) = start(&runner.launch()).await;
    let (guest, config) = (runner.guest(), first.reattach_config().unwrap().clone());
    let found = Arc::clone(&guest);
    let attach = Attach::reattach(config.clone(), contract(&[1])).runner(move || Ok(Arc::clone(&found)));
    let second = attach.connect().await.unwrap();
    signal(guest.pid, Signal::STOP);
    assert_eq!(second.shutdown().await.after, StopStep::Kill);
    assert_eq!(guest.kills.load(Ordering::SeqCst), 1);
    first.exited().await;

    let lost = || Err::<Arc<Guest>, _>(io::Error::from(io::ErrorKind::NotFound));
    let lost = Attach::reattach(config, contract(&[1])).runner(lost).connect().await;
    assert!(matches!(lost, Err(AttachError::Runner(_))), "{lost:?}");
}
