//! Serving [`control`](crate::control): operators in other processes look at this host's plugins and give orders.
//!
//! ```text
//! pluginctl ──▶ control socket ──▶ door: user, preface, number ──▶ service ──▶ PluginHandle ──▶ supervisor
//! ```
//!
//! Whoever may open the socket may do everything that the host's user could do to its plugins, and no more: the plugins can be
//! made to run another executable. So the socket has mode 0600, and the kernel is asked whose process is at the other end.

mod convert;
mod door;
mod feed;
mod service;
mod socket;
mod usage;

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tracing::Level;

use super::PluginHandle;
use crate::ListenError;
use crate::control::plugin_control_server::PluginControlServer;
use service::Service;
use socket::Socket;

/// The largest request, in bytes. A path is the longest thing in one.
const MAX_REQUEST_BYTES: usize = 64 << 10;

/// Most calls at once over one connection.
const MAX_CALLS: u32 = 64;

/// How often a client that is silent is asked whether it is there, and how long it has to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// How long clients have, when the server stops, to take what they are told.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Changes the host's own log level.
type HostLevel = Arc<dyn Fn(Level) -> Result<(), Box<dyn Error + Send + Sync>> + Send + Sync>;

/// What a host may decide about its control socket.
#[derive(Clone, Default)]
#[must_use]
pub struct ControlOptions {
    name: Option<String>,
    host_level: Option<HostLevel>,
}

impl ControlOptions {
    /// What the host is called. Default: the name of its program.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Lets operators change the host's own log level: `set` has lines of that level and more important ones logged from now
    /// on. It must not block. Default: they cannot.
    pub fn host_log_level<E>(mut self, set: impl Fn(Level) -> Result<(), E> + Send + Sync + 'static) -> Self
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.host_level = Some(Arc::new(move |level| set(level).map_err(Into::into)));
        self
    }
}

impl fmt::Debug for ControlOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlOptions").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why there is no control socket.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ControlError {
    /// There is no runtime directory for it.
    #[error("no directory for the control socket")]
    RuntimeDir(#[source] io::Error),
    /// It cannot be listened on.
    #[error("no control socket")]
    Listen(#[from] ListenError),
    /// Operators could not tell two plugins apart: see [`Launch::name`](super::Launch::name).
    #[error("two plugins are called {0:?}")]
    SameName(String),
}

/// A server that lets operators look at and steer plugins. Dropping it closes it at once; [`shutdown`](Self::shutdown)
/// tells those who are connected.
///
/// ```no_run
/// use plugin_sdk::host::{ControlOptions, ControlServer, Supervised};
///
/// # async fn example(cache: Supervised) -> Result<(), plugin_sdk::host::ControlError> {
/// let plugins = vec![cache.handle().clone()];
/// let control = ControlServer::start(plugins, ControlOptions::default()).await?;
/// // ... until the host is to end:
/// cache.shutdown().await;
/// control.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping it ends the server; keep it for as long as operators are to reach the host"]
pub struct ControlServer {
    path: PathBuf,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl ControlServer {
    /// Serves on the socket `control` in the host's runtime directory, where `pluginctl` finds it by itself. If that directory
    /// goes, as it does when its user logs out, it serves in another one some seconds later.
    ///
    /// # Errors
    /// If the socket cannot be made, or two plugins have the same name.
    ///
    /// # Panics
    /// Outside of a tokio run time.
    pub async fn start(plugins: Vec<PluginHandle>, options: ControlOptions) -> Result<Self, ControlError> {
        refuse_same_names(&plugins)?;
        Ok(Self::serve_on(Socket::at_home().await?, plugins, options))
    }

    /// Serves on a socket at `path`, which only this user can open. A socket there that a dead process has left is replaced;
    /// the directory has to be one that nobody else can write to.
    ///
    /// # Errors
    /// If the socket cannot be made, or two plugins have the same name.
    ///
    /// # Panics
    /// Outside of a tokio run time.
    pub async fn start_at(
        path: impl AsRef<Path>,
        plugins: Vec<PluginHandle>,
        options: ControlOptions,
    ) -> Result<Self, ControlError> {
        refuse_same_names(&plugins)?;
        Ok(Self::serve_on(Socket::at(path.as_ref(), None).await?, plugins, options))
    }

    fn serve_on(socket: Socket, plugins: Vec<PluginHandle>, options: ControlOptions) -> Self {
        let path = socket.path.clone();
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(socket, plugins, options, stop.clone()));
        Self { path, stop, task }
    }

    /// Where it listens at first.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Ends: whoever follows or waits for an order is told that the host stops, and the socket is removed. Takes a second at
    /// most.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        let _ended = (&mut self.task).await;
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.stop.cancel();
        self.task.abort();
    }
}

fn refuse_same_names(plugins: &[PluginHandle]) -> Result<(), ControlError> {
    for (index, plugin) in plugins.iter().enumerate() {
        if plugins[..index].iter().any(|other| other.name() == plugin.name()) {
            return Err(ControlError::SameName(plugin.name().to_owned()));
        }
    }
    Ok(())
}

async fn serve(socket: Socket, plugins: Vec<PluginHandle>, options: ControlOptions, stop: CancellationToken) {
    // Cuts off, at the end, those who do not go.
    let cut = CancellationToken::new();
    let _cut = cut.clone().drop_guard();
    let tasks = TaskTracker::new();
    let service = Service::new(plugins, options, stop.clone(), tasks.clone());
    let service = PluginControlServer::new(service).max_decoding_message_size(MAX_REQUEST_BYTES);
    let (door, visitors) = door::open(socket, cut);
    let serving = Server::builder()
        .max_concurrent_streams(MAX_CALLS)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .add_service(service)
        .serve_with_incoming_shutdown(visitors, stop.cancelled());
    let ended = async {
        // The server fails only where accepting does, which the door sees to.
        let (_served, ()) = tokio::join!(serving, door.run(&stop));
        tasks.close();
        tasks.wait().await;
    };
    let grace = async {
        stop.cancelled().await;
        tokio::time::sleep(STOP_GRACE).await;
    };
    tokio::select! {
        () = ended => {}
        () = grace => {}
    }
}
