//! go-plugin's test mode: a plugin that hosts reattach to and that manages its own life.

use tokio_util::sync::CancellationToken;

use super::builder::{PluginBuilder, ServeError};
use super::server::{Hosts, PluginServer, ShutdownRpc};
use crate::ReattachConfig;
use crate::transport::Entrance;

pub(super) async fn serve(
    mut builder: PluginBuilder,
    ready: impl FnOnce(ReattachConfig) + Send,
    cancel: CancellationToken,
) -> Result<(), ServeError> {
    let env = PluginBuilder::environment()?;
    let (app_version, services) = builder.choose(&env.app_versions)?;
    let tls = builder.tls.as_ref().map(|config| config.tls());
    let place = builder.network.place(&env);
    let listener = place.bind().await?;
    let server = PluginServer::new(app_version, services, ShutdownRpc::Ends)?;
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
