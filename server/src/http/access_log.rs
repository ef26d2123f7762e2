//! Around each request: its id, and one line in the log when it is over.

use std::{
    future::Future,
    pin::pin,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use tracing::{Level, enabled, info};

use super::{
    cache_status,
    drain::Progress,
    front::{AnswerBody, Front},
    request_id,
};
use crate::text::excerpt;

/// Most characters of a path in the log. All paths of ours are shorter.
const PATH_CHARACTERS: usize = 200;

/// More than any method has that is used.
const METHOD_CHARACTERS: usize = 20;

/// Answers a request. No route of ours takes a body, so it is let go of before anything else happens: hyper then
/// takes in what has arrived of it already, and closes the connection after the answer if that was not all.
///
/// Not an `async fn`, so that the body, and for numbers the head, are gone before hyper looks at its connection again: it reads
/// the next head into the same buffer if nobody has a part of the last one.
pub(super) fn handle<'a, B>(
    front: &'a Front,
    progress: &'a Progress,
    request: Request<B>,
) -> impl Future<Output = Response<AnswerBody>> + Send + use<'a, B> {
    let (head, body) = request.into_parts();
    drop(body);
    let id = request_id::of(&head.headers);
    let line = enabled!(Level::INFO).then(|| Line::start(&head.method, &head.uri, &id));
    let wanted = front.wanted(head);
    async move {
        let mut response = progress.answer(pin!(front.answer(wanted))).await;
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
    method: String,
    /// No longer than is logged. It is not the URI itself, of which hyper's buffer would be a part.
    path: String,
    id: HeaderValue,
    finished: bool,
}

impl Line {
    fn start(method: &Method, uri: &Uri, id: &HeaderValue) -> Self {
        Self {
            started: Instant::now(),
            method: excerpt(method.as_str(), METHOD_CHARACTERS).to_string(),
            path: excerpt(uri.path(), PATH_CHARACTERS).to_string(),
            id: id.clone(),
            finished: false,
        }
    }

    fn finish(mut self, status: StatusCode, headers: &HeaderMap) {
        self.finished = true;
        info!(
            method = %self.method,
            path = %self.path,
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
                path = %self.path,
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

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use axum::body::Bytes;
    use plugin_testkit::Logged;

    use super::{super::App, *};
    use crate::{
        cache::Cache,
        compute::{Flights, Pool, Refill},
        config::ComputeConfig,
        fib::Algorithm,
    };

    fn front() -> Front {
        let compute = ComputeConfig {
            algorithm: Algorithm::Doubling,
            max_n: 93,
            timeout: Duration::from_secs(1),
            threads: NonZeroUsize::MIN,
        };
        let refill = Refill::new(Pool::new(&compute), Cache::NoOp);
        let flights = Flights::new(refill, compute.timeout).into();
        Front::new(App { max_n: compute.max_n, cache: Cache::NoOp, flights, plugin: None })
    }

    /// hyper moves it with each request, and keeps one for each connection. It had 11 kB once, which cost a tenth of the
    /// throughput.
    #[tokio::test]
    async fn future_of_an_answer_is_small() {
        let (front, progress) = (front(), Progress::default());
        let answering = handle(&front, &progress, Request::new(()));
        assert!(size_of_val(&answering) <= 1024, "{} bytes", size_of_val(&answering));
    }

    #[tokio::test]
    async fn nothing_of_the_head_of_a_request_for_a_number_is_kept() {
        let (front, progress, log) = (front(), Progress::default(), Logged::begin());
        // As hyper gives it: the parts of a head are parts of its buffer.
        let buffer = Bytes::from(b"/fib/10 of-the-caller".to_vec());
        let mut request = Request::new(());
        *request.uri_mut() = Uri::from_maybe_shared(buffer.slice(..7)).unwrap();
        let id = HeaderValue::from_maybe_shared(buffer.slice(8..)).unwrap();
        request.headers_mut().insert(request_id::NAME, id);
        assert!(!buffer.is_unique());

        let answering = handle(&front, &progress, request);
        assert!(buffer.is_unique(), "hyper has to allocate another buffer for the next head");
        let response = answering.await;
        assert_eq!(response.headers()[request_id::NAME], "of-the-caller");
        assert!(log.lines().iter().any(|line| line.message() == "request completed"));
    }
}
