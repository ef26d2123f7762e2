//! The description of a plugin, and the ways to run it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::arguments::{ArgumentProblem, Service};
use super::closing::Closing;
use super::reflection::Services;
use super::server::DRAIN_LIMIT;
use super::{child, service, test_mode};
use crate::handshake::{EnvProblem, PluginEnv};
use crate::services::{HealthReporter, Stdio, StdioWriter};
use crate::transport::{ListenError, Place, own_choice_of_dir};
use crate::{AppVersion, AppVersions, MagicCookie, ReattachConfig, TlsConfig, TlsError};

/// Describes a plugin, then runs it.
///
/// ```no_run
/// use std::process::ExitCode;
///
/// use plugin_sdk::MagicCookie;
/// use plugin_sdk::plugin::PluginBuilder;
/// use tonic::service::Routes;
///
/// fn main() -> ExitCode {
///     PluginBuilder::new(MagicCookie::new("EXAMPLE_PLUGIN", "1f0e"))
///         .version(1, |_context| Routes::default()) // Add the application's services here.
///         .run()
/// }
/// ```
pub struct PluginBuilder {
    cookie: MagicCookie,
    versions: BTreeMap<AppVersion, Factory>,
    /// A version that was given twice.
    twice: Option<AppVersion>,
    pub(super) network: Network,
    pub(super) tls: Option<TlsConfig>,
    descriptors: Vec<&'static [u8]>,
    drain_limit: Duration,
}

/// What a plugin listens on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Network {
    /// A Unix socket in the host's directory, or else in the temporary directory.
    #[default]
    Unix,
    /// Loopback, at a port of the host's range, or else at any. For machines without Unix sockets.
    Tcp,
}

impl Network {
    pub(super) fn place(self, env: &PluginEnv) -> Place {
        match self {
            Self::Unix => Place::Unix {
                dir: env.socket_dir.clone().unwrap_or_else(own_choice_of_dir),
                group: env.socket_group.clone(),
            },
            Self::Tcp => Place::Tcp { ports: env.ports.clone() },
        }
    }
}

/// Makes the services of a version.
pub(super) type Factory = Box<dyn FnOnce(Context) -> Making + Send>;

type Making = Pin<Box<dyn Future<Output = Result<Routes, Refusal>> + Send>>;

/// Why the application cannot make its services, in its own words.
type Refusal = Box<dyn std::error::Error + Send + Sync>;

/// What a plugin's services may use of the SDK.
#[derive(Debug, Clone)]
pub struct Context {
    pub(super) app_version: AppVersion,
    pub(super) health: HealthReporter,
    pub(super) stdio: Stdio,
    pub(super) closing: Closing,
}

/// What is served to a host, now that its versions are known.
pub(super) struct Chosen {
    pub(super) app_version: AppVersion,
    pub(super) services: Services,
    pub(super) drain_limit: Duration,
}

