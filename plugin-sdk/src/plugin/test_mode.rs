//! go-plugin's test mode: a plugin that hosts reattach to and that manages its own life.

use tokio_util::sync::CancellationToken;

use super::builder::{PluginBuilder, ServeError};
use super::child::secure;
use super::server::{Hosts, PluginServer, ShutdownRpc};
use crate::ReattachConfig;
use crate::transport::Entrance;

pub(super) async fn serve(
    mut builder: PluginBuilder,
    ready: impl FnOnce(ReattachConfig) + Send,
    cancel: CancellationToken,
) -> Result<(), ServeError> {
    let env = PluginBuilder::environment()?;
    let chosen = builder.choose(&env.app_versions)?;
    let app_version = chosen.app_version;
    // A reattach configuration has no room for a certificate, in go-plugin's form of it as well: with AutoMTLS the host that
    // gave its own cannot check the plugin's.
    let (tls, _untold) = secure(builder.tls.as_ref(), env.client_cert.as_deref())?;
    let place = builder.network.place(&env);
    let listener = place.bind().await?;
    let server = PluginServer::new(chosen, ShutdownRpc::Ends);
    let Some(server) = cancel.run_until_cancelled(server).await.transpose()? else { return Ok(()) };
    let config = ReattachConfig {
        app_version: Some(app_version),
        address: listener.address(),
        pid: Some(std::process::id()),
        test: true,
    };
    let (entrance, incoming) = Entrance::new(tls.clone(), place.access());
    let hosts = Hosts { place, tls, last_words: server.last_words.clone() };
    entrance.accept_from(listener, server.stop.clone(), move || Some(hosts.broker(None)));
    ready(config);
    server.run(incoming, cancel.cancelled_owned(), std::future::ready(())).await
}
