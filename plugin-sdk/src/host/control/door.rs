//! Who is let in: processes of this user and of root that speak HTTP/2, and not too many of them.

use std::io::{self, Cursor, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Chain, Join, ReadBuf, ReadHalf, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::socket::Socket;
use crate::transport::{Access, Stream, UnixSocket};

/// Connections at once. One more is closed at once.
const MAX_CONNECTIONS: usize = 64;

/// What every HTTP/2 client says first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long it may take to say so. Without a limit, connections that say nothing could take all the places.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long accepting rests after an error, such as no free descriptors, that would come again at once.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// Lets clients in.
pub(super) struct Door {
    socket: Socket,
    places: Arc<Semaphore>,
    ready: mpsc::Sender<io::Result<Visitor>>,
    cut: CancellationToken,
}

/// A door, and those who have come through. The latter are cut off with `cut`.
pub(super) fn open(socket: Socket, cut: CancellationToken) -> (Door, ReceiverStream<io::Result<Visitor>>) {
    let (ready, visitors) = mpsc::channel(1);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    (Door { socket, places, ready, cut }, ReceiverStream::new(visitors))
}

impl Door {
    /// Lets in whoever comes until `stop`, then closes, which removes the socket.
    pub(super) async fn run(mut self, stop: &CancellationToken) {
        let mut coming = JoinSet::new();
        let accepting = async {
            loop {
                match self.socket.accept().await {
                    Ok(Stream::Unix(socket)) => self.look_at(socket, &mut coming),
                    // It listens on nothing else.
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(%error, "a connection to the control socket could not be accepted");
                        tokio::time::sleep(ACCEPT_REST).await;
                    }
                }
                while coming.try_join_next().is_some() {}
            }
        };
        let _stopped = stop.run_until_cancelled(accepting).await;
    }

    fn look_at(&self, socket: UnixSocket, coming: &mut JoinSet<()>) {
        if !Access::SameUser.admits_unix(&socket) {
            let uid = socket.peer().uid();
            return tracing::warn!(uid, "another user was refused at the control socket");
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return tracing::warn!("too many connections to the control socket: one was refused");
        };
        let (ready, cut) = (self.ready.clone(), self.cut.clone());
        coming.spawn(async move {
            match tokio::time::timeout(PREFACE_TIMEOUT, Visitor::enter(socket, place, cut)).await {
                Ok(Ok(visitor)) => _ = ready.send(Ok(visitor)).await,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a connection to the control socket has no use");
                }
                Err(_) => tracing::debug!("a connection to the control socket says nothing"),
            }
        });
    }
}

/// A socket of which something was read that is to be read again.
type Rewound = Join<Chain<Cursor<&'static [u8]>, ReadHalf<UnixSocket>>, WriteHalf<UnixSocket>>;

/// A connection that speaks HTTP/2.
pub(super) struct Visitor {
    stream: Rewound,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: OwnedSemaphorePermit,
}

impl Visitor {
    /// Reads what every client says first, and has it said again to whoever reads next.
    async fn enter(
        socket: UnixSocket,
        place: OwnedSemaphorePermit,
        cut: CancellationToken,
    ) -> io::Result<Self> {
        let (mut reader, writer) = tokio::io::split(socket);
        let mut said = [0; PREFACE.len()];
        let mut length = 0;
        while length < said.len() {
            let more = reader.read(&mut said[length..]).await?;
            length += more;
            if more == 0 || !PREFACE.starts_with(&said[..length]) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not speak HTTP/2"));
            }
        }
        let reader = Cursor::new(PREFACE.as_slice()).chain(reader);
        Ok(Self {
            stream: tokio::io::join(reader, writer),
            cut: Box::pin(cut.cancelled_owned()),
            _place: place,
        })
    }
}

impl Connected for Visitor {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Visitor {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Visitor {
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
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
