//! The host's end: a private directory for sockets, and connecting to what a plugin announced.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixStream};
use tower::Service;

use super::Stream;
use crate::PluginAddress;

/// Longest path of a Unix socket, without the NUL that ends it: 107 bytes on Linux, 103 on macOS and the BSDs.
const MAX_SOCKET_PATH_BYTES: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// What a plugin adds to the directory's path. go-plugin's names are `plugin` and up to ten digits, after a slash.
const LONGEST_SOCKET_NAME_BYTES: usize = "/plugin".len() + 20;

/// Characters of the random part of the directory's name.
const RANDOM_CHARACTERS: usize = 8;

/// Makes the private directory for one plugin's sockets.
#[derive(Debug)]
pub(crate) struct SocketDir;

impl SocketDir {
    /// A new directory that only this user can enter, in the first of the runtime directory, the temporary directory
    /// and `/tmp` whose path is short enough for a socket in it.
    pub(crate) fn create() -> io::Result<TempDir> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_dir());
        Self::create_in(runtime.into_iter().chain([std::env::temp_dir(), PathBuf::from("/tmp")]))
    }

    fn create_in(candidates: impl IntoIterator<Item = PathBuf>) -> io::Result<TempDir> {
        use std::os::unix::fs::PermissionsExt;

        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        for parent in candidates.into_iter().filter(|parent| fits(parent)) {
            let private = std::fs::Permissions::from_mode(0o700);
            let made = tempfile::Builder::new()
                .prefix("plugin-")
                .rand_bytes(RANDOM_CHARACTERS)
                .permissions(private)
                .tempdir_in(parent);
            match made {
                Ok(dir) => return Ok(dir),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

fn fits(parent: &Path) -> bool {
    let directory = "/plugin-".len() + RANDOM_CHARACTERS;
    parent.is_absolute()
        && parent.as_os_str().len() + directory + LONGEST_SOCKET_NAME_BYTES <= MAX_SOCKET_PATH_BYTES
}

/// Opens a connection to one address, each time it is called.
#[derive(Debug, Clone)]
pub(crate) struct Connector(pub(crate) PluginAddress);

impl Connector {
    async fn connect(address: PluginAddress) -> io::Result<Stream> {
        match address {
            PluginAddress::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
            PluginAddress::Abstract(name) => {
                UnixStream::connect(abstract_path(&name)).await.map(Stream::Unix)
            }
            PluginAddress::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), port)).await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
        }
    }
}

/// tokio, like the standard library, takes a path that begins with a NUL byte as a name in the abstract name space.
fn abstract_path(name: &str) -> PathBuf {
    PathBuf::from(format!("\0{name}"))
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let address = self.0.clone();
        Box::pin(async move { Self::connect(address).await.map(TokioIo::new) })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_parent_that_is_too_long_or_missing_is_passed_over() {
        let home = tempfile::tempdir().unwrap();
        let long = home.path().join("x".repeat(60));
        std::fs::create_dir(&long).unwrap();
        let dir = SocketDir::create_in([long, "/no/such".into(), home.path().into()]).unwrap();
        assert_eq!(dir.path().parent(), Some(home.path()));
        assert_eq!(dir.path().metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn without_any_place_the_last_failure_is_told() {
        assert!(SocketDir::create_in(["/no/such".into()]).is_err());
        assert!(SocketDir::create_in([]).is_err());
    }
}
