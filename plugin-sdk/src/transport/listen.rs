//! Listening: for a plugin's own server, and for those that either side serves through the broker.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};

use super::Stream;
use crate::{PluginAddress, PortRange};

/// How often a name that is taken is replaced by another.
const ATTEMPTS: u32 = 16;

/// Longest path of a Unix socket, without the NUL that ends it: 107 bytes on Linux, 103 on macOS and the BSDs.
pub(crate) const MAX_SOCKET_PATH_BYTES: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// Where to listen.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// A socket with a name of its own in this directory, for the members of the group if there is one.
    Unix { dir: PathBuf, group: Option<String> },
    /// Loopback, at a free port of the range, or at any.
    Tcp { ports: Option<PortRange> },
}

/// There is no socket to listen on. The host's operator has to mend what it names.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The operating system refused the directory.
    #[error("cannot listen on a socket in {}", dir.display())]
    Unix {
        /// The directory that the host named, or the temporary directory.
        dir: PathBuf,
        /// Its reason.
        source: io::Error,
    },
    /// The path of the socket would be longer than sockets can have.
    #[error("the path {} is longer than {limit} bytes, the most for a socket: choose a shorter directory", path.display())]
    PathTooLong {
        /// What it would be.
        path: PathBuf,
        /// In bytes.
        limit: usize,
    },
    /// The system has no such group.
    #[error("there is no group {0:?}")]
    NoSuchGroup(String),
    /// The socket cannot be given to the group.
    #[error("cannot give the socket to the group {group:?}")]
    Group {
        /// Name or number.
        group: String,
        /// Why not.
        source: io::Error,
    },
    /// No port.
    #[error("cannot listen on 127.0.0.1 at any port from {} to {}", ports.min(), ports.max())]
    Tcp {
        /// The ports that were tried.
        ports: PortRange,
        /// What was wrong with the last.
        source: io::Error,
    },
}

/// A bound socket. A Unix socket's file is removed with it.
#[derive(Debug)]
pub(crate) enum Listener {
    Unix(UnixListener, SocketFile),
    Tcp(TcpListener, SocketAddr),
}

impl Place {
    pub(crate) async fn bind(&self) -> Result<Listener, ListenError> {
        match self {
            Self::Unix { dir, group } => {
                let (socket, file) = bind_unix(dir)?;
                if let Some(group) = group {
                    give_to(group, &file.0)?;
                }
                Ok(Listener::Unix(socket, file))
            }
            Self::Tcp { ports } => bind_tcp(ports.as_ref()).await,
        }
    }
}

impl Listener {
    pub(crate) fn address(&self) -> PluginAddress {
        match self {
            Self::Unix(_, file) => PluginAddress::Unix(file.0.clone()),
            Self::Tcp(_, address) => {
                PluginAddress::Tcp { host: address.ip().to_string(), port: address.port() }
            }
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Unix(socket, _) => socket.accept().await.map(|(stream, _)| Stream::Unix(stream)),
            Self::Tcp(socket, _) => {
                let (stream, _) = socket.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
        }
    }
}

/// The path of a socket; removed with this value.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Binds `plugin<digits>`. go-plugin makes a temporary file, removes it and binds its name; another process can take
/// the name in between.
fn bind_unix(dir: &Path) -> Result<(UnixListener, SocketFile), ListenError> {
    let mut attempt = 0;
    loop {
        let path = dir.join(format!("plugin{}", random_number()));
        if path.as_os_str().len() > MAX_SOCKET_PATH_BYTES {
            return Err(ListenError::PathTooLong { path, limit: MAX_SOCKET_PATH_BYTES });
        }
        match UnixListener::bind(&path) {
            Ok(socket) => return Ok((socket, SocketFile(path))),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempt < ATTEMPTS => attempt += 1,
            Err(source) => return Err(ListenError::Unix { dir: dir.to_path_buf(), source }),
        }
    }
}

async fn bind_tcp(ports: Option<&PortRange>) -> Result<Listener, ListenError> {
    let any = PortRange::new(0, 0).expect("0 is not above 0");
    let ports = ports.unwrap_or(&any);
    let mut failure = io::Error::from(io::ErrorKind::AddrInUse);
    for port in ports.min()..=ports.max() {
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        match bound.and_then(|socket| socket.local_addr().map(|address| (socket, address))) {
            Ok((socket, address)) => return Ok(Listener::Tcp(socket, address)),
            Err(error) => failure = error,
        }
    }
    Err(ListenError::Tcp { ports: ports.clone(), source: failure })
}

/// Lets the members of a group, and only them beside the owner, connect.
fn give_to(group: &str, path: &Path) -> Result<(), ListenError> {
    let id = group_id(group)?;
    let given = chown(path, None, Some(id))
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)));
    given.map_err(|source| ListenError::Group { group: group.to_owned(), source })
}

