//! A plugin inside the process of its host, for tests: the real server, over pipes of memory.

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
    pub(crate) app_version: AppVersion,
}

impl MemoryPlugin {
    /// A plugin and its serving, which ends with `stop` or when the host asks for it. Brokered sockets go to `dir`.
    pub(crate) fn new(
        mut builder: PluginBuilder,
        offered: &AppVersions,
        dir: PathBuf,
        stop: CancellationToken,
    ) -> Result<(Self, impl Future<Output = Result<(), ServeError>> + Send + 'static), ServeError> {
        let (app_version, services) = builder.choose(offered)?;
        let server = PluginServer::new(app_version, services, ShutdownRpc::Ends)?;
        let (entrance, incoming) = Entrance::new(None, Access::SameUser);
        let place = Place::Unix { dir, group: None };
        let hosts = Arc::new(Hosts { place, tls: None, last_words: server.last_words.clone() });
        let serving = server.run(incoming, stop.cancelled_owned(), std::future::ready(()));
        Ok((Self { entrance, hosts, app_version }, serving))
    }
}

impl Dial for MemoryPlugin {
    async fn dial(&self) -> Result<Stream, BrokerError> {
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        self.entrance.admit(Stream::Memory(far), Some(self.hosts.broker(None)));
        Ok(Stream::Memory(near))
    }
}
