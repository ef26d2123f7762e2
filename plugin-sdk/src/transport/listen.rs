//! Listening: for a plugin's own server, and for those that either side serves through the broker.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};

use super::{Access, Stream, UnixSocket, tcp};
use crate::{PluginAddress, PortRange};

/// How often a name that is taken is replaced by another.
const ATTEMPTS: u32 = 16;

/// How often, and with what time between, it is tried to listen at a path that somebody has: a service that is restarted finds
/// its former process, which is ending.
const LOOKS: u32 = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// Longest path of a Unix socket, without the NUL that ends it: 107 bytes on Linux, 103 on macOS and the BSDs.
pub(crate) const MAX_SOCKET_PATH_BYTES: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// What is added to a directory: a slash and the longest name of a socket that is made here.
const OWN_NAME_BYTES: usize = "/plugin4294967295".len();

/// Where to listen.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// A socket with a name of its own in this directory, for the members of the group if there is one.
    Unix { dir: PathBuf, group: Option<String> },
    /// Loopback, at a free port of the range, or at any.
    Tcp { ports: Option<PortRange> },
}

/// Where sockets go if no host has named a directory: the temporary directory, or `/tmp` where the path of a socket in it would be
/// too long.
pub(crate) fn own_choice_of_dir() -> PathBuf {
    Some(std::env::temp_dir()).filter(|dir| has_room(dir)).unwrap_or_else(|| PathBuf::from("/tmp"))
}

fn has_room(dir: &Path) -> bool {
    dir.as_os_str().len() + OWN_NAME_BYTES <= MAX_SOCKET_PATH_BYTES
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
    /// Something else has the path, and is not for this program to remove.
    #[error("cannot listen on {}: it is there, and is not a socket", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The operating system refused the path.
    #[error("cannot listen on {}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
    /// The operating system refused the address.
    #[error("cannot listen on {address}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// Its reason.
        source: io::Error,
    },
    /// What systemd passed on is no listening socket.
    #[error("the socket passed on by LISTEN_FDS cannot be used")]
    Inherited(#[source] io::Error),
    /// No port.
    #[error("cannot listen on 127.0.0.1 at any port from {} to {}", ports.min(), ports.max())]
    Tcp {
        /// The ports that were tried.
        ports: PortRange,
        /// What was wrong with the last.
        source: io::Error,
    },
}

/// A bound socket. The file of a Unix socket that was made here is removed with it.
#[derive(Debug)]
pub(crate) struct Listener {
    /// Before the socket, since fields are dropped in this order: a file whose socket is closed looks abandoned, and whoever
    /// replaces it would have its own removed.
    _file: Option<SocketFile>,
    socket: Socket,
    address: PluginAddress,
}

#[derive(Debug)]
enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// A socket that was passed on by systemd, which owns it and its file.
#[derive(Debug)]
pub(crate) enum InheritedSocket {
    Unix(std::os::unix::net::UnixListener),
    Tcp(std::net::TcpListener),
}

impl InheritedSocket {
    /// The first listening socket of `LISTEN_FDS`, if this process was given one. Can be taken once.
    pub(crate) fn take() -> Option<Self> {
        let mut passed = listenfd::ListenFd::from_env();
        // Asked for the wrong kind, it keeps the socket.
        match passed.take_unix_listener(0) {
            Ok(Some(socket)) => Some(Self::Unix(socket)),
            _ => passed.take_tcp_listener(0).ok().flatten().map(Self::Tcp),
        }
    }
}

impl Place {
    /// Who may connect here: with a group, its members, who are other users.
    pub(crate) fn access(&self) -> Access {
        if matches!(self, Self::Unix { group: Some(_), .. }) { Access::Anyone } else { Access::SameUser }
    }

    pub(crate) async fn bind(&self) -> Result<Listener, ListenError> {
        match self {
            Self::Unix { dir, group } => {
                let (socket, file) = bind_unix(dir)?;
                if let Some(group) = group {
                    give_to(group, &file.0)?;
                }
                Ok(Listener::unix(socket, file))
            }
            Self::Tcp { ports } => bind_tcp(ports.as_ref()).await,
        }
    }
}

impl Listener {
    fn unix(socket: UnixListener, file: SocketFile) -> Self {
        Self { address: PluginAddress::Unix(file.0.clone()), socket: Socket::Unix(socket), _file: Some(file) }
    }

    fn tcp(socket: TcpListener, address: SocketAddr) -> Self {
        let address = PluginAddress::Tcp { host: address.ip().to_string(), port: address.port() };
        Self { address, socket: Socket::Tcp(socket), _file: None }
    }

    /// Listens at a path for this user, or for the members of a group as well. A socket that a dead process has left
    /// there is replaced; one of a process that is ending is waited for, a moment.
    pub(crate) async fn at_path(path: &Path, group: Option<&str>) -> Result<Self, ListenError> {
        let refused = |source| ListenError::Path { path: path.to_path_buf(), source };
        if path.as_os_str().len() > MAX_SOCKET_PATH_BYTES {
            return Err(ListenError::PathTooLong { path: path.to_path_buf(), limit: MAX_SOCKET_PATH_BYTES });
        }
        let socket = bind_path(path).await?;
        let file = SocketFile(path.to_path_buf());
        match group {
            Some(group) => give_to(group, path)?,
            None => {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(refused)?
            }
        }
        Ok(Self::unix(socket, file))
    }

