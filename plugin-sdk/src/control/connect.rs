//! Connecting to the control socket of a host.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tonic::transport::Channel;

use super::PluginControlClient;
use crate::PluginAddress;
use crate::services::BrokerError;
use crate::transport::{Dial, Peer, Stream, channel, connect as connect_to};

/// How long a host may take to accept. It does nothing else first.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// No host answers at a socket.
#[derive(Debug, Error)]
#[error("no host answers at {}", path.display())]
#[non_exhaustive]
pub struct ConnectError {
    /// The socket.
    pub path: PathBuf,
    /// Why not.
    pub source: Box<dyn Error + Send + Sync>,
}

/// Connects to a host's control socket, and makes sure that it is a process of this user, or of root, that listens
/// there.
///
/// # Errors
/// If nobody does.
pub async fn connect(socket: &Path) -> Result<PluginControlClient<Channel>, ConnectError> {
    let failed = |source| ConnectError { path: socket.to_path_buf(), source };
    let connected = channel(ControlSocket(PluginAddress::Unix(socket.to_path_buf())), None);
    match tokio::time::timeout(CONNECT_TIMEOUT, connected).await {
        Ok(Ok(channel)) => Ok(PluginControlClient::new(channel)),
        Ok(Err(error)) => Err(failed(error.into())),
        Err(_) => Err(failed(format!("it does not accept within {CONNECT_TIMEOUT:?}").into())),
    }
}

#[derive(Debug, Clone)]
struct ControlSocket(PluginAddress);

impl Dial for ControlSocket {
    async fn dial(&self) -> Result<Stream, BrokerError> {
        let stream = connect_to(&self.0).await?;
        if let Stream::Unix(stream) = &stream {
            Peer::SameUser.check(stream)?;
        }
        Ok(stream)
    }
}
