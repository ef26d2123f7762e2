//! Starting an instance in a way that can be given up with nothing left behind.

use std::ffi::OsString;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::instance::EXIT_NEWS;
use super::prepare::{Kept, Prepare};
use super::{Failure, SourceInfo};
use crate::host::launch::REAP_LIMIT;
use crate::host::logbook::LogBook;
use crate::host::{Attach, Launch, LaunchError, Plugin};

/// Where instances come from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    Launch(Box<Launch>),
    Attach(Box<Attach>),
}

/// A start under way. Dropping it kills what was started.
pub(super) struct Starting {
    future: Pin<Box<dyn Future<Output = Result<Started, NotStarted>> + Send>>,
    cancel: CancellationToken,
}

/// An instance that can be called, with what the application keeps for it.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) plugin: Box<Plugin>,
    pub(super) kept: Option<Kept>,
}

/// Why there is no instance.
#[derive(Debug)]
pub(super) enum NotStarted {
    Failed(Failure),
    /// It was given up, and nothing is left of it.
    Cancelled,
}

impl Source {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Launch(launch) => launch.display_name(),
            Self::Attach(attach) => attach.display_name(),
        }
    }

    pub(super) fn info(&self) -> SourceInfo {
        match self {
            Self::Launch(launch) => SourceInfo::Program(launch.program().to_path_buf()),
            Self::Attach(attach) => SourceInfo::Address(attach.address().clone()),
        }
    }

    pub(super) fn program(&self) -> Option<PathBuf> {
        match self {
            Self::Launch(launch) => Some(launch.program().to_path_buf()),
            Self::Attach(_) => None,
        }
    }

    /// The same source, with whatever its plugins say kept in `book`, of whose level those that are launched are told in a
    /// variable.
    pub(super) fn recorded(self, book: LogBook, level_variable: Option<OsString>) -> Self {
        match self {
            Self::Launch(launch) => Self::Launch(Box::new(launch.log_book(book, level_variable))),
            Self::Attach(attach) => Self::Attach(Box::new(attach.supervised(book))),
        }
    }

    pub(super) fn start(&self, prepare: Option<Prepare>) -> Starting {
        let cancel = CancellationToken::new();
        let (source, cancelled) = (self.clone(), cancel.clone());
        let future = Box::pin(async move {
            let plugin = match source {
                Self::Launch(launch) => launch_unless(&launch, &cancelled).await?,
                Self::Attach(attach) => match cancelled.run_until_cancelled(attach.connect()).await {
                    None => return Err(NotStarted::Cancelled),
                    Some(Ok(plugin)) => Box::new(plugin),
                    Some(Err(error)) => return Err(NotStarted::Failed(Failure::Attach(Arc::new(error)))),
                },
            };
            match prepare {
                Some(prepare) => prepare_unless(plugin, &prepare, &cancelled).await,
                None => Ok(Started { plugin, kept: None }),
            }
        });
        Starting { future, cancel }
    }
}

async fn launch_unless(launch: &Launch, cancelled: &CancellationToken) -> Result<Box<Plugin>, NotStarted> {
    let failed = |error| NotStarted::Failed(Failure::Start(Arc::new(error)));
    let spawned = if launch.has_runner() {
        cancelled.run_until_cancelled(launch.spawn()).await.ok_or(NotStarted::Cancelled)?
    } else {
        // Not given up half way, which is a moment: what a forgotten spawn leaves cannot be waited for.
        launch.spawn().await
    };
    let spawned = spawned.map_err(failed)?;
    let mut gone = spawned.gone();
    let ready = async { spawned.handshake().await?.connect().await };
    match cancelled.run_until_cancelled(ready).await {
        Some(ready) => ready.map(Box::new).map_err(failed),
        None => {
            // The process was told to die when its handle was dropped.
            let _ = tokio::time::timeout(REAP_LIMIT, gone.wait_for(Option::is_some)).await;
            Err(NotStarted::Cancelled)
        }
    }
}

/// Has the application prepare the instance. One that is not prepared is ended.
async fn prepare_unless(
    plugin: Box<Plugin>,
    prepare: &Prepare,
    cancelled: &CancellationToken,
) -> Result<Started, NotStarted> {
    match cancelled.run_until_cancelled(prepare.run(&plugin)).await {
        Some(Ok(kept)) => Ok(Started { plugin, kept: Some(kept) }),
        Some(Err(why)) => {
            // Mostly it is the end of the process that is the reason, and the better one.
            let failure = match tokio::time::timeout(EXIT_NEWS, plugin.exited()).await {
                Ok(exit) => {
                    let stderr_tail = plugin.last_words().await;
                    Failure::Start(Arc::new(LaunchError::Exited { exit, stderr_tail }))
                }
                Err(_) => {
                    plugin.shutdown().await;
                    Failure::Prepare(Arc::new(why))
                }
            };
            Err(NotStarted::Failed(failure))
        }
        None => {
            plugin.shutdown().await;
            Err(NotStarted::Cancelled)
        }
    }
}

impl Starting {
    /// Waits for the end of the start. Cancel safe.
    pub(super) async fn outcome(&mut self) -> Result<Started, NotStarted> {
        self.future.as_mut().await
    }

    /// Gives the start up. Returns when nothing is left of it.
    pub(super) async fn give_up(mut self) {
        self.cancel.cancel();
        if let Ok(started) = self.outcome().await {
            started.plugin.shutdown().await;
        }
    }
}
