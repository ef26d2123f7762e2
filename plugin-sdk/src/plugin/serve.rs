//! The life of a plugin process: announce, serve, drain.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;

use super::host_watch::HostWatch;
use super::stdout::Capture;
use crate::generated::plugin::grpc_broker_server::GrpcBrokerServer;
use crate::generated::plugin::grpc_controller_server::GrpcControllerServer;
use crate::generated::plugin::grpc_stdio_server::GrpcStdioServer;
use crate::handshake::{EnvProblem, HandshakeLine, MultiplexRequest, PluginEnv};
use crate::limits::MAX_HEADER_LIST_BYTES;
use crate::services::{
    Broker, BrokerService, Controller, HealthReporter, HealthService, Means, Stdio, StdioWriter,
};
use crate::transport::{Entrance, Identity, ListenError, Listener, Mux, Place, Tls, certificate_from_pem};
use crate::{AppVersion, AppVersions, MagicCookie, TlsConfig, TlsError};

/// How long running calls may take once the plugin is to end. go-plugin's hosts kill after 2 s: the exit has to come
/// well before.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// How long a host may take to connect where it multiplexes. go-plugin's own plugins end after 5 s, which is less than
/// a host may need that is starting others; this is its start time-out.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);

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
    network: Network,
    tls: Option<TlsConfig>,
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
    fn place(self, env: &PluginEnv) -> Place {
        match self {
            Self::Unix => Place::Unix {
                dir: env.socket_dir.clone().unwrap_or_else(std::env::temp_dir),
                group: env.socket_group.clone(),
            },
            Self::Tcp => Place::Tcp { ports: env.ports.clone() },
        }
    }
}

type Factory = Box<dyn FnOnce(&Context) -> Routes + Send>;

/// What a plugin's services may use of the SDK.
#[derive(Debug, Clone)]
pub struct Context {
    app_version: AppVersion,
    health: HealthReporter,
    stdio: Stdio,
}

/// Why a plugin could not serve.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The magic cookie is missing: a person started the binary by hand.
    #[error("this program is a plugin and is started by its host")]
    NotStartedByHost,
    /// The plugin's author left a half of the cookie empty.
    #[error("the magic cookie of this plugin is empty or cannot be an environment variable")]
    UnusableCookie,
    /// The plugin's author registered no version.
    #[error("this plugin has no application protocol version")]
    NoVersion,
    /// The host asked for something that makes no sense.
    #[error("the host's environment cannot be followed")]
    Environment(#[from] EnvProblem),
    /// No socket.
    #[error(transparent)]
    Listen(#[from] ListenError),
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
    /// The server ended by itself.
    #[error("the gRPC server failed")]
    Server(#[from] tonic::transport::Error),
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
}

impl PluginBuilder {
    /// A plugin that hosts with this cookie can start. It needs at least one [`version`](Self::version).
    #[must_use]
    pub fn new(cookie: MagicCookie) -> Self {
        Self { cookie, versions: BTreeMap::new(), network: Network::default(), tls: None }
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

    /// Adds the services for one application protocol version. Only those of the version that is agreed on with the
    /// host are made: the highest common one, or the lowest here for a host that has none of them.
    #[must_use]
    pub fn version(
        mut self,
        version: impl Into<AppVersion>,
        services: impl FnOnce(&Context) -> Routes + Send + 'static,
    ) -> Self {
        self.versions.insert(version.into(), Box::new(services));
        self
    }

    /// Runs the plugin to its end, for use as the last expression of `main`: installs logging, makes a
    /// single-threaded run time, serves. The exit code is 0 after an orderly end and 1 otherwise, with the reason on
    /// stderr.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let outcome = self.check_cookie().and_then(|()| {
            super::init_logging();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(ServeError::Runtime)?.block_on(self.serve())
        });
        match outcome {
            Ok(()) => return ExitCode::SUCCESS,
            Err(ServeError::NotStartedByHost) => {
                let _ = io::stderr().write_all(NOT_BY_HAND.as_bytes());
            }
            Err(error) => {
                super::init_logging();
                tracing::error!("{}", crate::one_line(&error));
            }
        }
        ExitCode::FAILURE
    }

    /// Serves until the host asks for the end, has gone, or sends SIGTERM, then drains and returns. SIGINT is taken
    /// and ignored: on Ctrl-C the host decides when its plugins end.
    ///
    /// For plugins with a run time and logging of their own. To be called once in a process, and before
    /// anything is printed to stdout, which is captured.
    ///
    /// # Errors
    /// Whatever keeps it from serving. Exit with a code other than 0 then, so that the host sees it.
    pub async fn serve(self) -> Result<(), ServeError> {
        self.check_cookie()?;
        let host = HostWatch::new();
        let env = PluginEnv::read(|name| std::env::var_os(name))?;
        for entry in &env.version_junk {
            tracing::warn!(entry, "the host's version list has an entry that is no number");
        }
        let own: AppVersions = self.versions.keys().copied().collect();
        let app_version = own.negotiate(&env.app_versions).ok_or(ServeError::NoVersion)?;
        let (tls, server_cert) = secure(self.tls.as_ref(), env.client_cert.as_deref())?;
        let place = self.network.place(&env);
        let listener = place.bind().await?;
        let multiplexing = env.multiplexing == MultiplexRequest::Wanted;

        let stop = CancellationToken::new();
        let last_words = CancellationToken::new();
        let stdio = Stdio::new(last_words.clone());
        let context = Context { app_version, health: HealthReporter::new(), stdio };
        let services = self.versions.into_iter().find(|(version, _)| *version == app_version);
        let routes = services.map(|(_, make)| make(&context)).ok_or(ServeError::NoVersion)?;
        let health = HealthService::new(&context.health, last_words.clone());
        let signals = Signals::install().map_err(ServeError::Signals)?;

        announce(&HandshakeLine {
            app_version,
            address: listener.address(),
            server_cert,
            broker_mux: (env.multiplexing != MultiplexRequest::Unknown).then_some(multiplexing),
        })
        .map_err(ServeError::Stdout)?;
        let capture = Capture::start(context.stdout()).map_err(ServeError::Stdout)?;

        let (entrance, incoming) = Entrance::new(tls.clone());
        let hosts = Hosts { place, tls, last_words: last_words.clone() };
        if multiplexing {
            tokio::spawn(stop.clone().run_until_cancelled_owned(hosts.multiplex(
                listener,
                entrance,
                stop.clone(),
            )));
        } else {
            entrance.accept_from(listener, stop.clone(), move || Some(hosts.broker(None)));
        }
        let server = Server::builder()
            .http2_max_header_list_size(MAX_HEADER_LIST_BYTES)
            .add_routes(routes)
            .add_service(health.into_server())
            .add_service(GrpcBrokerServer::new(BrokerService))
            .add_service(GrpcControllerServer::new(Controller(stop.clone())))
            .add_service(GrpcStdioServer::new(context.stdio.clone()))
            .serve_with_incoming_shutdown(incoming, stop.cancelled());
        let watch = signals.watch(host, stop.clone());
        let drain = async {
            stop.cancelled().await;
            capture.finish().await;
            last_words.cancel();
            tokio::time::sleep(DRAIN_LIMIT).await;
        };
        tokio::select! {
            served = server => served?,
            () = async { tokio::join!(watch, drain); } => {
                tracing::warn!(limit = ?DRAIN_LIMIT, "calls that took too long were broken off");
            }
        }
        Ok(())
    }

    fn check_cookie(&self) -> Result<(), ServeError> {
        if !self.cookie.is_usable() {
            return Err(ServeError::UnusableCookie);
        }
        match std::env::var_os(self.cookie.key()) {
            Some(value) if value == self.cookie.value() => Ok(()),
            _ => Err(ServeError::NotStartedByHost),
        }
    }
}

