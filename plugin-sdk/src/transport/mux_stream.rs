//! A stream of a yamux session, and how it ends: only once the peer has ended its side too.
//!
//! Who closes the connection right after its own end of the last stream leaves the peer writing its end into nothing.
//! HashiCorp's yamux logs that as an error (`Failed to write header: broken pipe`), and go-plugin's hosts show it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_yamux::StreamHandle;

/// How long the peer may take to end its side. It should be less than a plugin gives its running calls, lest they be blamed.
const LINGER_LIMIT: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct MuxStream {
    handle: StreamHandle,
    /// Our side has ended; this is how long the peer still has.
    lingering: Option<Pin<Box<Sleep>>>,
}

impl MuxStream {
    pub(super) fn new(handle: StreamHandle) -> Self {
        Self { handle, lingering: None }
    }

    /// Reads, and forgets what it reads, until there is no more.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut scratch = [0; 1024];
        loop {
            let mut unread = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut self.handle).poll_read(cx, &mut unread))?;
            if unread.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncRead for MuxStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.handle).poll_read(cx, buf)
    }
}

impl AsyncWrite for MuxStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.handle).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.handle).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.handle).poll_shutdown(cx))?;
            self.lingering = Some(Box::pin(tokio::time::sleep(LINGER_LIMIT)));
        }
        // An error is an end as well.
        if self.poll_end(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        self.lingering.as_mut().map_or(Poll::Ready(Ok(())), |limit| limit.as_mut().poll(cx).map(Ok))
    }
}
