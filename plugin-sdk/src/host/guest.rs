//! A plugin that is run by the application's own means, from its start to its end.
//!
//! A task waits for the end, and is the only one that kills, so that an application's [`Running`] is never asked for both
//! at once, and a handle that is dropped need not wait.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::launch::REAP_LIMIT;
use super::runner::Running;
use super::{Exit, ExitKind, StopStep};
use crate::PluginAddress;
use crate::transport::{Translate, Translation};

/// How long an explanation of a failed start is waited for.
const DIAGNOSE_LIMIT: Duration = Duration::from_secs(2);

/// Characters that are kept of it.
const DIAGNOSIS_CHARACTERS: usize = 2000;

/// Handle of a running or ended plugin of a runner.
pub(super) struct Guest {
    running: Arc<dyn Running>,
    since: Instant,
    /// How far the host goes to end it. The task acts on `Kill`, and on the end of this sender.
    step: watch::Sender<StopStep>,
    exit: watch::Receiver<Option<Exit>>,
}

/// What becomes of the plugin when its handle is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Abandoned {
    /// It is killed.
    Killed,
    /// It runs on.
    Left,
}

impl Guest {
    /// One that this host's runner has started. Dropping the handle kills it. `kept` is dropped when it has ended.
    pub(super) fn launched(running: Arc<dyn Running>, kept: impl Send + 'static) -> Self {
        Self::attend(running, Abandoned::Killed, kept)
    }

    /// One that was running before. Dropping the handle leaves it running.
    pub(super) fn attached(running: Arc<dyn Running>) -> Self {
        Self::attend(running, Abandoned::Left, ())
    }

    fn attend(running: Arc<dyn Running>, abandoned: Abandoned, kept: impl Send + 'static) -> Self {
        let (step, ordered) = watch::channel(StopStep::Nothing);
        let (publish, exit) = watch::channel(None);
        let (since, attended) = (Instant::now(), Arc::clone(&running));
        tokio::spawn(async move {
            let Some((status, after)) = await_end(&*attended, ordered, abandoned).await else { return };
            // Before anybody hears of the end, as with a child.
            drop(kept);
            publish.send_replace(Some(Exit { status, after, uptime: since.elapsed() }));
        });
        Self { running, since, step, exit }
    }

    pub(super) fn id(&self) -> String {
        self.running.id()
    }

    /// Waits for the end. May be called any number of times.
    pub(super) async fn exited(&self) -> Exit {
        let mut exit = self.exit.clone();
        let seen = exit.wait_for(Option::is_some).await.ok().and_then(|exit| exit.clone());
        // Without a result the runner has panicked, and nobody knows.
        let after = *self.step.borrow();
        seen.unwrap_or_else(|| Exit { status: ExitKind::Unknown, after, uptime: self.since.elapsed() })
    }

    /// The exit, once it has happened.
    pub(super) fn exit(&self) -> watch::Receiver<Option<Exit>> {
        self.exit.clone()
    }

    /// Notes that the plugin was asked to end.
    pub(super) fn note_shutdown_asked(&self) {
        self.advance(StopStep::Shutdown);
    }

    /// Has it killed. [`exited`](Self::exited) then returns within [`REAP_LIMIT`].
    pub(super) fn kill(&self) {
        self.advance(StopStep::Kill);
    }

    fn advance(&self, to: StopStep) {
        self.step.send_modify(|step| *step = to.max(*step));
    }

    /// What the runner has to say of a start that failed.
    pub(super) async fn diagnose(&self) -> Option<String> {
        let said = tokio::time::timeout(DIAGNOSE_LIMIT, self.running.diagnose()).await.unwrap_or_default();
        let said: String = said.trim().chars().take(DIAGNOSIS_CHARACTERS).collect();
        (!said.is_empty()).then_some(said)
    }

    /// How addresses are translated between this host and the plugin.
    pub(super) fn translation(&self) -> Translation {
        translation_by(Arc::clone(&self.running))
    }
}

/// Without what the application has made of it.
impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").field("id", &self.id()).field("exit", &self.exit).finish_non_exhaustive()
    }
}

/// How the plugin ended, and what was done to it before. `None` if it was left.
async fn await_end(
    running: &dyn Running,
    mut ordered: watch::Receiver<StopStep>,
    abandoned: Abandoned,
) -> Option<(ExitKind, StopStep)> {
    let order = async { ordered.wait_for(|step| *step == StopStep::Kill).await.is_ok() };
    let status = tokio::select! {
        // First, so that one that has ended is not killed.
        biased;
        status = running.wait() => Some(status),
        ordered = order => match abandoned {
            Abandoned::Left if !ordered => return None,
            _ => None,
        },
    };
    if let Some(status) = status {
        let after = *ordered.borrow();
        return Some((status, after));
    }
    let killed = tokio::time::timeout(REAP_LIMIT, async {
        if let Err(error) = running.kill().await {
            tracing::warn!(id = running.id(), error = %crate::one_line(&error), "the plugin's runner cannot kill it");
        }
        running.wait().await
    });
    Some((killed.await.unwrap_or(ExitKind::Unreaped), StopStep::Kill))
}

/// How what runs a plugin translates its addresses.
pub(super) fn translation_by(running: Arc<dyn Running>) -> Translation {
    Translation::by(Arc::new(Translator(running)))
}

struct Translator(Arc<dyn Running>);

impl Translate for Translator {
    fn to_own(&self, address: PluginAddress) -> io::Result<PluginAddress> {
        self.0.plugin_to_host(address)
    }

    fn to_peers(&self, address: PluginAddress) -> io::Result<PluginAddress> {
        self.0.host_to_plugin(address)
    }
}

impl fmt::Debug for Translator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Translator")
    }
}
