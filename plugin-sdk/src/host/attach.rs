//! Plugins that somebody else has started: services, plugins in test mode, and those that an earlier host has left.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::guest::{Guest, translation_by};
use super::launch::{SHUTDOWN_GRACE, Security};
#[cfg(feature = "plugin")]
use super::link::Link;
use super::link::{Once, Reopen, Target, Unreachable};
use super::log::Source;
use super::logbook::LogBook;
use super::output::Output;
use super::plugin::Owner;
use super::{Contract, HealthError, Plugin, Running};
use crate::clock::after;
use crate::process::ForeignProcess;
use crate::runtime::SocketDir;
use crate::services::{BrokerError, Means};
#[cfg(feature = "plugin")]
use crate::transport::Dial;
use crate::transport::{Peer, Place, Translation};
use crate::{AppVersion, AppVersions, PluginAddress, ReattachConfig};

/// Time to connect and to answer a health check.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How to connect to a plugin that is running already.
///
/// ```no_run
/// use plugin_sdk::MagicCookie;
/// use plugin_sdk::host::{Attach, Contract};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let contract = Contract::new(MagicCookie::new("EXAMPLE_PLUGIN", "1f0e"), [1]);
/// let plugin = Attach::to("unix:/run/example.sock".parse()?, contract).connect().await?;
/// let channel = plugin.channel(); // For any client that tonic generates.
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Attach {
    config: ReattachConfig,
    contract: Contract,
    name: String,
    runner: Option<Finder>,
    socket_dir: Option<PathBuf>,
    peer_check: bool,
    security: Security,
    timeout: Duration,
    book: Option<LogBook>,
    reopen: Reopen,
}

/// Why a plugin could not be attached to. Nothing was done to it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AttachError {
    /// No process has this number. go-plugin's `ErrProcessNotFound`.
    #[error("there is no process {pid}")]
    NoProcess {
        /// The number.
        pid: u32,
        /// What the operating system said.
        source: io::Error,
    },
    /// What runs it was not found.
    #[error("the plugin's runner was not found")]
    Runner(#[source] io::Error),
    /// Nothing answers there, or somebody else.
    #[error("no plugin was found at {address}")]
    NotFound {
        /// Where.
        address: PluginAddress,
        /// What went wrong.
        #[source]
        source: BrokerError,
    },
    /// It does not answer.
    #[error("the plugin at {address} did not answer within {after:?}")]
    TimedOut {
        /// Where.
        address: PluginAddress,
        /// The limit.
        after: Duration,
    },
    /// It answers, and says that it cannot work.
    #[error("the plugin at {address} is not well")]
    Unhealthy {
        /// Where.
        address: PluginAddress,
        /// What it said.
        #[source]
        source: HealthError,
    },
    /// It serves a version that this host cannot speak.
    #[error("the plugin serves application protocol version {plugin}, this host speaks {host}")]
    Version {
        /// What it serves.
        plugin: AppVersion,
        /// What the host knows.
        host: AppVersions,
    },
    /// It does not say which version it serves, and the host speaks several.
    #[error(
        "the plugin does not say its application protocol version, and this host speaks {host}: give one"
    )]
    VersionUnknown {
        /// What the host knows.
        host: AppVersions,
    },
    /// AutoMTLS needs a handshake, of which this is the rest.
    #[error("AutoMTLS is not possible with a plugin that is running already: use certificates of your own")]
    AutoMtls,
    /// There is no place for the host's own brokered sockets.
    #[error("cannot make a directory for sockets")]
    SocketDir(#[source] io::Error),
}

impl Attach {
    /// To a service, by its address. It is left running at the end, and reconnected to when it comes back.
    #[must_use]
    pub fn to(address: PluginAddress, contract: Contract) -> Self {
        Self::reattach(ReattachConfig { app_version: None, address, pid: None, test: true }, contract)
    }

