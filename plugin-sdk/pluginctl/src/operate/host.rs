//! Which host, and the way to it.

use std::path::PathBuf;

use plugin_sdk::control::{self, HostSocket, PluginControlClient};
use tonic::transport::Channel;

use super::args::Place;
use super::failure::OperateError;
use crate::escape::escaped;

pub(super) type Client = PluginControlClient<Channel>;

/// Connects to the host that is meant.
pub(super) async fn connect(place: &Place) -> Result<Client, OperateError> {
    let socket = match &place.socket {
        Some(socket) => socket.clone(),
        None => find(place.host.as_deref(), control::sockets().map_err(OperateError::Search)?)?,
    };
    Ok(control::connect(&socket).await?)
}

/// The only one that fits.
fn find(wanted: Option<&str>, mut all: Vec<HostSocket>) -> Result<PathBuf, OperateError> {
    let running = names(&all);
    if let Some(wanted) = wanted {
        all.retain(|host| host.name == wanted || host.pid.to_string() == wanted);
    }
    match (all.as_slice(), wanted) {
        ([only], _) => Ok(only.path.clone()),
        ([], None) => Err(OperateError::NoHost),
        ([], Some(wanted)) if running.is_empty() => {
            Err(OperateError::NoSuchHost { wanted: wanted.to_owned(), running: "none runs".into() })
        }
        ([], Some(wanted)) => Err(OperateError::NoSuchHost {
            wanted: wanted.to_owned(),
            running: format!("there is {running}"),
        }),
        (several, _) => Err(OperateError::SeveralHosts { candidates: names(several) }),
    }
}

fn names(hosts: &[HostSocket]) -> String {
    let names = hosts.iter().map(|host| format!("{} ({})", escaped(&host.name), host.pid));
    names.collect::<Vec<_>>().join(", ")
}
