//! Streams that a drain does not wait for.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A stream that ends when a token is cancelled.
pub(crate) struct Until<S> {
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    stream: Pin<Box<S>>,
}

impl<S> Until<S> {
    pub(crate) fn new(token: &CancellationToken, stream: S) -> Self {
        Self { cancelled: Box::pin(token.clone().cancelled_owned()), stream: Box::pin(stream) }
    }
}

impl<S: Stream> Stream for Until<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        if self.cancelled.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        self.stream.as_mut().poll_next(cx)
    }
}
