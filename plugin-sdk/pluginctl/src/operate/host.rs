//! Which host, and the way to it.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
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
        all.retain(|host| host.name == wanted || host.pid.to_string() == wanted || directory(host) == wanted);
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

/// Each by name, and in parentheses what tells it from the others: its process, unless that is another's, too, since both are in
/// containers.
fn names(hosts: &[HostSocket]) -> String {
    let is_shared = |pid| hosts.iter().filter(|host| host.pid == pid).count() > 1;
    let apart = |host: &HostSocket| {
        if is_shared(host.pid) { escaped(&directory(host)).to_string() } else { host.pid.to_string() }
    };
    let names = hosts.iter().map(|host| format!("{} ({})", escaped(&host.name), apart(host)));
    names.collect::<Vec<_>>().join(", ")
}

/// The name of its directory, which no other host has.
fn directory(host: &HostSocket) -> Cow<'_, str> {
    host.path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy()
}
