//! The gRPC server of a plugin, however its connections come about: the application's services and the SDK's own, until
//! there is a reason to end, and then a drain with a limit.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::builder::{Chosen, Context, ServeError};
use super::closing::Closing;
use super::reflection::Services;
use crate::generated::plugin::grpc_broker_server::GrpcBrokerServer;
use crate::generated::plugin::grpc_controller_server::GrpcControllerServer;
use crate::generated::plugin::grpc_stdio_server::GrpcStdioServer;
use crate::services::{
    Broker, BrokerService, Controller, HealthReporter, HealthService, Means, Stdio, server,
};
use crate::transport::{Incoming, Mux, Place, Tls, Translation};

/// How long running calls may take once the plugin is to end, unless its author knows better. go-plugin's hosts kill after
/// 2 s: the exit has to come well before.
pub(super) const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// What a host's `Shutdown` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ShutdownRpc {
    /// Ends the plugin.
    Ends,
    /// Is refused: the plugin belongs to somebody else.
    Refused,
}

/// A server that is ready for connections.
pub(super) struct PluginServer {
    /// Cancelled when it is time to end.
    pub(super) stop: CancellationToken,
    /// Cancelled when streams that never end by themselves have to.
    pub(super) last_words: CancellationToken,
    context: Context,
    routes: Routes,
    shutdown: ShutdownRpc,
    drain_limit: Duration,
}

/// What there is of a server before the application's code has run.
pub(super) struct Prepared {
    pub(super) context: Context,
    services: Services,
    stop: CancellationToken,
    last_words: CancellationToken,
    drain_limit: Duration,
}

impl Prepared {
    pub(super) fn new(chosen: Chosen) -> Self {
        let Chosen { app_version, services, drain_limit } = chosen;
        let (stop, last_words) = (CancellationToken::new(), CancellationToken::new());
        let (stdio, closing) = (Stdio::new(last_words.clone()), Closing::new(&stop));
        let context = Context { app_version, health: HealthReporter::new(), stdio, closing };
        Self { context, services, stop, last_words, drain_limit }
    }

    /// Has the application make its services.
    pub(super) async fn server(self, shutdown: ShutdownRpc) -> Result<PluginServer, ServeError> {
        let Self { context, services, stop, last_words, drain_limit } = self;
        let routes = services.routes(&context).await?;
        Ok(PluginServer { stop, last_words, context, routes, shutdown, drain_limit })
    }
}

impl PluginServer {
    pub(super) async fn new(chosen: Chosen, shutdown: ShutdownRpc) -> Result<Self, ServeError> {
        Prepared::new(chosen).server(shutdown).await
    }

    /// Serves until `ended`, or until a host asks for the end; then has `flush` done, ends all streams of the SDK, and
    /// gives calls that are running some time.
    pub(super) async fn run(
        self,
        incoming: Incoming,
        ended: impl Future<Output = ()>,
        flush: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let Self { stop, last_words, context, routes, shutdown, drain_limit } = self;
        // Inside a test the application's tasks outlive a crash, and have to hear of it as well.
        let _stop = stop.clone().drop_guard();
        let stdio = context.stdio.clone();
        let controller = Controller((shutdown == ShutdownRpc::Ends).then(|| stop.clone()));
        let server = server()
            .add_routes(routes)
            .add_service(HealthService::new(&context.health, last_words.clone()).into_server())
            .add_service(GrpcBrokerServer::new(BrokerService))
            .add_service(GrpcControllerServer::new(controller))
            .add_service(GrpcStdioServer::new(context.stdio))
            .serve_with_incoming_shutdown(incoming, stop.cancelled());
        let drain = async {
            stop.run_until_cancelled(ended).await;
            stop.cancel();
            flush.await;
            last_words.cancel();
            tokio::time::sleep(drain_limit).await;
        };
        tokio::select! {
            served = server => served?,
            () = drain => tracing::warn!(limit = ?drain_limit, "calls that took too long were broken off"),
        }
        stdio.tell_unread();
        Ok(())
    }
}

/// What connections of hosts have in common.
pub(super) struct Hosts {
    pub(super) place: Place,
    pub(super) tls: Option<Tls>,
    pub(super) last_words: CancellationToken,
}

impl Hosts {
    /// A broker for one host, which ends when the plugin does.
    pub(super) fn broker(&self, mux: Option<Mux>) -> Broker {
        let (place, tls) = (self.place.clone(), self.tls.clone());
        Broker::new(Means { place, tls, mux, translation: Translation::default() }, &self.last_words)
    }
}