/// Why a plugin could not serve.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The magic cookie is missing: a person started the binary by hand.
    #[error("this program is a plugin and is started by its host")]
    NotStartedByHost,
    /// The magic cookie has another value: a host started the binary, and is made for another plugin or another contract.
    #[error("{key} does not hold this plugin's magic cookie: give host and plugin the same")]
    OtherCookie {
        /// The variable.
        key: String,
    },
    /// The plugin's author left a half of the cookie empty.
    #[error("the magic cookie of this plugin is empty or cannot be an environment variable")]
    UnusableCookie,
    /// The plugin's author registered no version.
    #[error("this plugin has no application protocol version")]
    NoVersion,
    /// The plugin's author registered a version twice. Several services of one version are added to one
    /// [`Routes`](tonic::service::Routes).
    #[error("this plugin has two sets of services for version {0}")]
    VersionTwice(AppVersion),
    /// The host asked for something that makes no sense.
    #[error("the host's environment cannot be followed")]
    Environment(#[from] EnvProblem),
    /// The application cannot make its services: what [`try_version`](PluginBuilder::try_version) was given has failed.
    #[error("cannot make the services of version {app_version}")]
    Services {
        /// The version that was agreed on.
        app_version: AppVersion,
        /// The application's reason.
        source: Refusal,
    },
    /// No socket.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The SDK's own arguments make no sense.
    #[error(transparent)]
    Arguments(#[from] ArgumentProblem),
    /// A file with a certificate or key cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// TCP to other machines would be open to everybody on the network.
    #[error("{0} is not on loopback: give --listen-tls-ca, --listen-tls-cert and --listen-tls-key")]
    OpenToNetwork(std::net::SocketAddr),
    /// No certificate, or the host's cannot be used.
    #[error("cannot set up TLS")]
    Tls(#[from] TlsError),
    /// The handshake line could not be written, or stdout could not be captured.
    #[error("cannot use stdout")]
    Stdout(#[source] io::Error),
    /// The operating system refused what a server needs.
    #[error("cannot set up signals")]
    Signals(#[source] io::Error),
    /// The asynchronous run time could not be made.
    #[error("cannot start the run time")]
    Runtime(#[source] io::Error),
    /// The plugin's author called [`run`](PluginBuilder::run) where there is a run time already.
    #[error(
        "run() makes a run time of its own and was called inside of one: call serve() there, and await it"
    )]
    InsideRuntime,
    /// The plugin's author gave [`descriptors`](PluginBuilder::descriptors) that cannot be used.
    #[error("the descriptors of this plugin's services cannot be used")]
    Descriptors(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server ended by itself.
    #[error("the gRPC server failed")]
    Server(#[from] tonic::transport::Error),
}

impl ServeError {
    /// Tells whoever has started the plugin, on stderr, and gives the exit code, 1. A person who has started it by hand reads that
    /// its host is to do it, and the author of a host with another magic cookie what to mend; all else is one line of the log with its whole cause, which needs no logging to be installed.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        // There is nobody to tell that stderr is broken.
        match self {
            Self::NotStartedByHost => _ = io::stderr().write_all(NOT_BY_HAND.as_bytes()),
            Self::OtherCookie { key } => _ = io::stderr().write_all(other_cookie(key).as_bytes()),
            _ => {
                super::init_logging();
                tracing::error!("{}", crate::one_line(self));
            }
        }
        ExitCode::FAILURE
    }
}

impl Context {
    /// The version that the services are made for.
    #[must_use]
    pub fn app_version(&self) -> AppVersion {
        self.app_version
    }

    /// Tells hosts whether the plugin is able to work.
    #[must_use]
    pub fn health(&self) -> &HealthReporter {
        &self.health
    }

    /// Output for the host's stdout. `println!` reaches it as well.
    #[must_use]
    pub fn stdout(&self) -> StdioWriter {
        self.stdio.stdout()
    }

    /// Output for the host's stderr, apart from logs, which go to the real stderr.
    #[must_use]
    pub fn stderr(&self) -> StdioWriter {
        self.stdio.stderr()
    }

    /// Tells when the plugin is to end: for streams, and for whatever else would go on until its host ends it.
    #[must_use]
    pub fn closing(&self) -> Closing {
        self.closing.clone()
    }
}

impl PluginBuilder {
    /// A plugin that hosts with this cookie can start. It needs at least one [`version`](Self::version).
    #[must_use]
    pub fn new(cookie: MagicCookie) -> Self {
        Self {
            cookie,
            versions: BTreeMap::new(),
            twice: None,
            network: Network::default(),
            tls: None,
            descriptors: Vec::new(),
            drain_limit: DRAIN_LIMIT,
        }
    }

    /// What to listen on. Default: a Unix socket.
    #[must_use]
    pub fn network(mut self, network: Network) -> Self {
        self.network = network;
        self
    }

    /// Uses these certificates instead of AutoMTLS, whatever the host asks for. The host has to be configured to match.
    #[must_use]
    pub fn tls(mut self, config: TlsConfig) -> Self {
        self.tls = Some(config);
        self
    }

    /// How long the calls that are running may take once the plugin is to end; then they are broken off. Default: 1 s.
    ///
    /// It is of use only under a host that waits as long before it kills: one made with this crate for its
    /// `Launch::shutdown_grace`, 2 s by default and then 2 s more. go-plugin's hosts always kill after 2 s. A call that would
    /// never end by itself should rather listen to [`Context::closing`]. The calls cannot print to the host any
    /// more, nor dial it.
    #[must_use]
    pub fn drain_limit(mut self, limit: Duration) -> Self {
        self.drain_limit = limit;
        self
    }

    /// Describes the application's services for gRPC reflection: an encoded `google.protobuf.FileDescriptorSet`, as a
    /// protobuf compiler writes it, with all that the files in it import. May be called once for each of several sets.
    ///
    /// Every plugin serves reflection. It lists the SDK's services and those of the application that are both served and
    /// described here; of others it does not know the names.
    #[must_use]
    pub fn descriptors(mut self, set: &'static [u8]) -> Self {
        self.descriptors.push(set);
        self
    }

    /// Adds the services for one application protocol version. Only those of the version that is agreed on with the
    /// host are made: the highest common one, or the lowest here for a host that has none of them.
    #[must_use]
    pub fn version(
        mut self,
        version: impl Into<AppVersion>,
        services: impl FnOnce(&Context) -> Routes + Send + 'static,
    ) -> Self {
        let make: Factory = Box::new(move |context| {
            let routes = services(&context);
            Box::pin(std::future::ready(Ok(routes)))
        });
        self.add(version.into(), make);
        self
    }

    /// As [`version`](Self::version), for services that have to wait for something, or that can fail: a plugin with a database
    /// that it cannot open has no other way to say so. The error is one line on stderr, which the host's error quotes, and
    /// [`ServeError::Services`]; the plugin ends with exit code 1.
    ///
    /// The host waits meanwhile, until its start timeout.
    ///
    /// ```no_run
    /// use std::process::ExitCode;
    ///
    /// use plugin_sdk::MagicCookie;
    /// use plugin_sdk::plugin::{Context, PluginBuilder};
    /// use tonic::service::Routes;
    ///
    /// # struct Index;
    /// # impl Index {
    /// #     async fn open(_path: &str) -> std::io::Result<Self> { Ok(Self) }
    /// #     fn services(self, _context: &Context) -> Routes { Routes::default() }
    /// # }
    /// fn main() -> ExitCode {
    ///     PluginBuilder::new(MagicCookie::new("EXAMPLE_PLUGIN", "1f0e"))
    ///         .try_version(1, async |context: Context| -> std::io::Result<Routes> {
    ///             let index = Index::open("/var/lib/example/index").await?;
    ///             Ok(index.services(&context))
    ///         })
    ///         .run()
    /// }
    /// ```
    #[must_use]
    pub fn try_version<F, E>(
        mut self,
        version: impl Into<AppVersion>,
        services: impl FnOnce(Context) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Routes, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let make: Factory = Box::new(move |context| {
            let making = services(context);
            Box::pin(async move { making.await.map_err(Into::into) })
        });
        self.add(version.into(), make);
        self
    }

    fn add(&mut self, version: AppVersion, make: Factory) {
        if self.versions.insert(version, make).is_some() {
            self.twice = Some(version);
        }
    }

    /// Runs the plugin to its end, for use as the last expression of `main`: installs logging, makes a
    /// single-threaded run time, serves as [`serve`](Self::serve) does. The exit code is 0 after an orderly end and 1
    /// otherwise, with the reason on stderr.
    ///
    /// On one thread, a handler that computes for long keeps all others waiting. A plugin with work for more than one core takes
    /// [`serve`](Self::serve) in a run time of its own; inside of one, this does nothing but fail.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let outcome = self.mode().and_then(|mode| {
            super::init_logging();
            if tokio::runtime::Handle::try_current().is_ok() {
                return Err(ServeError::InsideRuntime);
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(ServeError::Runtime)?;
            let outcome = runtime.block_on(self.serve_as(mode));
            // To drop it would wait for blocking work, however long that takes: a name that is looked up, for one.
            runtime.shutdown_background();
            outcome
        });
        outcome.map_or_else(|error| error.report(), |()| ExitCode::SUCCESS)
    }

    /// Serves, for plugins with a run time and logging of their own. To be called once in a process.
    ///
    /// As the child of a host, until the host asks for the end, has gone, or sends SIGTERM; SIGINT is taken and
    /// ignored, since on Ctrl-C the host decides when its plugins end. Nothing may be printed to stdout before, and what is
    /// printed after goes to the host.
    ///
    /// As a service of its own, where `--listen` or systemd says so (see [`args`](super::args)), until SIGTERM or
    /// SIGINT. Any number of hosts attach to it and none can end it.
    ///
    /// ```no_run
    /// use std::process::ExitCode;
    ///
    /// use plugin_sdk::MagicCookie;
    /// use plugin_sdk::plugin::{PluginBuilder, init_logging};
    /// use tonic::service::Routes;
    ///
    /// # /*
    /// #[tokio::main] // On as many threads as there are cores.
    /// # */
    /// # #[tokio::main(flavor = "current_thread")]
    /// async fn main() -> ExitCode {
    ///     init_logging();
    ///     let plugin = PluginBuilder::new(MagicCookie::new("EXAMPLE_PLUGIN", "1f0e"))
    ///         .version(1, |_context| Routes::default());
    ///     match plugin.serve().await {
    ///         Ok(()) => ExitCode::SUCCESS,
    ///         Err(error) => error.report(),
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// Whatever keeps it from serving. Exit with a code other than 0 then, so that the host sees it: as
    /// [`ServeError::report`] does.
    pub async fn serve(self) -> Result<(), ServeError> {
        let mode = self.mode()?;
        self.serve_as(mode).await
    }

    /// Serves in go-plugin's test mode, for a plugin inside a test or a debugger that hosts reattach to: without cookie
    /// and handshake line, with stdout and signals left alone. `ready` gets what a host needs to reattach; serving
    /// ends with `cancel`, or when a host asks for it.
    ///
    /// The environment is followed as always. With `PLUGIN_CLIENT_CERT`, only the host with that certificate can connect.
    ///
    /// # Errors
    /// Whatever keeps it from serving.
    pub async fn serve_test(
        self,
        ready: impl FnOnce(ReattachConfig) + Send,
        cancel: CancellationToken,
    ) -> Result<(), ServeError> {
        test_mode::serve(self, ready, cancel).await
    }

    async fn serve_as(self, mode: Mode) -> Result<(), ServeError> {
        match mode {
            Mode::Child => child::serve(self).await,
            Mode::Service(service) => service::serve(self, service).await,
        }
    }

    /// Who runs this process.
    fn mode(&self) -> Result<Mode, ServeError> {
        let child = self.check_cookie();
        match Service::of_this_process(child.is_ok())? {
            Some(service) => Ok(Mode::Service(service)),
            None => child.map(|()| Mode::Child),
        }
    }

    /// The environment, read, with its oddities reported.
    pub(super) fn environment() -> Result<PluginEnv, ServeError> {
        let env = PluginEnv::read(|name| std::env::var_os(name))?;
        for entry in &env.version_junk {
            tracing::warn!(entry, "the host's version list has an entry that is no number");
        }
        Ok(env)
    }

    /// What to serve to hosts with these versions.
    pub(super) fn choose(&mut self, offered: &AppVersions) -> Result<Chosen, ServeError> {
        if let Some(version) = self.twice {
            return Err(ServeError::VersionTwice(version));
        }
        let own: AppVersions = self.versions.keys().copied().collect();
        let app_version = own.negotiate(offered).ok_or(ServeError::NoVersion)?;
        let make = self.versions.remove(&app_version).ok_or(ServeError::NoVersion)?;
        let services = Services { make, descriptors: std::mem::take(&mut self.descriptors) };
        Ok(Chosen { app_version, services, drain_limit: self.drain_limit })
    }

    /// The highest version here.
    pub(super) fn highest(&self) -> Option<AppVersion> {
        self.versions.keys().next_back().copied()
    }

    fn check_cookie(&self) -> Result<(), ServeError> {
        if !self.cookie.is_usable() {
            return Err(ServeError::UnusableCookie);
        }
        match std::env::var_os(self.cookie.key()) {
            Some(value) if value == self.cookie.value() => Ok(()),
            Some(value) if !value.is_empty() => {
                Err(ServeError::OtherCookie { key: self.cookie.key().to_owned() })
            }
            _ => Err(ServeError::NotStartedByHost),
        }
    }
}

/// The two ways in which a plugin's executable can run.
enum Mode {
    Child,
    Service(Service),
}

impl fmt::Debug for PluginBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let versions: Vec<_> = self.versions.keys().collect();
        f.debug_struct("PluginBuilder").field("cookie", &self.cookie).field("versions", &versions).finish()
    }
}

/// What a person reads who starts a plugin by hand.
const NOT_BY_HAND: &str = "\
This program is a plugin. It is not meant to be started by hand:
its host starts it and talks to it over a socket.
Start the host instead, and give it the path of this file.
";

/// What the author of a host reads whose contract is not the plugin's.
fn other_cookie(key: &str) -> String {
    format!(
        "\
This program is a plugin, and was started with another magic cookie than its own:
{key} is set, but not to the value that this plugin was built with.
Give host and plugin the same magic cookie, or the host the right plugin.
"
    )
}
