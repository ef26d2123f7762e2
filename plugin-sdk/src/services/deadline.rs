//! A call's deadline, as its caller gives it in the header `grpc-timeout`, kept by the side that serves the call.
//!
//! When it has passed, the handler is cancelled, which in Rust means dropped, and the caller, if it still listens, gets
//! `DEADLINE_EXCEEDED`. tonic's own server stops a handler as well, but says `CANCELLED`, and lets a response stream that has
//! begun go on for ever.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::panic::{Answer, last_frame};

/// Puts [`Deadline`] around a service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeadlineLayer;

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline(inner)
    }
}

/// A gRPC service that stops calls at their deadline.
#[derive(Debug, Clone)]
pub(crate) struct Deadline<S>(S);

impl<S> Service<Request<Body>> for Deadline<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let sleep = timeout(request.headers()).map(|timeout| Box::pin(tokio::time::sleep(timeout)));
        let handler = self.0.call(request);
        Box::pin(async move {
            let Some(mut sleep) = sleep else { return handler.await };
            tokio::select! {
                // First, so that an answer that is there is given.
                biased;
                response = handler => {
                    response.map(|response| response.map(|body| Body::new(InTime { body: Some(body), sleep })))
                }
                () = &mut sleep => Ok(exceeded().into_http()),
            }
        })
    }
}

/// A body that ends at the deadline. `None` once it has.
struct InTime {
    body: Option<Body>,
    sleep: Pin<Box<Sleep>>,
}

impl http_body::Body for InTime {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(cx);
        let passed = match &frame {
            Poll::Pending => self.sleep.as_mut().poll(cx).is_ready(),
            // A stream that always has one more does not get to wait.
            Poll::Ready(Some(Ok(frame))) if frame.is_data() => Instant::now() >= self.sleep.deadline(),
            // The end, which is given however late.
            Poll::Ready(_) => false,
        };
        if !passed {
            return frame;
        }
        self.body = None;
        Poll::Ready(Some(Ok(last_frame(&exceeded()))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }
}

fn exceeded() -> Status {
    Status::deadline_exceeded("the deadline of this call has passed")
}

/// The value of the header `grpc-timeout`, such as `200m`: at most eight digits and a unit. Anything else is no deadline.
pub(crate) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 60 * 60)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// What stands in the header for this time: at most eight digits and the finest unit that they are enough for.
#[cfg(feature = "host")]
pub(crate) fn timeout_value(timeout: Duration) -> String {
    let seconds = u128::from(timeout.as_secs());
    let units = [
        (timeout.as_nanos(), 'n'),
        (timeout.as_micros(), 'u'),
        (timeout.as_millis(), 'm'),
        (seconds, 'S'),
        (seconds / 60, 'M'),
        (seconds / 60 / 60, 'H'),
    ];
    let fitting = units.into_iter().find(|(count, _)| *count <= MOST);
    let (count, unit) = fitting.unwrap_or((MOST, 'H'));
    format!("{count}{unit}")
}

/// The largest number of eight digits.
#[cfg(feature = "host")]
const MOST: u128 = 99_999_999;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use http::HeaderValue;
    use http_body::Body as _;
    use tonic::Code;
    use tower::ServiceExt;

    use super::*;

    #[test]
    fn a_timeout_is_up_to_eight_digits_and_a_unit() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("4m", Some(Duration::from_millis(4))),
            ("5u", Some(Duration::from_micros(5))),
            ("6n", Some(Duration::from_nanos(6))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("0m", Some(Duration::ZERO)),
            ("100000000m", None),
            ("", None),
            ("m", None),
            ("1", None),
            ("1x", None),
            ("+1S", None),
            ("-1S", None),
            ("1 S", None),
        ] {
            let headers = HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), text.parse().unwrap())]);
            assert_eq!(timeout(&headers), expected, "{text:?}");
        }
        let odd = HeaderValue::from_bytes(b"1\xc3\xa4").unwrap();
        assert_eq!(timeout(&HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), odd)])), None);
        assert_eq!(timeout(&HeaderMap::new()), None);
    }

    #[cfg(feature = "host")]
    #[test]
    fn a_timeout_is_written_as_it_is_read() {
        for (timeout, text) in [
            (Duration::ZERO, "0n"),
            (Duration::from_millis(99), "99000000n"),
            (Duration::from_millis(250), "250000u"),
            (Duration::from_secs(30), "30000000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(99_999_999), "99999999S"),
            (Duration::MAX, "99999999H"),
        ] {
            assert_eq!(timeout_value(timeout), text);
            let headers = HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), text.parse().unwrap())]);
            assert!(super::timeout(&headers).unwrap() <= timeout);
        }
    }

    async fn answer<F>(handler: fn(Request<Body>) -> F) -> Response<Body>
    where
        F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
    {
        let service = DeadlineLayer.layer(tower::service_fn(handler));
        let request = Request::builder().header("grpc-timeout", "1S").body(Body::empty()).unwrap();
        service.oneshot(request).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_takes_too_long_is_answered_for() {
        let response = answer(|_| std::future::pending()).await;
        assert_eq!(Status::from_header_map(response.headers()).unwrap().code(), Code::DeadlineExceeded);
    }

    /// Never gives a frame.
    struct Silent;

    impl http_body::Body for Silent {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_stream_that_takes_too_long_is_ended() {
        let response = answer(|_| async { Ok(Response::new(Body::new(Silent))) }).await;
        let mut body = pin!(response.into_body());
        let frame = poll_fn(|cx| body.as_mut().poll_frame(cx)).await.unwrap().unwrap();
        let status = Status::from_header_map(frame.trailers_ref().unwrap()).unwrap();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(poll_fn(|cx| body.as_mut().poll_frame(cx)).await.is_none());
    }

    /// Always has one more message, until the last frame.
    struct Endless {
        ends: Arc<AtomicBool>,
    }

    impl http_body::Body for Endless {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            let ends = self.ends.load(Ordering::Relaxed);
            let frame =
                if ends { last_frame(&Status::ok("")) } else { Frame::data(Bytes::from_static(b"x")) };
            Poll::Ready(Some(Ok(frame)))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_stream_that_never_rests_is_ended_as_well_and_a_late_end_is_its_own() {
        for (ends_late, expected) in [(false, Code::DeadlineExceeded), (true, Code::Ok)] {
            let ends = Arc::new(AtomicBool::new(false));
            let service = DeadlineLayer.layer(tower::service_fn(|_: Request<Body>| {
                let body = Body::new(Endless { ends: Arc::clone(&ends) });
                async { Ok::<_, Infallible>(Response::new(body)) }
            }));
            let request = Request::builder().header("grpc-timeout", "1S").body(Body::empty()).unwrap();
            let mut body = pin!(service.oneshot(request).await.unwrap().into_body());
            let mut next = async || poll_fn(|cx| body.as_mut().poll_frame(cx)).await.unwrap().unwrap();
            assert!(next().await.is_data());
            tokio::time::advance(Duration::from_secs(1)).await;
            ends.store(ends_late, Ordering::Relaxed);
            let status = Status::from_header_map(next().await.trailers_ref().expect("it has ended"));
            assert_eq!(status.unwrap().code(), expected);
        }
    }
}
