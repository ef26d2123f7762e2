//! Keeps one plugin process alive: starts it, waits for its end, starts it again.
//!
//! ```text
//! Starting ──ok──▶ Serving ──exit──▶ Down ──retry_at──▶ Starting        any ──stop──▶ Stopped
//!     └──failed──▶ Down
//! ```
//!
//! One task owns the process and all of this state; everybody else reads it from a `watch`. The policy is simple:
//! starts are a second apart, so that the first restart after a run comes at once; half a minute if the file would
//! have to be replaced first; and never given up.

use std::{
    mem,
    time::{Instant, SystemTime},
};

use plugin_sdk::{
    host::{Exit, Launch, LaunchError, Plugin},
    one_line,
};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{self, Duration},
};
use tracing::{debug, info, warn};

use super::{Failure, Instance};

/// Least time from one start to the next. Long enough for a plugin that cannot start to cost nothing worth
/// mentioning, short enough that nobody waits for it.
const BETWEEN_STARTS: Duration = Duration::from_secs(1);

/// The same after a failure that no restart can mend: how long somebody who has replaced the file waits at most.
const BETWEEN_HOPELESS_STARTS: Duration = Duration::from_secs(30);

/// Least time between two warnings of the same failure: it could come each second.
const BETWEEN_WARNINGS: Duration = Duration::from_secs(60);

/// Where the plugin is in its life.
#[derive(Clone, Debug)]
pub enum PluginState {
    /// A process is being started; calls bypass the cache.
    Starting {
        /// Counted from 1 over the life of the server.
        attempt: u64,
    },
    /// A process answers.
    Serving {
        /// Its process id.
        pid: Option<u32>,
        /// When it became ready.
        since: SystemTime,
        /// Where to send calls.
        instance: Instance,
    },
    /// No process; calls bypass the cache.
    Down {
        /// When the process ended, or its start failed.
        since: SystemTime,
        /// Why.
        failure: Failure,
        /// When the next start is due.
        retry_at: Instant,
    },
    /// The server is stopping.
    Stopped,
}

/// What the keeper publishes.
#[derive(Clone, Debug)]
pub struct PluginStatus {
    /// Where the plugin is in its life.
    pub state: PluginState,
    /// How often a process has been started again after the first start.
    pub restarts: u64,
    /// Why the last process ended or could not be started.
    pub last_failure: Option<Failure>,
}

impl PluginStatus {
    /// The first attempt to start has not ended yet, either way.
    pub fn is_first_start(&self) -> bool {
        matches!(self.state, PluginState::Starting { attempt: 1 })
    }
}

/// The owner of the task. Dropping it kills the process group of the plugin; [`Keeper::shutdown`] is kinder.
#[derive(Debug)]
pub struct Keeper {
    status: watch::Receiver<PluginStatus>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Keeper {
    /// Starts keeping what log lines call `name`. Returns at once; the process takes its time.
    pub fn start(name: &str, launch: Launch) -> Self {
        let first =
            PluginStatus { state: PluginState::Starting { attempt: 1 }, restarts: 0, last_failure: None };
        let (publish, status) = watch::channel(first);
        let (stop, stopped) = oneshot::channel();
        let task = Task { name: name.to_owned(), launch, publish, warnings: Warnings::default() };
        let task = tokio::spawn(task.run(stopped));
        Self { status, stop: Some(stop), task }
    }

    /// Where the state is published.
    pub fn status(&self) -> watch::Receiver<PluginStatus> {
        self.status.clone()
    }

    /// Stops the process gently and waits for its end, which is bounded.
    pub async fn shutdown(mut self) {
        if let Some(stop) = self.stop.take() {
            // Fails only if the task has ended already.
            let _ = stop.send(());
        }
        let _ = (&mut self.task).await;
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Drops the `Plugin` with the task, which kills its group.
        self.task.abort();
    }
}

struct Task {
    name: String,
    launch: Launch,
    publish: watch::Sender<PluginStatus>,
    warnings: Warnings,
}

impl Task {
    async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let mut attempt = 1;
        loop {
            let started_at = Instant::now();
            // Dropping the start half way kills what it has started.
            let started = tokio::select! {
                biased;
                _ = &mut stop => break,
                started = self.launch.start() => started,
            };
            let failure = match started {
                Ok(plugin) => {
                    self.serving(&plugin);
                    let ended = tokio::select! {
                        biased;
                        _ = &mut stop => None,
                        exit = plugin.exited() => Some(exit),
                    };
                    let Some(exit) = ended else {
                        stop_gently(plugin).await;
                        break;
                    };
                    self.ended(&plugin, &exit)
                }
                Err(error) => self.failed_to_start(&error),
            };
            let retry_at = next_start(started_at, Instant::now(), &failure);
            self.set_state(PluginState::Down { since: SystemTime::now(), failure, retry_at });
            tokio::select! {
                biased;
                _ = &mut stop => break,
                () = time::sleep_until(retry_at.into()) => (),
            }
            attempt += 1;
            self.publish.send_modify(|status| {
                status.state = PluginState::Starting { attempt };
                status.restarts = attempt - 1;
            });
        }
        self.set_state(PluginState::Stopped);
    }