    /// To a plugin that another host, or the plugin itself, has described. Outside of test mode it becomes this host's
    /// to end.
    #[must_use]
    pub fn reattach(config: ReattachConfig, contract: Contract) -> Self {
        let name = config.address.to_string();
        Self {
            config,
            contract,
            name,
            runner: None,
            socket_dir: None,
            peer_check: true,
            security: Security::default(),
            timeout: CONNECT_TIMEOUT,
            book: None,
            reopen: Reopen::Yes,
        }
    }

    /// For somebody who attaches anew when the connection is lost, and keeps what the plugin says.
    pub(super) fn supervised(mut self, book: LogBook) -> Self {
        self.book = Some(book);
        self.reopen = Reopen::No;
        self
    }

    /// What the plugin is called in logs.
    pub(super) fn display_name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    pub(super) fn address(&self) -> &PluginAddress {
        &self.config.address
    }

    /// What the plugin is called in logs. Default: its address.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The version that the plugin serves, if its description does not say. Default: the host's only one.
    #[must_use]
    pub fn app_version(mut self, version: impl Into<AppVersion>) -> Self {
        self.config.app_version = Some(version.into());
        self
    }

    /// What runs the plugin, for one that is no process of this machine: it waits for the plugin's end and kills it, in place of
    /// the described process id, and translates the addresses that come over the broker. The described address is this
    /// host's own. `find` is asked at each connect, and must not block. go-plugin's `ReattachFunc`.
    ///
    /// A service, or a plugin in test mode, is still left to itself: only addresses are translated.
    #[must_use]
    pub fn runner<R: Running + 'static>(
        mut self,
        find: impl Fn() -> io::Result<R> + Send + Sync + 'static,
    ) -> Self {
        self.runner = Some(Finder(Arc::new(move || Ok(Arc::new(find()?)))));
        self
    }

    /// A directory for the host's own brokered sockets that the plugin can reach: for one in another name space. Default: a
    /// new one, which only this user can enter.
    #[must_use]
    pub fn socket_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.socket_dir = Some(dir.into());
        self
    }

    /// Whether the process that listens on a Unix socket has to be of this user, and, if a process is described and there is
    /// no [`runner`](Self::runner), that one. Default: yes. No for plugins behind proxies, or as other users in containers.
    #[must_use]
    pub fn peer_check(mut self, check: bool) -> Self {
        self.peer_check = check;
        self
    }

    /// How the connection is secured. AutoMTLS is not possible.
    #[must_use]
    pub fn security(mut self, security: Security) -> Self {
        self.security = security;
        self
    }

    /// How long connecting may take, up to the answer of a health check. Default: 10 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Connects, and waits until the plugin's health is `SERVING`.
    ///
    /// # Errors
    /// Whatever keeps it from being ready.
    pub async fn connect(&self) -> Result<Plugin, AttachError> {
        let tls = match &self.security {
            Security::Plain => None,
            Security::Tls(config) => Some(config.tls()),
            Security::AutoMtls => return Err(AttachError::AutoMtls),
        };
        let app_version = self.version()?;
        let ReattachConfig { address, pid, test, .. } = self.config.clone();
        let running = self.runner.as_ref().map(|finder| (finder.0)()).transpose();
        let running = running.map_err(AttachError::Runner)?;
        let pid = pid.filter(|_| running.is_none());
        // Opened before the socket's owner is looked at: from here on the number cannot mean another process.
        let process = match pid {
            Some(pid) if !test => Some(
                ForeignProcess::open(pid)
                    .map_err(|source| AttachError::NoProcess { pid, source: io::Error::other(source) })?,
            ),
            _ => None,
        };
        let translation = running.clone().map_or_else(Translation::default, translation_by);
        let guest = running.filter(|_| !test).map(Guest::attached);
        let (place, own_dir) = self.place()?;
        let means = Means { place, tls, mux: None, translation };
        let peer = if self.peer_check { pid.map_or(Peer::SameUser, Peer::Tree) } else { Peer::Anyone };
        let (exit, is_known) = (guest.as_ref().map(Guest::exit), guest.is_some() || process.is_some());
        let once = (!is_known && self.reopen == Reopen::No).then(Once::default);
        let target = Target { address: address.clone(), peer, exit, once };
        let deadline = after(self.timeout);
        let reached = tokio::time::timeout_at(deadline, target.reach(means, false, deadline)).await;
        let link = match reached {
            Ok(reached) => reached.map_err(|unreachable| unreachable.at(address.clone()))?,
            Err(_) => return Err(AttachError::TimedOut { address, after: self.timeout }),
        };
        let since = Instant::now();
        let grace = SHUTDOWN_GRACE;
        let (owner, reopen) = match (guest, process) {
            (Some(guest), _) => (Owner::Guest { guest, grace }, Reopen::No),
            (None, Some(process)) => (Owner::Reattached { process, since, grace }, Reopen::No),
            (None, None) => {
                let ended = CancellationToken::new();
                (Owner::Itself { pid, since, ended }, self.reopen)
            }
        };
        let mut output =
            Output::of_stranger(Source { name: self.name.clone(), pid, book: self.book.clone() });
        if let Some(dir) = own_dir {
            output.keep(dir);
        }
        link.open_streams(&mut output, reopen);
        let reattach = Some(self.config.clone());
        Ok(Plugin { owner, address, app_version, link, output, reattach })
    }

    /// Where the host's own brokered sockets go, and the directory if it was made for them.
    fn place(&self) -> Result<(Place, Option<SocketDir>), AttachError> {
        if let Some(dir) = &self.socket_dir {
            return Ok((Place::Unix { dir: dir.clone(), group: None }, None));
        }
        let own = SocketDir::create(None).map_err(AttachError::SocketDir)?;
        Ok((Place::Unix { dir: own.path().to_path_buf(), group: None }, Some(own)))
    }

    fn version(&self) -> Result<AppVersion, AttachError> {
        let host = self.contract.app_versions();
        match self.config.app_version {
            Some(plugin) if host.contains(plugin) => Ok(plugin),
            Some(plugin) => Err(AttachError::Version { plugin, host: host.clone() }),
            None => match (host.iter().next(), host.iter().nth(1)) {
                (Some(only), None) => Ok(only),
                _ => Err(AttachError::VersionUnknown { host: host.clone() }),
            },
        }
    }
}

