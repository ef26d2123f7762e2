//! A plugin as the child of its host: announce, serve, drain.

use std::io;
use std::pin::pin;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::builder::{PluginBuilder, ServeError};
use super::host_watch::HostWatch;
use super::server::{Hosts, Prepared, ShutdownRpc};
use super::stdout::Capture;
use crate::TlsConfig;
use crate::handshake::{HandshakeLine, MultiplexRequest};
use crate::transport::{Entrance, Identity, Listener, Mux, Tls, certificate_from_pem};

/// How long a host may take to connect where it multiplexes. go-plugin's own plugins end after 5 s, which is less than
/// a host may need that is starting others; this is its start time-out.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);

pub(super) async fn serve(mut builder: PluginBuilder) -> Result<(), ServeError> {
    let host = HostWatch::new();
    let env = PluginBuilder::environment()?;
    let host = host.with_lifeline(env.lifeline);
    let chosen = builder.choose(&env.app_versions)?;
    let app_version = chosen.app_version;
    let (tls, server_cert) = secure(builder.tls.as_ref(), env.client_cert.as_deref())?;
    let place = builder.network.place(&env);
    let listener = place.bind().await?;
    let multiplexing = env.multiplexing == MultiplexRequest::Wanted;
    let prepared = Prepared::new(chosen);
    // Before the application's code runs: what it prints must not be taken for the handshake line.
    let mut capture = Capture::start(prepared.context.stdout()).map_err(ServeError::Stdout)?;
    // It may take its time over what it needs, and is not to be waited for in vain.
    let mut ended = pin!(Signals::install().map_err(ServeError::Signals)?.reason_to_end(host));
    let server = tokio::select! {
        server = prepared.server(ShutdownRpc::Ends) => server?,
        () = &mut ended => return Ok(()),
    };

    let line = HandshakeLine {
        app_version,
        address: listener.address(),
        server_cert,
        broker_mux: (env.multiplexing != MultiplexRequest::Unknown).then_some(multiplexing),
    };
    capture.tell_host(&format!("{line}\n")).map_err(ServeError::Stdout)?;

    let (entrance, incoming) = Entrance::new(tls.clone(), place.access());
    let stop = server.stop.clone();
    let hosts = Hosts { place, tls, last_words: server.last_words.clone() };
    if multiplexing {
        tokio::spawn(stop.clone().run_until_cancelled_owned(multiplex(hosts, listener, entrance, stop)));
    } else {
        entrance.accept_from(listener, stop, move || Some(hosts.broker(None)));
    }
    server.run(incoming, ended, capture.finish()).await
}

/// TLS as the plugin's author has configured it, or else AutoMTLS if the host asks for it, with the certificate to
/// announce.
pub(super) fn secure(
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

/// Takes one connection, the only one there will be, and lets its streams in. The plugin ends with it.
async fn multiplex(hosts: Hosts, listener: Listener, entrance: Entrance, stop: CancellationToken) {
    let _stop = stop.drop_guard();
    let Ok(Ok(stream)) = tokio::time::timeout(CONNECT_LIMIT, listener.accept()).await else {
        return tracing::error!(limit = ?CONNECT_LIMIT, "no host has connected");
    };
    drop(listener);
    let (mux, mut streams) = Mux::server(stream);
    let broker = hosts.broker(Some(mux));
    while let Some(stream) = streams.recv().await {
        // A stream that nobody knocked for is a connection of the host itself.
        if let Some(stream) = broker.route(stream) {
            entrance.admit(stream, Some(broker.clone()));
        }
    }
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

    /// Waits for the first reason to end that does not come over gRPC.
    async fn reason_to_end(mut self, host: HostWatch) {
        let mut host_gone = std::pin::pin!(host.gone());
        let mut interrupts = 0;
        loop {
            tokio::select! {
                Some(()) = self.interrupt.recv() => {
                    interrupts += 1;
                    tracing::trace!(interrupts, "SIGINT is left to the host");
                }
                _ = self.terminate.recv() => return tracing::debug!("SIGTERM"),
                () = &mut host_gone => return tracing::debug!("the host has gone"),
            }
        }
    }
}
