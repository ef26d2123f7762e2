//! Nothing survives the host: hosts in processes of their own are killed, and then nobody and nothing may be left.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use plugin_sdk::ReattachConfig;
use plugin_sdk::host::{Attach, Plugin, StopStep};
use rustix::process::Signal;
use sample_plugin::sample_client::SampleClient;
use support::{BARE, HOST, SAMPLE, contract, is_running, launch_of, pid, script, signal, start, until};

mod support;

/// What is promised: within this time of its host's end a plugin is gone.
const GONE_WITHIN: Duration = Duration::from_secs(2);

/// How many hosts are killed at random moments; more by `SURVIVORS_KILLS=200`.
const KILLS: u64 = 60;

/// The place of hosts that know of each other and of no others: their temporary directory.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::Builder::new().prefix("survivors-").tempdir().expect("there is room"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn host(&self, args: &[&str]) -> Host {
        let mut command = Command::new(HOST);
        command.args(args).env("TMPDIR", self.path()).env("XDG_RUNTIME_DIR", self.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = start_host(&mut command);
        let lines = BufReader::new(child.stdout.take().expect("it has a pipe"));
        Host { child, lines }
    }

    /// Processes of this place: hosts have it in their environment, and pass it on.
    fn processes(&self) -> BTreeSet<u32> {
        let marker = self.path().display().to_string();
        let entries = std::fs::read_dir("/proc").expect("/proc is mounted").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let ours = |pid: &u32| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            String::from_utf8_lossy(&environment).contains(&marker)
        };
        pids.filter(ours).collect()
    }

    /// The directories of hosts.
    fn hosts(&self) -> Vec<PathBuf> {
        entries(&self.path().join("plugin-hosts"))
    }

    /// Waits until no process of this place is left, for as long as is promised.
    #[track_caller]
    fn is_deserted(&self, what: &str) {
        let since = Instant::now();
        while !self.processes().is_empty() {
            assert!(since.elapsed() < GONE_WITHIN, "{what}: {:?} are left", self.processes());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts one more host and waits until nothing is left of those before. Ends it in order: then nothing at all is left.
    async fn is_clean_after_the_next_host(&self) {
        let mut next = self.host(&[BARE]);
        let plugin = next.plugin();
        until("only the next host's directory is left", async || {
            self.hosts().len() == 1 && entries(self.path()).len() == 1
        })
        .await;
        signal(plugin, Signal::KILL);
        next.child.wait().expect("it can be waited for");
        assert_eq!(entries(self.path()), Vec::<PathBuf>::new());
    }
}

/// Whatever is left when a test has failed.
impl Drop for Place {
    fn drop(&mut self) {
        for pid in self.processes() {
            if let Some(pid) = rustix::process::Pid::from_raw(pid.cast_signed()) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
    }
}

struct Host {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Host {
    /// Waits until it is ready, and gives its plugin's process.
    fn plugin(&mut self) -> u32 {
        let mut plugin = None;
        for line in self.lines.by_ref().lines() {
            let line = line.expect("stdout can be read");
            if let Some(pid) = line.strip_prefix("pid=") {
                plugin = pid.parse().ok();
            }
            if line == "ready" {
                return plugin.expect("it has said so before");
            }
        }
        panic!("the host has ended")
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the thread has ended that sweeps at the start.
    fn has_swept(&self) -> bool {
        let threads = entries(&Path::new("/proc").join(self.pid().to_string()).join("task"));
        let name = |thread: &PathBuf| std::fs::read_to_string(thread.join("comm")).unwrap_or_default();
        !threads.iter().any(|thread| name(thread).trim() == "plugin-sweep")
    }

    fn kill(mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it can be waited for");
    }
}

#[expect(clippy::disallowed_methods, reason = "this starts a host, not a plugin")]
fn start_host(command: &mut Command) -> Child {
    command.spawn().expect("the sample host starts")
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// The path of a plugin that is a shell script and never says a word.
fn mute(dir: &Path, text: &str) -> String {
    script(dir, text).program().display().to_string()
}

/// Waits until the host has a child that has become another program: a plugin that says nothing.
async fn with_child(place: &Place, host: &Host, program: &str) -> u32 {
    let mut found = None;
    until("the plugin's process", async || {
        found = place.processes().into_iter().find(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            *pid != host.pid() && line.starts_with(program.as_bytes())
        });
        found.is_some()
    })
    .await;
    found.expect("it was found")
}

#[tokio::test]
async fn a_plugin_that_watches_nothing_ends_with_its_host() {
    let place = Place::new();
    let mut host = place.host(&[BARE, "--stdin=null"]);
    let plugin = host.plugin();
    assert!(is_running(plugin));
    host.kill();
    place.is_deserted("a plugin without the SDK");
    place.is_clean_after_the_next_host().await;
}

#[tokio::test]
async fn a_plugin_in_its_start_ends_with_its_host() {
    let (place, scripts) = (Place::new(), tempfile::tempdir().unwrap());
    let host = place.host(&[&mute(scripts.path(), "exec sleep 1000"), "--stdin=null"]);
    with_child(&place, &host, "sleep").await;
    host.kill();
    place.is_deserted("a plugin that has said nothing yet");
    place.is_clean_after_the_next_host().await;
}

#[tokio::test]
async fn whoever_reads_stdin_to_its_end_ends_with_the_host_without_help_of_the_kernel() {
    let (place, scripts) = (Place::new(), tempfile::tempdir().unwrap());
    let reader = mute(scripts.path(), "exec cat");
    let host = place.host(&[&reader, "--stdin=lifeline", "--not-killed"]);
    with_child(&place, &host, "cat").await;
    host.kill();
    place.is_deserted("a plugin that reads stdin");
}

#[tokio::test]
async fn what_has_survived_all_the_same_is_ended_by_the_next_host() {
    let (place, scripts) = (Place::new(), tempfile::tempdir().unwrap());
    let host = place.host(&[&mute(scripts.path(), "exec sleep 1000"), "--stdin=null", "--not-killed"]);
    let plugin = with_child(&place, &host, "sleep").await;
    let dir = place.hosts();
    host.kill();
    assert!(is_running(plugin), "nobody has killed it, and it watches nothing");
    assert_eq!(place.hosts(), dir);
    place.is_clean_after_the_next_host().await;
    assert!(!is_running(plugin));
}

#[tokio::test]
async fn a_directory_for_a_group_is_outside_and_swept_all_the_same() {
    let place = Place::new();
    let group = format!("--group={}", rustix::process::getgid().as_raw());
    let mut host = place.host(&[BARE, &group]);
    host.plugin();
    let outside: Vec<_> =
        entries(place.path()).into_iter().filter(|dir| !dir.ends_with("plugin-hosts")).collect();
    let [dir] = outside.as_slice() else { panic!("{outside:?}") };
    assert_eq!(dir.metadata().unwrap().mode() & 0o777, 0o770);
    host.kill();
    assert!(dir.exists());
    place.is_clean_after_the_next_host().await;
}

#[tokio::test]
async fn a_host_killed_at_any_moment_leaves_no_plugin_and_the_next_one_no_file() {
    let kills = std::env::var("SURVIVORS_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let (place, scripts) = (Place::new(), tempfile::tempdir().unwrap());
    let asleep = mute(scripts.path(), "exec sleep 1000");
    for kill in 0..kills {
        let plugin = [BARE, SAMPLE, &asleep][(kill % 3) as usize];
        let host = place.host(&[plugin, "--stdin=lifeline"]);
        // From before the host has begun to after the handshake, which takes some 10 ms.
        let moment = Duration::from_micros(RandomState::new().hash_one(kill) % 25_000);
        std::thread::sleep(moment);
        host.kill();
        place.is_deserted(&format!("kill {kill} of {plugin} after {moment:?}"));
    }
    place.is_clean_after_the_next_host().await;
}

#[tokio::test]
async fn hosts_at_once_know_of_each_other_and_leave_each_other_alone() {
    let place = Place::new();
    let mut hosts = [place.host(&[BARE]), place.host(&[BARE])];
    let plugins = hosts.each_mut().map(Host::plugin);
    let mut dirs = place.hosts();
    assert_eq!(dirs.len(), 2);
    for dir in &dirs {
        assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }
    let [first, second] = hosts;
    let (dead, alive) = (first.pid(), second.pid());
    let both = |states: [&str; 2]| {
        let lines =
            [dead, alive].into_iter().zip(states).map(|(pid, state)| format!("{pid} sample-host {state}"));
        lines.collect::<BTreeSet<_>>()
    };
    assert_eq!(listed(&place), both(["alive", "alive"]));
    until("the second host has done its sweep", async || second.has_swept()).await;
    first.kill();
    assert_eq!(place.hosts().len(), 2);
    assert_eq!(listed(&place), both(["dead", "alive"]));

    let mut third = place.host(&[BARE]);
    third.plugin();
    dirs.retain(|dir| dir.display().to_string().contains(&format!("/{alive}.")));
    until("the dead host's directory is gone", async || place.hosts().len() == 2).await;
    assert!(dirs[0].exists() && is_running(plugins[1]));
    second.kill();
    third.kill();
    place.is_deserted("plugins of two hosts");
}

/// What a host says of all in its place. It sees those in `/tmp` as well, which other tests have started.
fn listed(place: &Place) -> BTreeSet<String> {
    let here = format!(" {}", place.path().display());
    let lines = place.host(&["--hosts"]).lines.lines().map(|line| line.expect("stdout can be read"));
    lines.filter_map(|line| Some(line.split_once(&here)?.0.to_owned())).collect()
}

#[tokio::test]
async fn the_thread_that_has_asked_for_the_start_may_end() {
    let starter = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("it starts");
        let plugin = runtime.block_on(async { start(&launch_of(BARE)).await.0 });
        (plugin, std::fs::read_link("/proc/thread-self").expect("/proc is mounted"))
    });
    let (plugin, thread) = starter.join().expect("it does not panic");
    until("the thread has ended", async || !Path::new("/proc").join(&thread).exists()).await;
    // The run time that the plugin's channel needs has ended as well: another connection asks.
    let config = plugin.reattach_config().expect("it can be handed on").clone();
    let attached = Attach::reattach(ReattachConfig { test: true, ..config }, contract(&[1]));
    let attached = attached.connect().await.expect("it is still there");
    let echo = SampleClient::new(attached.channel()).echo(b"you".to_vec()).await;
    assert_eq!(echo.expect("it answers").into_inner(), b"host got you");
    assert!(is_running(pid(&plugin)));
}

/// A plugin, and a process of its own session that it has started before it became what it is.
async fn with_daemon(dir: &Path) -> (Plugin, u32) {
    let up = dir.join("up");
    let daemon =
        format!("setsid sh -c 'echo $$ > {0}.draft; mv {0}.draft {0}; exec sleep 1000' &", up.display());
    let (plugin, _client) = start(&script(dir, &format!("{daemon}\nexec {BARE}"))).await;
    until("the daemon is there", async || up.exists()).await;
    let text = std::fs::read_to_string(&up).expect("it is there");
    let daemon = text.trim().parse().expect("it is a number");
    assert!(is_running(daemon));
    (plugin, daemon)
}

#[tokio::test]
async fn a_stop_ends_what_has_left_the_plugins_process_group() {
    let dir = tempfile::tempdir().unwrap();
    let (plugin, daemon) = with_daemon(dir.path()).await;
    assert_eq!(plugin.shutdown().await.after, StopStep::Terminate);
    assert!(!is_running(daemon), "it is gone when the stop is complete");
}

#[tokio::test]
async fn a_crash_ends_what_has_left_the_plugins_process_group_soon_after() {
    let dir = tempfile::tempdir().unwrap();
    let (plugin, daemon) = with_daemon(dir.path()).await;
    signal(pid(&plugin), Signal::KILL);
    assert_eq!(plugin.exited().await.after, StopStep::Nothing);
    until("the daemon is gone", async || !is_running(daemon)).await;
}
