//! The plugin's end: a Unix socket with a name that nobody else has.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::net::UnixListener;

use super::Stream;
use crate::PluginAddress;

/// How often a name that is taken is replaced by another.
const ATTEMPTS: u32 = 16;

/// A plugin could not make its socket. The host's operator has to mend the directory.
#[derive(Debug, Error)]
#[error("cannot listen on a socket in {}", dir.display())]
pub struct ListenError {
    /// The directory that the host named, or the temporary directory.
    pub dir: PathBuf,
    /// What the operating system said.
    pub source: io::Error,
}

/// A bound socket. Its file is removed with it.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Binds `plugin<digits>` in `dir`.
    pub(crate) fn bind_in(dir: &Path) -> Result<Self, ListenError> {
        let mut attempt = 0;
        loop {
            let path = dir.join(format!("plugin{}", random_number()));
            match UnixListener::bind(&path) {
                Ok(socket) => return Ok(Self { socket, path }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempt < ATTEMPTS => attempt += 1,
                Err(source) => return Err(ListenError { dir: dir.to_path_buf(), source }),
            }
        }
    }

    pub(crate) fn address(&self) -> PluginAddress {
        PluginAddress::Unix(self.path.clone())
    }

    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        self.socket.accept().await.map(|(stream, _)| Stream::Unix(stream))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Each `RandomState` has keys of its own, seeded by the operating system.
fn random_number() -> u32 {
    let hash = RandomState::new().hash_one(std::process::id());
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_there_as_long_as_its_listener() {
        let dir = tempfile::tempdir().unwrap();
        let listener = Listener::bind_in(dir.path()).unwrap();
        let PluginAddress::Unix(path) = listener.address() else { panic!("not a Unix socket") };
        let _connection = tokio::net::UnixStream::connect(&path).await.unwrap();
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_directory_that_cannot_hold_a_socket_is_named() {
        let error = Listener::bind_in(Path::new("/no/such/directory")).unwrap_err();
        assert_eq!(error.to_string(), "cannot listen on a socket in /no/such/directory");
    }
}
