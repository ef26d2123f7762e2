//! Keeps one plugin process alive: starts it, waits for its end, starts it again.
//!
//! ```text
//! Starting ──ok──▶ Serving ──exit──▶ Down ──retry_at──▶ Starting        any ──stop──▶ Stopped
//!     └──failed──▶ Down
//! ```
//!
//! One task owns the process and all of this state; everybody else reads it from a `watch`. The policy is simple:
//! starts are a second apart, so that the first restart after a run comes at once, and never given up.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use plugin_sdk::{
    host::{Exit, Launch, Plugin},
    one_line,
};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{self, Duration},
};
use tracing::{debug, info, warn};

use super::Instance;

/// Least time from one start to the next. Long enough for a plugin that cannot start to cost nothing worth
/// mentioning, short enough that nobody waits for it.
const BETWEEN_STARTS: Duration = Duration::from_secs(1);

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
        /// Why, in one line.
        reason: Arc<str>,
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
    /// Why the last process ended or could not be started, in one line.
    pub last_error: Option<Arc<str>>,
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
            PluginStatus { state: PluginState::Starting { attempt: 1 }, restarts: 0, last_error: None };
        let (publish, status) = watch::channel(first);
        let (stop, stopped) = oneshot::channel();
        let task =
            tokio::spawn(Task { name: name.to_owned(), launch, publish, last_warning: None }.run(stopped));
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
    last_warning: Option<Arc<str>>,
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
            let reason = match started {
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
                    ended_by_itself(&plugin, &exit)
                }
                Err(error) => self.failed_to_start(one_line(&error).to_string().into()),
            };
            let retry_at = next_start(started_at, Instant::now());
            self.set_state(PluginState::Down { since: SystemTime::now(), reason: reason.clone(), retry_at });
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
        self.last_warning = None;
        let instance = Instance::new(plugin.channel());
        self.set_state(PluginState::Serving { pid: plugin.pid(), since: SystemTime::now(), instance });
    }

    /// Warns once of each cause: one that stays the same would fill the log with a line a second.
    fn failed_to_start(&mut self, reason: Arc<str>) -> Arc<str> {
        if self.last_warning.as_ref() == Some(&reason) {
            debug!(plugin = self.name, %reason, "plugin failed to start again");
        } else {
            warn!(plugin = self.name, %reason, "plugin failed to start, serving without cache and trying again");
            self.last_warning = Some(reason.clone());
        }
        reason
    }

    fn set_state(&self, state: PluginState) {
        self.publish.send_modify(|status| {
            if let PluginState::Down { reason, .. } = &state {
                status.last_error = Some(reason.clone());
            }
            status.state = state;
        });
    }
}

fn ended_by_itself(plugin: &Plugin, exit: &Exit) -> Arc<str> {
    warn!(plugin = plugin.name(), pid = plugin.pid(), reason = %exit, "plugin ended, starting it again");
    exit.to_string().into()
}

async fn stop_gently(plugin: Plugin) {
    let (name, pid) = (plugin.name().to_owned(), plugin.pid());
    let exit = plugin.shutdown().await;
    info!(plugin = name, pid, %exit, "plugin stopped");
}

/// When to start again, for a start at `started_at` that has come to nothing or to an end by `now`.
fn next_start(started_at: Instant, now: Instant) -> Instant {
    (started_at + BETWEEN_STARTS).max(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_a_second_apart_and_never_in_the_past() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        for (ended, next) in
            [(0, 1000), (10, 1000), (999, 1000), (1000, 1000), (1001, 1001), (3_600_000, 3_600_000)]
        {
            assert_eq!(next_start(start, after(ended)), after(next), "ended after {ended} ms");
        }
    }

    #[tokio::test]
    async fn a_program_that_is_no_plugin_leaves_the_cache_down_with_its_cause() {
        let keeper = Keeper::start("false", Launch::new("/bin/false", super::super::contract()));
        let mut status = keeper.status();
        let down = status.wait_for(|status| matches!(status.state, PluginState::Down { .. }));
        let down = time::timeout(Duration::from_secs(10), down).await.unwrap().unwrap().clone();
        assert!(down.last_error.unwrap().contains("exit status 1"));
        // Started again without end.
        let again = status.wait_for(|status| status.restarts >= 1);
        time::timeout(Duration::from_secs(10), again).await.unwrap().unwrap();
        time::timeout(Duration::from_secs(10), keeper.shutdown()).await.unwrap();
        assert!(matches!(status.borrow().state, PluginState::Stopped));
    }
}