impl fmt::Debug for PluginBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let versions: Vec<_> = self.versions.keys().collect();
        f.debug_struct("PluginBuilder").field("cookie", &self.cookie).field("versions", &versions).finish()
    }
}

/// TLS as the plugin's author has configured it, or else AutoMTLS if the host asks for it, with the certificate to
/// announce.
fn secure(
    own: Option<&TlsConfig>,
    client_cert: Option<&str>,
) -> Result<(Option<Tls>, Option<CertificateDer<'static>>), ServeError> {
    match (own, client_cert) {
        (Some(config), _) => Ok((Some(config.tls()), None)),
        (None, None) => Ok((None, None)),
        (None, Some(pem)) => {
            let identity = Identity::generate()?;
            let tls = Tls::pinned(&identity, certificate_from_pem(pem)?)?;
            Ok((Some(tls), Some(identity.certificate().clone())))
        }
    }
}

/// What connections of hosts have in common.
struct Hosts {
    place: Place,
    tls: Option<Tls>,
    last_words: CancellationToken,
}

impl Hosts {
    /// A broker for one host, which ends when the plugin does.
    fn broker(&self, mux: Option<Mux>) -> Broker {
        Broker::new(Means { place: self.place.clone(), tls: self.tls.clone(), mux }, &self.last_words)
    }

    /// Takes one connection, the only one there will be, and lets its streams in. The plugin ends with it.
    async fn multiplex(self, listener: Listener, entrance: Entrance, stop: CancellationToken) {
        let _stop = stop.drop_guard();
        let Ok(Ok(stream)) = tokio::time::timeout(CONNECT_LIMIT, listener.accept()).await else {
            return tracing::error!(limit = ?CONNECT_LIMIT, "no host has connected");
        };
        drop(listener);
        let (mux, mut streams) = Mux::server(stream);
        let broker = self.broker(Some(mux));
        while let Some(stream) = streams.recv().await {
            // A stream that nobody knocked for is a connection of the host itself.
            if let Some(stream) = broker.route(stream) {
                entrance.admit(stream, Some(broker.clone()));
            }
        }
    }
}

/// What a person reads who starts a plugin by hand.
const NOT_BY_HAND: &str = "\
This program is a plugin. It is not meant to be started by hand:
its host starts it and talks to it over a socket.
Start the host instead, and give it the path of this file.
";

fn announce(line: &HandshakeLine) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(format!("{line}\n").as_bytes())?;
    stdout.flush()
}

/// Handlers for the signals that a plugin has to survive.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn install() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Cancels `stop` at the first reason to end.
    async fn watch(mut self, host: HostWatch, stop: CancellationToken) {
        let mut host_gone = std::pin::pin!(host.gone());
        let mut interrupts = 0;
        loop {
            tokio::select! {
                Some(()) = self.interrupt.recv() => {
                    interrupts += 1;
                    tracing::trace!(interrupts, "SIGINT is left to the host");
                }
                _ = self.terminate.recv() => break tracing::debug!("SIGTERM"),
                () = &mut host_gone => break tracing::debug!("the host has gone"),
                () = stop.cancelled() => break,
            }
        }
        stop.cancel();
    }
}
