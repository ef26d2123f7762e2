//! The socket that operators connect to, wherever the host's directory is.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::ControlError;
use crate::control::SOCKET_NAME;
use crate::runtime::RuntimeDir;
use crate::transport::{Listener, Stream};

/// How often it is seen to that the directory is still there.
const LOOK: Duration = Duration::from_secs(5);

pub(super) struct Socket {
    pub(super) path: PathBuf,
    listener: Listener,
    /// The directory that it is in, unless somebody else has chosen a path. Removed after the socket.
    dir: Option<Arc<RuntimeDir>>,
}

impl Socket {
    /// Accepts whoever comes next. Cancel safe.
    pub(super) async fn accept(&mut self) -> io::Result<Stream> {
        loop {
            match tokio::time::timeout(LOOK, self.listener.accept()).await {
                Ok(accepted) => return accepted,
                Err(_) => self.follow().await,
            }
        }
    }

    /// Moves to the host's new directory if the old one has gone.
    async fn follow(&mut self) {
        if self.dir.as_ref().is_none_or(|dir| dir.is_there()) {
            return;
        }
        match Self::at_home().await {
            Ok(moved) => {
                *self = moved;
                let socket = self.path.display();
                tracing::info!(%socket, "the control socket had gone with its directory; there is another");
            }
            Err(error) => {
                let reason = crate::one_line(&error);
                tracing::warn!(%reason, "the control socket has gone with its directory");
            }
        }
    }

    /// In the directory of this process.
    pub(super) async fn at_home() -> Result<Self, ControlError> {
        let dir = RuntimeDir::of_this_process().map_err(ControlError::RuntimeDir)?;
        Self::at(&dir.path().join(SOCKET_NAME), Some(dir)).await
    }

    pub(super) async fn at(path: &Path, dir: Option<Arc<RuntimeDir>>) -> Result<Self, ControlError> {
        Ok(Self { path: path.to_path_buf(), listener: Listener::at_path(path, None).await?, dir })
    }
}