    fn serving(&mut self, plugin: &Plugin) {
        info!(
            plugin = plugin.name(),
            pid = plugin.pid(),
            app_version = plugin.app_version().get(),
            "plugin serving"
        );
        let instance = Instance::new(plugin.channel());
        self.set_state(PluginState::Serving { pid: plugin.pid(), since: SystemTime::now(), instance });
    }

    fn failed_to_start(&mut self, error: &LaunchError) -> Failure {
        let failure = Failure::of_start(error);
        let (plugin, reason) = (&self.name, one_line(error));
        match self.warnings.warn_of(&failure, Instant::now()) {
            None => debug!(plugin, %reason, "plugin failed to start again"),
            Some(_) if failure.is_permanent() => warn!(
                plugin, %reason,
                "plugin cannot start until its file is replaced, serving without cache and trying every 30 s"
            ),
            Some(not_warned_of) => warn!(
                plugin, %reason, not_warned_of,
                "plugin failed to start, serving without cache and trying again"
            ),
        }
        failure
    }

    fn ended(&mut self, plugin: &Plugin, exit: &Exit) -> Failure {
        let failure = Failure::of_run(exit);
        let (plugin, pid, reason) = (&self.name, plugin.pid(), exit);
        match self.warnings.warn_of(&failure, Instant::now()) {
            None => debug!(plugin, pid, %reason, "plugin ended again"),
            Some(not_warned_of) => {
                warn!(plugin, pid, %reason, not_warned_of, "plugin ended, starting it again")
            }
        }
        failure
    }

    fn set_state(&self, state: PluginState) {
        self.publish.send_modify(|status| {
            if let PluginState::Down { failure, .. } = &state {
                status.last_failure = Some(failure.clone());
            }
            status.state = state;
        });
    }
}

async fn stop_gently(plugin: Plugin) {
    let (name, pid) = (plugin.name().to_owned(), plugin.pid());
    let exit = plugin.shutdown().await;
    info!(plugin = name, pid, %exit, "plugin stopped");
}

/// When to start again, for a start at `started_at` that has come to nothing or to an end by `now`.
fn next_start(started_at: Instant, now: Instant, failure: &Failure) -> Instant {
    let pause = if failure.is_permanent() { BETWEEN_HOPELESS_STARTS } else { BETWEEN_STARTS };
    (started_at + pause).max(now)
}

/// Which failures are warned of: each that is another than the one before, and those that go on once a minute; one
/// that is permanent never again, as only a change is news.
#[derive(Default)]
struct Warnings {
    last: Option<(Failure, Instant)>,
    not_warned_of: u64,
}

