//! Multiplexing: yamux on the one connection between host and plugin, every gRPC connection a stream of it.
//!
//! Which stream is which is agreed on beforehand, over the broker's stream (see `services/broker.rs`): streams
//! carry no name. So nobody may open one while another is being agreed on, and [`Mux::dial`] is the only way to.

use std::fmt;
use std::io;
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc};
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tokio_yamux::{Config, Control, Session};

use super::Stream;
use super::mux_stream::MuxStream;

/// A yamux session and the right to open streams on it. The session ends with its connection or when the token is
/// cancelled.
#[derive(Clone)]
pub(crate) struct Mux {
    /// Held from before a stream is agreed on until it is opened.
    dialling: Arc<Mutex<Control>>,
    closed: CancellationToken,
}

impl fmt::Debug for Mux {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mux").field("closed", &self.closed.is_cancelled()).finish_non_exhaustive()
    }
}

impl Mux {
    /// Speaks yamux as the host does, whose streams have odd numbers.
    pub(crate) fn client(stream: Stream) -> (Self, mpsc::Receiver<Stream>) {
        Self::run(Session::new_client(stream, Config::default()))
    }

    /// Speaks yamux as the plugin does.
    pub(crate) fn server(stream: Stream) -> (Self, mpsc::Receiver<Stream>) {
        Self::run(Session::new_server(stream, Config::default()))
    }

    fn run(mut session: Session<Stream>) -> (Self, mpsc::Receiver<Stream>) {
        let closed = CancellationToken::new();
        let (inbound, streams) = mpsc::channel(Config::default().accept_backlog);
        let mux = Self { dialling: Arc::new(Mutex::new(session.control())), closed: closed.clone() };
        tokio::spawn(async move {
            let guard = closed.clone().drop_guard();
            // The session answers pings and moves data only while it is polled.
            while let Some(Some(Ok(stream))) = closed.run_until_cancelled(session.next()).await {
                if inbound.try_send(Stream::Mux(MuxStream::new(stream))).is_err() {
                    tracing::warn!("a stream was refused: too many are waiting");
                }
            }
            drop(guard);
        });
        (mux, streams)
    }

    /// Opens a stream, after `agree` has agreed with the peer on what it is for.
    ///
    /// Once that has begun it goes on though this is dropped, and the stream, which nobody wants, is closed: the peer would
    /// take the next one for it.
    pub(crate) async fn dial<E: From<io::Error> + Send + 'static>(
        &self,
        agree: impl Future<Output = Result<(), E>> + Send + 'static,
    ) -> Result<Stream, E> {
        let mut control = Arc::clone(&self.dialling).lock_owned().await;
        let opening = tokio::spawn(async move {
            agree.await?;
            let opened = control.open_stream().await.map_err(io::Error::other)?;
            Ok(Stream::Mux(MuxStream::new(opened)))
        });
        opening.await.map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio::sync::oneshot;

    use super::*;
    use crate::transport::UnixSocket;

    #[tokio::test]
    async fn a_dial_that_is_dropped_leaves_the_next_one_its_own_stream() {
        let (near, far) = UnixStream::pair().unwrap();
        let stream = |socket| Stream::Unix(UnixSocket::new(socket).unwrap());
        let (host, _none) = Mux::client(stream(near));
        let (_plugin, mut streams) = Mux::server(stream(far));

        let (ask, mut asked) = oneshot::channel();
        let (agree, agreed) = oneshot::channel();
        let dropped = host.dial::<io::Error>(async {
            let _ = ask.send(());
            let _ = agreed.await;
            Ok(())
        });
        tokio::select! {
            _ = &mut asked => {}
            _ = dropped => panic!("nothing was agreed on"),
        }
        // Now the peer takes the next stream for the first.
        let _ = agree.send(());
        let mut next = host.dial::<io::Error>(std::future::ready(Ok(()))).await.unwrap();
        next.write_all(b"next").await.unwrap();
        next.flush().await.unwrap();
        let mut said = [0; 4];
        // Closed or reset, and empty.
        assert_eq!(streams.recv().await.unwrap().read(&mut said).await.unwrap_or(0), 0);
        streams.recv().await.unwrap().read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"next");
    }
}
