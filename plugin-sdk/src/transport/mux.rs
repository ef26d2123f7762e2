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
    pub(crate) async fn dial<E: From<io::Error>>(
        &self,
        agree: impl Future<Output = Result<(), E>>,
    ) -> Result<Stream, E> {
        let mut control = self.dialling.lock().await;
        agree.await?;
        let opened = control.open_stream().await.map_err(io::Error::other)?;
        Ok(Stream::Mux(MuxStream::new(opened)))
    }
}
