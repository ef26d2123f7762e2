//! Connecting: to what a plugin announced, and to what either side serves through the broker.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::Service;

use super::{Stream, Tls, UnixSocket, tcp};
use crate::PluginAddress;
use crate::limits::{CONNECTION_WINDOW_BYTES, MAX_HEADER_LIST_BYTES};
use crate::services::BrokerError;

/// Between two attempts to connect to a socket whose queue is full.
const FIRST_NAP: Duration = Duration::from_millis(1);
const LONGEST_NAP: Duration = Duration::from_millis(50);

/// Opens a raw connection. How long that may take is the caller's to limit.
pub(crate) async fn connect(address: &PluginAddress) -> io::Result<Stream> {
    match address {
        PluginAddress::Unix(path) => unix(path).await,
        PluginAddress::Abstract(name) => unix(&abstract_path(name)).await,
        PluginAddress::Tcp { host, port } => Ok(Stream::Tcp(tcp::connect(host, *port).await?)),
        PluginAddress::Memory => {
            Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "it is in another process"))
        }
    }
}

/// Waits while as many connections as the listener's queue holds wait to be accepted, as a blocking `connect` does. The kernel tells
/// nobody when there is room.
async fn unix(path: &Path) -> io::Result<Stream> {
    let mut nap = FIRST_NAP;
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(nap).await;
                nap = (nap * 2).min(LONGEST_NAP);
            }
            connected => return UnixSocket::new(connected?).map(Stream::Unix),
        }
    }
}

/// tokio, like the standard library, takes a path that begins with a NUL byte as a name in the abstract name space.
fn abstract_path(name: &str) -> PathBuf {
    PathBuf::from(format!("\0{name}"))
}

/// Makes the raw connections of one channel. Asked again for each reconnect.
pub(crate) trait Dial: Clone + Send + Sync + 'static {
    /// Opens one.
    fn dial(&self) -> impl Future<Output = Result<Stream, BrokerError>> + Send;
}

/// To one address.
impl Dial for PluginAddress {
    async fn dial(&self) -> Result<Stream, BrokerError> {
        Ok(connect(self).await?)
    }
}

/// A channel over connections that `dial` makes and `tls`, if there is one, secures. Connects before it returns.
pub(crate) async fn channel(dial: impl Dial, tls: Option<Tls>) -> Result<Channel, tonic::transport::Error> {
    // The authority that gRPC-core servers want to see. The scheme is that of a connection without TLS because ours is
    // none of tonic's business.
    Endpoint::from_static("http://localhost")
        .http2_max_header_list_size(MAX_HEADER_LIST_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        // A connection has to survive any number of calls that were given up; h2 would close it after 1,024.
        .http2_max_local_error_reset_streams(None)
        .connect_with_connector(Connector { dial, tls })
        .await
}

/// tonic's idea of [`Dial`].
#[derive(Debug, Clone)]
struct Connector<D> {
    dial: D,
    tls: Option<Tls>,
}

impl<D: Dial> Service<Uri> for Connector<D> {
    type Response = TokioIo<Stream>;
    type Error = BrokerError;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Stream>, BrokerError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BrokerError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let Self { dial, tls } = self.clone();
        Box::pin(async move {
            let stream = dial.dial().await?;
            let stream = match tls {
                Some(tls) => tls.connect(stream).await?,
                None => stream,
            };
            Ok(TokioIo::new(stream))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net;
    use std::pin::pin;

    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

    use super::super::Place;
    use super::*;

    #[tokio::test]
    async fn whoever_connects_waits_for_room_in_a_full_queue() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = net::UnixListener::bind(&path).unwrap();
        // Again, for the shortest queue there is.
        rustix::net::listen(&listener, 0).unwrap();
        let address = SocketAddrUnix::new(&path).unwrap();
        let mut waiting = Vec::new();
        loop {
            let (unix, stream) = (AddressFamily::UNIX, SocketType::STREAM);
            let socket = rustix::net::socket_with(unix, stream, SocketFlags::NONBLOCK, None).unwrap();
            match rustix::net::connect(&socket, &address) {
                Ok(()) => waiting.push(socket),
                Err(error) => break assert_eq!(error, rustix::io::Errno::AGAIN),
            }
        }
        let address = PluginAddress::Unix(path);
        let mut connecting = pin!(connect(&address));
        let early = tokio::time::timeout(LONGEST_NAP, &mut connecting).await;
        assert!(early.is_err(), "there is no room: {early:?}");
        let _accepted: Vec<_> = waiting.iter().map(|_| listener.accept().unwrap()).collect();
        let connected = tokio::time::timeout(Duration::from_secs(20), connecting).await;
        connected.expect("there is room").unwrap();
    }

    #[tokio::test]
    async fn both_ends_of_a_tcp_connection_notice_when_the_other_machine_is_gone() {
        let listener = Place::Tcp { ports: None }.bind().await.unwrap();
        let address = listener.address();
        let (far, near) = tokio::join!(listener.accept(), connect(&address));
        for stream in [far.unwrap(), near.unwrap()] {
            let Stream::Tcp(stream) = stream else { panic!("{stream:?}") };
            assert!(stream.nodelay().unwrap());
            assert!(rustix::net::sockopt::socket_keepalive(&stream).unwrap());
            let idle = rustix::net::sockopt::tcp_keepidle(&stream).unwrap();
            assert!(idle <= Duration::from_secs(60), "{idle:?}, and the system's own is two hours");
        }
    }
}
