//! Connecting: to what a plugin announced, and to what either side serves through the broker.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::{Channel, Endpoint};
use tower::Service;

use super::{Stream, Tls, UnixSocket};
use crate::PluginAddress;
use crate::limits::{CONNECTION_WINDOW_BYTES, MAX_HEADER_LIST_BYTES};
use crate::services::BrokerError;

/// Opens a raw connection.
pub(crate) async fn connect(address: &PluginAddress) -> io::Result<Stream> {
    match address {
        PluginAddress::Unix(path) => unix(UnixStream::connect(path).await?),
        PluginAddress::Abstract(name) => unix(UnixStream::connect(abstract_path(name)).await?),
        PluginAddress::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            Ok(Stream::Tcp(stream))
        }
        PluginAddress::Memory => {
            Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "it is in another process"))
        }
    }
}

fn unix(stream: UnixStream) -> io::Result<Stream> {
    UnixSocket::new(stream).map(Stream::Unix)
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
