//! The end of a connection when the server is to stop.
//!
//! ```text
//!             no head of a request is whole: closed
//! Draining ──┤
//!             a request is being answered ─┬─ its answer, with `Connection: close` ─┬─▶ waited for, so that the
//!                              Cut ────────┴─ 503, the same ────────────────────────┘   client gets it; closed
//! ```

use std::{
    future::{self, Future},
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::Poll,
    time::Duration,
};

use http::Response;
use http_body_util::Either;
use tokio::{
    io::{self, AsyncRead},
    sync::watch,
    time,
};

use super::{error::ApiError, front::AnswerBody};

/// Time for a client to close after the last answer. It takes a round trip, and clients that take longer may lose the answer.
const LINGER: Duration = Duration::from_millis(500);

/// How far the server's end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// It has not begun.
    Serving,
    /// Requests that are there are answered, and no more are taken.
    Draining,
    /// There is no time to answer them.
    Cut,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Each request that was there has been answered.
    InOrder,
    /// One was refused for want of time.
    Cut,
}

/// What has become of the requests of one connection.
#[derive(Debug, Default)]
pub(super) struct Progress {
    has_asked: AtomicBool,
    no_time: AtomicBool,
    refused: AtomicBool,
}

impl Progress {
    /// The answer to a request of this connection, or a refusal if there is no time to make it. Pinned by the caller, as it is large
    /// and would be there twice.
    pub(super) async fn answer(
        &self,
        mut answer: Pin<&mut impl Future<Output = Response<AnswerBody>>>,
    ) -> Response<AnswerBody> {
        self.has_asked.store(true, Ordering::Relaxed);
        // hyper polls it whenever the connection is polled, so that nobody need be woken.
        future::poll_fn(|cx| match answer.as_mut().poll(cx) {
            Poll::Pending if self.no_time.load(Ordering::Relaxed) => {
                self.refused.store(true, Ordering::Relaxed);
                Poll::Ready(ApiError::Stopping.response().map(Either::Left))
            }
            polled => polled,
        })
        .await
    }

    /// Whether there was a whole head of a request.
    pub(super) fn has_asked(&self) -> bool {
        self.has_asked.load(Ordering::Relaxed)
    }

    /// From now on no request is waited for.
    pub(super) fn cut(&self) {
        self.no_time.store(true, Ordering::Relaxed);
    }

    pub(super) fn ended(&self) -> Ended {
        if self.refused.load(Ordering::Relaxed) { Ended::Cut } else { Ended::InOrder }
    }
}

/// Waits until the end has come so far.
pub(super) async fn reached(phase: &mut watch::Receiver<Phase>, wanted: Phase) {
    // If nobody can tell any more, the server has ended.
    let _ended = phase.wait_for(|phase| *phase >= wanted).await.map(drop);
}

/// Takes in what the client still sends, up to its end. A connection that is closed with something unread is reset, and the
/// client may lose an answer that is on its way.
pub(super) async fn linger(mut stream: impl AsyncRead + Unpin) {
    let _its_end = time::timeout(LINGER, io::copy(&mut stream, &mut io::sink())).await;
}