/// Finds what runs a plugin.
#[derive(Clone)]
struct Finder(Arc<dyn Fn() -> io::Result<Arc<dyn Running>> + Send + Sync>);

impl fmt::Debug for Finder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Finder")
    }
}

impl Plugin {
    /// A plugin that runs in this process and is reached by `dial`, until it has `ended`.
    #[cfg(feature = "plugin")]
    pub(crate) async fn in_this_process(
        dial: impl Dial,
        ended: CancellationToken,
        app_version: AppVersion,
        contract: &Contract,
        socket_dir: SocketDir,
    ) -> Result<Self, AttachError> {
        let host = contract.app_versions();
        if !host.contains(app_version) {
            return Err(AttachError::Version { plugin: app_version, host: host.clone() });
        }
        let (address, since) = (PluginAddress::Memory, Instant::now());
        let place = Place::Unix { dir: socket_dir.path().to_path_buf(), group: None };
        let means = Means { place, tls: None, mux: None, translation: Translation::default() };
        let reached = tokio::time::timeout(
            CONNECT_TIMEOUT,
            Link::over(dial, means, CancellationToken::new(), since + CONNECT_TIMEOUT),
        )
        .await;
        let link = match reached {
            Ok(reached) => reached.map_err(|unreachable| unreachable.at(address.clone()))?,
            Err(_) => return Err(AttachError::TimedOut { address, after: CONNECT_TIMEOUT }),
        };
        let pid = Some(std::process::id());
        let mut output = Output::of_stranger(Source { name: "in memory".to_owned(), pid, book: None });
        output.keep(socket_dir);
        link.open_streams(&mut output, Reopen::No);
        let owner = Owner::Itself { pid, since, ended };
        Ok(Self { owner, address, app_version, link, output, reattach: None })
    }
}

impl Unreachable {
    fn at(self, address: PluginAddress) -> AttachError {
        match self {
            Self::Refused(source) => AttachError::NotFound { address, source },
            Self::Unwell(source) => AttachError::Unhealthy { address, source },
        }
    }
}
