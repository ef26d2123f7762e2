//! All parts put together: `Config` -> bind -> run.

use std::{future::Future, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use plugin_sdk::{
    host::{ControlOptions, ControlServer, PluginHandle, Supervised},
    one_line,
};
use tokio::{net::TcpListener, time};
use tracing::{info, warn};

use crate::{
    cache::{Cache, RemoteCache},
    compute::{Flights, Pool, Refill},
    config::{CacheConfig, Config, Control, HttpConfig},
    http::{self, App, Drained, Front, Plugin},
    port_file::PortFile,
};

/// For calls to the plugin that are under way, or still to be made, when there are no requests any more. It is theirs alone, as
/// `--cache-timeout` may be long.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// A server that listens, and does not answer yet.
#[derive(Debug)]
pub struct Service {
    config: Config,
    listener: TcpListener,
    address: SocketAddr,
    control: ControlOptions,
    _port_file: Option<PortFile>,
}

/// Why the server cannot listen. The operator's move.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The address is not ours to take.
    #[error("cannot listen on {host}, port {port}")]
    Listen {
        /// As configured.
        host: String,
        /// As configured.
        port: u16,
        /// Why not.
        source: io::Error,
    },
    /// The file for the address cannot be written.
    #[error("--port-file: cannot write {}", path.display())]
    PortFile {
        /// As configured.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Service {
    /// Takes the address and tells it to the port file. Starts nothing else.
    pub async fn bind(config: Config) -> Result<Self, BindError> {
        let (listener, address) = listen(&config.http).await.map_err(|source| {
            let (host, port) = (config.http.host.clone(), config.http.port);
            BindError::Listen { host, port, source }
        })?;
        let _port_file = match &config.http.port_file {
            Some(path) => Some(
                PortFile::write(path, address)
                    .map_err(|source| BindError::PortFile { path: path.clone(), source })?,
            ),
            None => None,
        };
        Ok(Self { config, listener, address, control: ControlOptions::default(), _port_file })
    }

    /// What operators can do through the control socket, beside looking at the plugin and steering it.
    #[must_use]
    pub fn control(mut self, options: ControlOptions) -> Self {
        self.control = options;
        self
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`, then drains and stops the plugin. Dropping the future stops everything at once: the
    /// plugin is killed.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Config { http: http_config, compute, cache: cache_config, control, .. } = self.config;
        let first_start = cache_config.as_ref().map(|config| config.first_start);
        let Backend { plugin, cache } = Backend::start(cache_config);
        let handle = plugin.as_ref().map(Supervised::handle).cloned();
        let shown =
            handle.clone().zip(first_start).map(|(handle, first_start)| Plugin { handle, first_start });
        let control = match control {
            Control::On => open_control(handle, self.control).await,
            Control::Off => None,
        };
        let flights =
            Arc::new(Flights::new(Refill::new(Pool::new(&compute), cache.clone()), compute.timeout));
        let app = App { max_n: compute.max_n, cache: cache.clone(), flights: flights.clone(), plugin: shown };
        info!(address = %self.address, "listening");

        let shutdown = async {
            shutdown.await;
            info!(timeout = ?http_config.drain_timeout, "draining");
        };
        let drained = http::serve(self.listener, Front::new(app), &http_config, shutdown).await;
        if let Drained::Cut { connections } = drained {
            warn!(connections, "drain timeout over, connections cut");
        }
        // Nobody waits for a number any more; what is left is to store those that were just calculated.
        let last_calls = async {
            flights.finish().await;
            cache.close().await;
        };
        if time::timeout(LAST_CALLS, last_calls).await.is_err() {
            warn!("the cache plugin does not answer; it is stopped with calls open");
        }
        if let Some(plugin) = plugin {
            plugin.shutdown().await;
        }
        // After the plugin, so that those who follow see it end.
        if let Some(control) = control {
            control.shutdown().await;
        }
        info!("stopped");
    }
}

/// Lets operators in. A server without them is better than none.
async fn open_control(plugin: Option<PluginHandle>, options: ControlOptions) -> Option<ControlServer> {
    match ControlServer::start(vec![plugin?], options).await {
        Ok(control) => {
            info!(socket = %control.path().display(), "operators can connect");
            Some(control)
        }
        Err(error) => {
            warn!(reason = %one_line(&error), "operators cannot connect");
            None
        }
    }
}

async fn listen(config: &HttpConfig) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((config.host.as_str(), config.port)).await?;
    // Again, which only changes the length of the queue: tokio's is 128.
    rustix::net::listen(&listener, LISTEN_QUEUE)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Connections that wait to be accepted; the kernel cuts it to its own `somaxconn`, by default 4096. Who does not
/// find room tries again a second later, so there should be room for a crowd that comes at once.
const LISTEN_QUEUE: i32 = 4096;

/// The cache, and the plugin behind it.
struct Backend {
    plugin: Option<Supervised>,
    cache: Cache,
}

impl Backend {
    fn start(config: Option<CacheConfig>) -> Self {
        let Some(config) = config else { return Self { plugin: None, cache: without_plugin() } };
        let plugin = config.supervisor.clone().start();
        let cache = Cache::Remote(Arc::new(RemoteCache::new(plugin.channel(), &config)));
        Self { plugin: Some(plugin), cache }
    }
}

#[cfg(not(feature = "in-process"))]
fn without_plugin() -> Cache {
    warn!("no cache plugin configured, using the no-op cache");
    Cache::NoOp
}

#[cfg(feature = "in-process")]
fn without_plugin() -> Cache {
    warn!("built to be measured: no cache plugin configured, using the memory of this process");
    Cache::InProcess(crate::cache::InProcess::new())
}
