//! Where hosts are to be found.

use std::io;
use std::path::{Path, PathBuf};

use crate::runtime::{HostEntry, hosts, hosts_in};

/// The name of a control socket in its host's runtime directory.
pub(crate) const SOCKET_NAME: &str = "control";

/// A running host of this user that has a control socket.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostSocket {
    /// Its process.
    pub pid: u32,
    /// The name of its program's file; empty if it is not known.
    pub name: String,
    /// The socket, for [`connect`](super::connect).
    pub path: PathBuf,
}

/// Every running host of this user that has a control socket where
/// [`ControlServer::start`](crate::host::ControlServer::start) puts it, ordered by process id. They are found as
/// [`host::runtime::hosts`](crate::host::runtime::hosts) finds them.
///
/// # Errors
/// A directory that is this user's and cannot be read.
pub fn sockets() -> io::Result<Vec<HostSocket>> {
    Ok(sockets_of(hosts()?))
}

/// The same, of those hosts alone that have their directories in `dir`, such as `/run/user/1000/plugin-hosts`.
///
/// # Errors
/// If the directory is there and cannot be read.
pub fn sockets_in(dir: &Path) -> io::Result<Vec<HostSocket>> {
    Ok(sockets_of(hosts_in(dir)?))
}

fn sockets_of(mut hosts: Vec<HostEntry>) -> Vec<HostSocket> {
    hosts.sort_by_key(|host| host.pid);
    let alive = hosts.into_iter().filter(|host| host.alive);
    let sockets =
        alive.map(|host| HostSocket { path: host.dir.join(SOCKET_NAME), pid: host.pid, name: host.name });
    sockets.filter(|socket| socket.path.exists()).collect()
}