impl Warnings {
    /// Takes a failure at `now` in. If it is to be warned of: how many were not since the last warning.
    fn warn_of(&mut self, failure: &Failure, now: Instant) -> Option<u64> {
        if let Some((last, at)) = &self.last
            && last == failure
            && (failure.is_permanent() || now.duration_since(*at) < BETWEEN_WARNINGS)
        {
            self.not_warned_of += 1;
            return None;
        }
        self.last = Some((failure.clone(), now));
        Some(mem::take(&mut self.not_warned_of))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use plugin_sdk::{
        LineProblem,
        host::{ExitKind, StderrTail, StopStep},
    };

    fn exit(code: i32) -> Failure {
        let status = ExitKind::Code(code);
        Failure::of_run(&Exit { status, after: StopStep::Nothing, uptime: Duration::ZERO })
    }

    fn hopeless() -> Failure {
        let (line, stderr_tail) = (String::new(), StderrTail::default());
        Failure::of_start(&LaunchError::Handshake { line, problem: LineProblem::NetRpc, stderr_tail })
    }

    #[test]
    fn starts_are_a_second_apart_and_never_in_the_past() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        for (ended, next) in
            [(0, 1000), (10, 1000), (999, 1000), (1000, 1000), (1001, 1001), (3_600_000, 3_600_000)]
        {
            assert_eq!(next_start(start, after(ended), &exit(1)), after(next), "ended after {ended} ms");
        }
        assert_eq!(next_start(start, after(10), &hopeless()), after(30_000));
    }

    #[test]
    fn a_failure_that_goes_on_is_warned_of_once_a_minute() {
        let (mut warnings, start) = (Warnings::default(), Instant::now());
        for (second, failure, expected) in [
            (0, exit(1), Some(0)),
            (1, exit(1), None),
            (59, exit(1), None),
            (60, exit(1), Some(2)),
            (61, exit(2), Some(0)),
            (62, exit(2), None),
            (63, hopeless(), Some(1)),
            (93, hopeless(), None),
            (3600, hopeless(), None),
            (3601, exit(2), Some(2)),
        ] {
            let warned = warnings.warn_of(&failure, start + Duration::from_secs(second));
            assert_eq!(warned, expected, "second {second}");
        }
    }

    /// What the keeper of this shell script publishes when it is first down.
    async fn first_down(script: &str) -> (Keeper, PluginStatus) {
        let launch = Launch::new("/bin/sh", super::super::contract()).args(["-c", script]);
        let keeper = Keeper::start("script", launch);
        let mut status = keeper.status();
        let down = status.wait_for(|status| matches!(status.state, PluginState::Down { .. }));
        let down = time::timeout(Duration::from_secs(10), down).await.unwrap().unwrap().clone();
        (keeper, down)
    }

    #[tokio::test]
    async fn a_program_that_is_no_plugin_leaves_the_cache_down_with_its_cause() {
        let (keeper, down) = first_down("echo password=hunter2 >&2; exit 1").await;
        let shown = down.last_failure.unwrap().to_string();
        assert_eq!(shown, "exited before it was ready: exit status 1");
        // Started again without end.
        let mut status = keeper.status();
        let again = status.wait_for(|status| status.restarts >= 1);
        time::timeout(Duration::from_secs(10), again).await.unwrap().unwrap();
        time::timeout(Duration::from_secs(10), keeper.shutdown()).await.unwrap();
        assert!(matches!(status.borrow().state, PluginState::Stopped));
    }

    #[tokio::test]
    async fn a_plugin_that_no_restart_can_mend_is_started_seldom() {
        let before = Instant::now();
        let (keeper, down) = first_down("echo '1|1|unix|/tmp/x|netrpc|'; exec /bin/sleep 60").await;
        let PluginState::Down { retry_at, failure, .. } = down.state else { panic!("it is down") };
        assert!(failure.is_permanent());
        assert!(retry_at >= before + BETWEEN_HOPELESS_STARTS);
        time::timeout(Duration::from_secs(10), keeper.shutdown()).await.unwrap();
    }
}
