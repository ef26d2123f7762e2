//! A plugin inside the process of its host, for tests: the real server, over pipes of memory.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::builder::{PluginBuilder, ServeError};
use super::server::{Hosts, PluginServer, ShutdownRpc};
use crate::services::BrokerError;
use crate::transport::{Access, Dial, Entrance, Place, Stream};
use crate::{AppVersion, AppVersions};

/// What a pipe holds before its writer waits; about as much as a socket.
const PIPE_BYTES: usize = 64 * 1024;

/// A plugin that takes connections from this process.
#[derive(Clone)]
pub(crate) struct MemoryPlugin {
    entrance: Entrance,
    hosts: Arc<Hosts>,
    /// Cuts all connections.
    crash: CancellationToken,
    /// Cancelled when the plugin has ended, well or not.
    ended: CancellationToken,
    pub(crate) app_version: AppVersion,
}

impl MemoryPlugin {
    /// A plugin and its serving, which ends with `stop`, when the host asks for it, or in the middle of everything with
    /// `crash`. Brokered sockets go to `dir`.
    pub(crate) async fn new(
        mut builder: PluginBuilder,
        offered: &AppVersions,
        dir: PathBuf,
        stop: CancellationToken,
        crash: CancellationToken,
    ) -> Result<(Self, impl Future<Output = Result<(), ServeError>> + Send + 'static), ServeError> {
        let chosen = builder.choose(offered)?;
        let app_version = chosen.app_version;
        let server = PluginServer::new(chosen, ShutdownRpc::Ends).await?;
        let (entrance, incoming) = Entrance::new(None, Access::SameUser);
        let place = Place::Unix { dir, group: None };
        let hosts = Arc::new(Hosts { place, tls: None, last_words: server.last_words.clone() });
        let serving = server.run(incoming, stop.cancelled_owned(), std::future::ready(()));
        let (ended, last_words) = (CancellationToken::new(), hosts.last_words.clone());
        let plugin = Self { entrance, hosts, crash: crash.clone(), ended: ended.clone(), app_version };
        let serving = async move {
            let _ended = ended.drop_guard();
            let served = crash.run_until_cancelled(serving).await;
            // What is served through the broker ends with a crash, too.
            last_words.cancel();
            served.unwrap_or(Ok(()))
        };
        Ok((plugin, serving))
    }

    /// Cancelled when the plugin has ended, as a process would have.
    pub(crate) fn ended(&self) -> &CancellationToken {
        &self.ended
    }
}

impl Dial for MemoryPlugin {
    async fn dial(&self) -> Result<Stream, BrokerError> {
        if self.ended.is_cancelled() || self.crash.is_cancelled() {
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the plugin has ended").into());
        }
        // Two pipes with a copier between them: a crash cuts them while both ends are in use.
        let (near, mut near_end) = tokio::io::duplex(PIPE_BYTES);
        let (mut far_end, far) = tokio::io::duplex(PIPE_BYTES);
        tokio::spawn(self.crash.clone().run_until_cancelled_owned(async move {
            let _broken = tokio::io::copy_bidirectional(&mut near_end, &mut far_end).await;
        }));
        self.entrance.admit(Stream::Memory(far), Some(self.hosts.broker(None)));
        Ok(Stream::Memory(near))
    }
}
