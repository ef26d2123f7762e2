//! A plugin as a service of its own, which hosts attach to by address: systemd or a person starts and stops it.

use std::io;
use std::path::Path;
use std::pin::pin;

use tokio::signal::unix::{SignalKind, signal};

use super::arguments::{ListenOn, Service, TlsFiles};
use super::builder::{PluginBuilder, ServeError};
use super::server::{Hosts, PluginServer, ShutdownRpc};
use crate::TlsConfig;
use crate::transport::{Entrance, Listener, Place, own_choice_of_dir};

pub(super) async fn serve(mut builder: PluginBuilder, service: Service) -> Result<(), ServeError> {
    let env = PluginBuilder::environment()?;
    // Nobody negotiates with a service: it serves its highest version, or what the environment asks for.
    let offered = if env.app_versions.is_empty() {
        builder.highest().into_iter().collect()
    } else {
        env.app_versions.clone()
    };
    let chosen = builder.choose(&offered)?;
    let app_version = chosen.app_version;
    let tls = match &service.tls {
        Some(files) => Some(load(files)?),
        None => builder.tls.clone(),
    };
    let tls = tls.map(|config| config.tls());
    // Before there is a socket: who can connect can also send a signal, after which no socket must be left.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let listener = match service.listen_on {
        ListenOn::Unix(path) => Listener::at_path(&path, env.socket_group.as_deref()).await?,
        ListenOn::Tcp(address) if tls.is_none() && !address.ip().is_loopback() => {
            return Err(ServeError::OpenToNetwork(address));
        }
        ListenOn::Tcp(address) => Listener::at_tcp(address).await?,
        ListenOn::Activated(socket) => Listener::inherited(socket)?,
    };
    let mut ended = pin!(async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        notify(&[sd_notify::NotifyState::Stopping]);
    });
    // The application may take its time over what it needs.
    let server = tokio::select! {
        server = PluginServer::new(chosen, ShutdownRpc::Refused) => server?,
        () = &mut ended => return Ok(()),
    };

    tracing::info!(address = %listener.address(), app_version = app_version.get(), "serving");
    let place = Place::Unix { dir: own_choice_of_dir(), group: env.socket_group };
    let (entrance, incoming) = Entrance::new(tls.clone(), place.access());
    let hosts = Hosts { place, tls, last_words: server.last_words.clone() };
    entrance.accept_from(listener, server.stop.clone(), move || Some(hosts.broker(None)));
    notify(&[sd_notify::NotifyState::Ready]);
    server.run(incoming, ended, std::future::ready(())).await
}

/// Tells systemd, if it is there.
fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd could not be notified");
    }
}

fn load(files: &TlsFiles) -> Result<TlsConfig, ServeError> {
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .map_err(|source: io::Error| ServeError::File { path: path.into(), source })
    };
    let config = TlsConfig::from_pem(
        &read(&files.authority)?,
        &read(&files.certificate)?,
        &read(&files.key)?,
        "localhost",
    );
    Ok(config?)
}
