//! What a plugin writes to, wherever it comes from.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

/// The reading end of a plugin's stdout or stderr.
pub(super) struct Pipe(Pin<Box<dyn AsyncRead + Send>>);

impl Pipe {
    pub(super) fn new(source: impl AsyncRead + Send + 'static) -> Self {
        Self(Box::pin(source))
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_read(cx, buffer)
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pipe")
    }
}
