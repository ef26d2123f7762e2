//! Starting an instance in a way that can be given up with nothing left behind.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Failure, SourceInfo};
use crate::host::launch::REAP_LIMIT;
use crate::host::logbook::LogBook;
use crate::host::{Attach, Launch, Plugin};

/// Where instances come from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    Launch(Box<Launch>),
    Attach(Box<Attach>),
}

/// A start under way. Dropping it kills what was started.
pub(super) struct Starting {
    future: Pin<Box<dyn Future<Output = Result<Box<Plugin>, NotStarted>> + Send>>,
    cancel: CancellationToken,
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

    /// The same source, with whatever its plugins say kept in `book`.
    pub(super) fn recorded(self, book: LogBook) -> Self {
        match self {
            Self::Launch(launch) => Self::Launch(Box::new(launch.log_book(book))),
            Self::Attach(attach) => Self::Attach(Box::new(attach.supervised(book))),
        }
    }

    pub(super) fn start(&self) -> Starting {
        let cancel = CancellationToken::new();
        let (source, cancelled) = (self.clone(), cancel.clone());
        let future = Box::pin(async move {
            match source {
                Self::Launch(launch) => launch_unless(&launch, &cancelled).await,
                Self::Attach(attach) => match cancelled.run_until_cancelled(attach.connect()).await {
                    None => Err(NotStarted::Cancelled),
                    Some(Ok(plugin)) => Ok(Box::new(plugin)),
                    Some(Err(error)) => Err(NotStarted::Failed(Failure::Attach(Arc::new(error)))),
                },
            }
        });
        Starting { future, cancel }
    }
}

async fn launch_unless(launch: &Launch, cancelled: &CancellationToken) -> Result<Box<Plugin>, NotStarted> {
    let failed = |error| NotStarted::Failed(Failure::Start(Arc::new(error)));
    // Not given up half way, which is a moment: what a forgotten spawn leaves cannot be waited for.
    let spawned = launch.spawn().await.map_err(failed)?;
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

impl Starting {
    /// Waits for the end of the start. Cancel safe.
    pub(super) async fn outcome(&mut self) -> Result<Box<Plugin>, NotStarted> {
        self.future.as_mut().await
    }

    /// Gives the start up. Returns when nothing is left of it.
    pub(super) async fn give_up(mut self) {
        self.cancel.cancel();
        if let Ok(plugin) = self.outcome().await {
            plugin.shutdown().await;
        }
    }
}
