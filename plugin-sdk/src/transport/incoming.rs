//! Accepting for a gRPC server: connections that are through with TLS, and who they belong to.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use super::{Listener, Stream, Tls, UnixSocket};
use crate::services::Broker;

/// How long accepting rests after an error, such as no free descriptors, that would come again at once.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// How long a peer may take for its TLS handshake.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that a server can serve.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: Stream,
    /// The broker of this connection, if it can have one: brokered connections have none of their own.
    pub(crate) broker: Option<Broker>,
}

/// What tonic puts into the extensions of each request.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionInfo {
    pub(crate) broker: Option<Broker>,
}

/// Who may connect over a Unix socket, beside what the socket's permissions say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Processes of this user and of root.
    SameUser,
    /// Whoever can open the socket.
    Anyone,
}

impl Access {
    fn admits(self, stream: &Stream) -> bool {
        match stream {
            Stream::Unix(socket) => self.admits_unix(socket),
            _ => true,
        }
    }

    pub(crate) fn admits_unix(self, socket: &UnixSocket) -> bool {
        let uid = socket.peer().uid();
        self == Self::Anyone || uid == 0 || uid == rustix::process::geteuid().as_raw()
    }
}

/// What a server accepts from an [`Entrance`].
pub(crate) type Incoming = ReceiverStream<io::Result<Connection>>;

/// Gives connections to a server: checks who they are in tasks of their own, so that a slow peer holds up nobody.
#[derive(Debug, Clone)]
pub(crate) struct Entrance {
    ready: mpsc::Sender<io::Result<Connection>>,
    tls: Option<Tls>,
    access: Access,
}

impl Entrance {
    pub(crate) fn new(tls: Option<Tls>, access: Access) -> (Self, Incoming) {
        let (ready, incoming) = mpsc::channel(16);
        (Self { ready, tls, access }, ReceiverStream::new(incoming))
    }

    /// Lets a raw connection in, once it is secured.
    pub(crate) fn admit(&self, stream: Stream, broker: Option<Broker>) {
        let Self { ready, tls, .. } = self.clone();
        tokio::spawn(async move {
            let stream = match tls {
                None => stream,
                Some(tls) => match tokio::time::timeout(TLS_TIMEOUT, tls.accept(stream)).await {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => return tracing::warn!(%error, "a connection was refused"),
                    Err(_) => {
                        return tracing::warn!("a connection was refused: its TLS handshake took too long");
                    }
                },
            };
            let _ = ready.send(Ok(Connection { stream, broker })).await;
        });
    }

    /// Accepts from `listener` until `stop`, then closes it. `broker` makes a broker for each connection.
    pub(crate) fn accept_from(
        self,
        listener: Listener,
        stop: CancellationToken,
        broker: impl Fn() -> Option<Broker> + Send + 'static,
    ) {
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            loop {
                tokio::select! {
                    () = self.ready.closed() => return,
                    accepted = listener.accept() => match accepted {
                        Ok(stream) if self.access.admits(&stream) => self.admit(stream, broker()),
                        Ok(_) => tracing::warn!("a connection was refused: its process belongs to another user"),
                        Err(error) => {
                            tracing::warn!(%error, "a connection could not be accepted");
                            tokio::time::sleep(ACCEPT_REST).await;
                        }
                    },
                }
            }
        }));
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        ConnectionInfo { broker: self.broker.clone() }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
