//! Which host, and the way to it.

use std::path::PathBuf;
use std::time::Duration;

use plugin_sdk::control::{self, HostSocket, PluginControlClient};
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use super::args::Place;
use super::failure::OperateError;
use crate::escape::escaped;

pub(super) type Client = PluginControlClient<Channel>;

/// Connects to the host that is meant.
pub(super) async fn connect(place: &Place) -> Result<Client, OperateError> {
    let socket = match &place.socket {
        Some(socket) => socket.clone(),
        None => {
            let all = place.runtime_dir.as_deref().map_or_else(control::sockets, control::sockets_in);
            find(place.host.as_deref(), all.map_err(OperateError::Search)?)?
        }
    };
    Ok(control::connect(&socket).await?)
}

/// How long a host may take for what it knows already. One that stands still would never answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The answer to a call that has nothing to wait for.
pub(super) async fn answer<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, OperateError> {
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, call).await;
    Ok(answer.map_err(|_| OperateError::Silent(ANSWER_TIMEOUT))??.into_inner())
}

/// The next message of a stream; of one that follows it may come at any time.
pub(super) async fn next<T>(stream: &mut Streaming<T>, follow: bool) -> Result<Option<T>, OperateError> {
    if follow {
        return Ok(stream.message().await?);
    }
    let message = tokio::time::timeout(ANSWER_TIMEOUT, stream.message()).await;
    Ok(message.map_err(|_| OperateError::Silent(ANSWER_TIMEOUT))??)
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