/// A number as it is, else the group of that name.
pub(crate) fn group_id(group: &str) -> Result<u32, ListenError> {
    if let Ok(id) = group.parse() {
        return Ok(id);
    }
    match nix::unistd::Group::from_name(group) {
        Ok(Some(found)) => Ok(found.gid.as_raw()),
        Ok(None) => Err(ListenError::NoSuchGroup(group.to_owned())),
        Err(error) => Err(ListenError::Group { group: group.to_owned(), source: error.into() }),
    }
}

/// Each `RandomState` has keys of its own, seeded by the operating system.
fn random_number() -> u32 {
    let hash = RandomState::new().hash_one(std::process::id());
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn in_dir(dir: &Path) -> Place {
        Place::Unix { dir: dir.to_path_buf(), group: None }
    }

    fn path(listener: &Listener) -> PathBuf {
        match listener.address() {
            PluginAddress::Unix(path) => path,
            other => panic!("{other} is not a Unix socket"),
        }
    }

    #[tokio::test]
    async fn the_socket_is_there_as_long_as_its_listener() {
        let dir = tempfile::tempdir().unwrap();
        let listener = in_dir(dir.path()).bind().await.unwrap();
        let path = path(&listener);
        let _connection = tokio::net::UnixStream::connect(&path).await.unwrap();
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_directory_that_cannot_hold_a_socket_is_named() {
        let error = in_dir(Path::new("/no/such/directory")).bind().await.unwrap_err();
        assert_eq!(error.to_string(), "cannot listen on a socket in /no/such/directory");
        let long = PathBuf::from("/tmp").join("x".repeat(100));
        assert!(matches!(in_dir(&long).bind().await, Err(ListenError::PathTooLong { limit: 103..=107, .. })));
    }

    #[tokio::test]
    async fn the_socket_belongs_to_the_group() {
        let dir = tempfile::tempdir().unwrap();
        let own = nix::unistd::getgid();
        let name = nix::unistd::Group::from_gid(own).unwrap().unwrap().name;
        for group in [own.to_string(), name] {
            let place = Place::Unix { dir: dir.path().to_path_buf(), group: Some(group) };
            let listener = place.bind().await.unwrap();
            let metadata = path(&listener).metadata().unwrap();
            assert_eq!((metadata.gid(), metadata.mode() & 0o777), (own.as_raw(), 0o660));
        }
        let place = Place::Unix { dir: dir.path().to_path_buf(), group: Some("no-such-group".into()) };
        assert!(matches!(place.bind().await, Err(ListenError::NoSuchGroup(_))));
    }

    #[tokio::test]
    async fn tcp_takes_a_free_port_of_the_range() {
        let any = Place::Tcp { ports: None }.bind().await.unwrap();
        let PluginAddress::Tcp { port, .. } = any.address() else { panic!("not TCP") };
        let taken = Place::Tcp { ports: PortRange::new(port, port) };
        assert!(matches!(taken.bind().await, Err(ListenError::Tcp { .. })));
        drop(any);
        assert_eq!(
            taken.bind().await.unwrap().address(),
            PluginAddress::Tcp { host: "127.0.0.1".into(), port }
        );
    }
}