    /// Listens at one TCP address.
    pub(crate) async fn at_tcp(address: SocketAddr) -> Result<Self, ListenError> {
        let refused = |source| ListenError::Address { address, source };
        let socket = TcpListener::bind(address).await.map_err(refused)?;
        let address = socket.local_addr().map_err(refused)?;
        Ok(Self::tcp(socket, address))
    }

    /// Listens on what was passed on.
    pub(crate) fn inherited(socket: InheritedSocket) -> Result<Self, ListenError> {
        let listener = match socket {
            InheritedSocket::Unix(socket) => socket.set_nonblocking(true).and_then(|()| {
                let path = socket.local_addr()?.as_pathname().unwrap_or(Path::new("")).to_path_buf();
                let address = PluginAddress::Unix(path);
                Ok(Self { socket: Socket::Unix(UnixListener::from_std(socket)?), address, _file: None })
            }),
            InheritedSocket::Tcp(socket) => socket.set_nonblocking(true).and_then(|()| {
                let address = socket.local_addr()?;
                Ok(Self::tcp(TcpListener::from_std(socket)?, address))
            }),
        };
        listener.map_err(ListenError::Inherited)
    }

    pub(crate) fn address(&self) -> PluginAddress {
        self.address.clone()
    }

    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        match &self.socket {
            Socket::Unix(socket) => UnixSocket::new(socket.accept().await?.0).map(Stream::Unix),
            Socket::Tcp(socket) => {
                let (stream, _) = socket.accept().await?;
                tcp::set_up(&stream)?;
                Ok(Stream::Tcp(stream))
            }
        }
    }
}

/// Binds a path, in place of what a dead process has left there.
async fn bind_path(path: &Path) -> Result<UnixListener, ListenError> {
    let refused = |source| ListenError::Path { path: path.to_path_buf(), source };
    let mut looks = 0;
    loop {
        match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && looks < LOOKS => looks += 1,
            bound => return bound.map_err(refused),
        }
        match Holder::of(path).await {
            Holder::Nobody => {}
            Holder::Dead => match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(refused(error)),
                _ => {}
            },
            Holder::Alive => tokio::time::sleep(BETWEEN_LOOKS).await,
            Holder::Other => return Err(ListenError::NotASocket { path: path.to_path_buf() }),
        }
    }
}

/// Who has a path that is to be listened at.
#[derive(Debug, PartialEq, Eq)]
enum Holder {
    /// It is free again.
    Nobody,
    /// It is a socket that nobody listens on.
    Dead,
    Alive,
    /// It is no socket.
    Other,
}

impl Holder {
    async fn of(path: &Path) -> Self {
        let answer = tokio::net::UnixStream::connect(path).await;
        // Looked at afterwards, so that a socket whose file was removed first, as is done here, is nobody's.
        match std::fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.file_type().is_socket() => Self::Other,
            Ok(_) => match answer {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Self::Dead,
                _ => Self::Alive,
            },
            Err(_) => Self::Nobody,
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

/// Begins anywhere in the range. With the lowest, the port of a plugin that has just ended would be the next one's, and what is
/// still trying to reach the former would get the latter.
async fn bind_tcp(ports: Option<&PortRange>) -> Result<Listener, ListenError> {
    let any = PortRange::new(0, 0).expect("0 is not above 0");
    let ports = ports.unwrap_or(&any);
    let mut failure = io::Error::from(io::ErrorKind::AddrInUse);
    let all = ports.min()..=ports.max();
    let begin = random_number() as usize % all.len();
    for port in all.clone().cycle().skip(begin).take(all.len()) {
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        match bound.and_then(|socket| socket.local_addr().map(|address| (socket, address))) {
            Ok((socket, address)) => return Ok(Listener::tcp(socket, address)),
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

    #[test]
    fn the_longest_directory_has_room_for_the_longest_name() {
        let longest = MAX_SOCKET_PATH_BYTES - OWN_NAME_BYTES;
        for (bytes, expected) in [(longest, true), (longest + 1, false)] {
            assert_eq!(has_room(Path::new(&"x".repeat(bytes))), expected, "{bytes}");
        }
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
    async fn a_socket_of_a_dead_process_is_replaced_and_one_in_use_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listener = Listener::at_path(&path, None).await.unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert!(matches!(Listener::at_path(&path, None).await, Err(ListenError::Path { .. })));
        drop(listener);
        assert!(!path.exists());
        std::fs::write(&path, "not a socket").unwrap();
        assert!(matches!(Listener::at_path(&path, None).await, Err(ListenError::NotASocket { .. })));
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_service_that_is_restarted_waits_for_the_end_of_its_former_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let former = UnixListener::bind(&path).unwrap();
        let ending = async {
            // It has been looked at, and found alive.
            former.accept().await.unwrap();
            drop(former);
        };
        let (listener, ()) = tokio::join!(Listener::at_path(&path, None), ending);
        assert_eq!(listener.unwrap().address(), PluginAddress::Unix(path));
    }

    #[test]
    fn a_listener_that_is_dropped_is_never_taken_for_abandoned() {
        let run_time = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        for round in 0..300 {
            let path = dir.path().join(round.to_string());
            let run_time_of_it = run_time();
            let listener = run_time_of_it.block_on(Listener::at_path(&path, None)).unwrap();
            let (begin, looked) = std::sync::mpsc::channel();
            let looker = std::thread::spawn(move || {
                run_time().block_on(async {
                    loop {
                        match Holder::of(&path).await {
                            Holder::Alive => _ = begin.send(()),
                            holder => return holder,
                        }
                    }
                })
            });
            looked.recv().unwrap();
            drop(listener);
            assert_eq!(looker.join().unwrap(), Holder::Nobody, "in round {round}");
        }
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
