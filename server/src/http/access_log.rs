//! Around each request: its id, and one line in the log when it is over.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use tracing::{Level, enabled, info};

use super::{
    cache_status,
    front::{AnswerBody, Front},
    request_id,
};
use crate::text::excerpt;

/// Most characters of a path in the log. All paths of ours are shorter.
const PATH_CHARACTERS: usize = 200;

/// Answers a request. No route of ours takes a body, so it is let go of before anything else happens: hyper then
/// takes in what has arrived of it already, and closes the connection after the answer if that was not all.
///
/// Not an `async fn`, so that the body is gone before hyper looks at its connection again.
pub(super) fn handle<B>(
    front: &Front,
    request: Request<B>,
) -> impl Future<Output = Response<AnswerBody>> + Send + use<'_, B> {
    let (head, body) = request.into_parts();
    drop(body);
    async move {
        let id = request_id::of(&head.headers);
        let line = enabled!(Level::INFO).then(|| Line::start(&head.method, &head.uri, &id));
        let mut response = front.answer(head).await;
        response.headers_mut().insert(request_id::NAME, id);
        if let Some(line) = line {
            line.finish(response.status(), response.headers());
        }
        response
    }
}

/// The line to be. If it is dropped unfinished, the client has gone, or the server is stopping at once.
struct Line {
    started: Instant,
    method: Method,
    uri: Uri,
    id: HeaderValue,
    finished: bool,
}

impl Line {
    fn start(method: &Method, uri: &Uri, id: &HeaderValue) -> Self {
        Self {
            started: Instant::now(),
            method: method.clone(),
            uri: uri.clone(),
            id: id.clone(),
            finished: false,
        }
    }

    fn finish(mut self, status: StatusCode, headers: &HeaderMap) {
        self.finished = true;
        info!(
            method = %self.method,
            path = %excerpt(self.uri.path(), PATH_CHARACTERS),
            status = status.as_u16(),
            duration_ms = milliseconds(self.started.elapsed()),
            cache = headers.get(cache_status::NAME).and_then(|value| value.to_str().ok()),
            request_id = self.id.to_str().unwrap_or_default(),
            "request completed"
        );
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.finished {
            info!(
                method = %self.method,
                path = %excerpt(self.uri.path(), PATH_CHARACTERS),
                duration_ms = milliseconds(self.started.elapsed()),
                request_id = self.id.to_str().unwrap_or_default(),
                "request abandoned"
            );
        }
    }
}

/// With three decimals.
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}
