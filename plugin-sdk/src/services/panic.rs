//! A handler that panics fails its own call and nothing else: the peer gets `INTERNAL` with the panic's message, and the plugin lives
//! on. (A plugin in Go dies of it, with all calls that are running.)
//!
//! Panics are caught while the handler runs and while its response, a stream perhaps, is being made. Tasks that a
//! handler has spawned are not its call's business any more; the run time catches those.

use std::any::Any;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::report::escape;

/// Characters of a panic's message that the peer gets. It can be made of anything, the peer's own request included.
const MESSAGE_CHARACTERS: usize = 1000;

/// Puts [`CatchPanic`] around a service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CatchPanicLayer;

impl<S> Layer<S> for CatchPanicLayer {
    type Service = CatchPanic<S>;

    fn layer(&self, inner: S) -> CatchPanic<S> {
        CatchPanic(inner)
    }
}

/// A gRPC service whose panics are answers.
#[derive(Debug, Clone)]
pub(crate) struct CatchPanic<S>(S);

/// An answer in the making.
pub(super) type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<S> Service<Request<Body>> for CatchPanic<S>
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
        // Only chooses the handler, which begins to run when its future is polled.
        let handler = self.0.call(request);
        Box::pin(async move {
            let mut handler = pin!(handler);
            let polled = std::future::poll_fn(|cx| {
                catch(|| handler.as_mut().poll(cx))
                    .unwrap_or_else(|status| Poll::Ready(Ok(status.into_http())))
            });
            let response = polled.await?;
            Ok(response.map(|body| Body::new(Catching(Some(body)))))
        })
    }
}

/// A body that ends with a status if making it panics. `None` once it has.
struct Catching(Option<Body>);

impl http_body::Body for Catching {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(body) = &mut self.0 else { return Poll::Ready(None) };
        catch(|| Pin::new(body).poll_frame(cx)).unwrap_or_else(|status| {
            self.0 = None;
            Poll::Ready(Some(Ok(last_frame(&status))))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(http_body::Body::is_end_stream)
    }
}

/// The frame that ends a body with a status.
pub(super) fn last_frame(status: &Status) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    // Fails only for details and metadata that cannot be sent, and there are none.
    let _ = status.add_header(&mut trailers);
    Frame::trailers(trailers)
}

/// Runs a step of a call. What a panic leaves half done belongs to that call and is not used again; what calls share
/// has to be safe to find half done, as a mutex is by its poison.
fn catch<T>(step: impl FnOnce() -> T) -> Result<T, Status> {
    catch_unwind(AssertUnwindSafe(step)).map_err(|panic| {
        let mut message = "the handler panicked: ".to_owned();
        let text: String = panic_text(&*panic).chars().take(MESSAGE_CHARACTERS).collect();
        // Writing to a string does not fail.
        let _ = escape(&text, &mut message);
        Status::internal(message)
    })
}

/// What a panic says. It is text unless the code asked for something else by `panic_any`.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body::Body as _;
    use tonic::Code;
    use tower::ServiceExt;

    use super::*;

    async fn answer<F>(handler: fn(Request<Body>) -> F) -> Response<Body>
    where
        F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
    {
        let service = CatchPanicLayer.layer(tower::service_fn(handler));
        service.oneshot(Request::new(Body::empty())).await.unwrap()
    }

    fn status(headers: &HeaderMap) -> Status {
        Status::from_header_map(headers).unwrap()
    }

    #[tokio::test]
    async fn a_panic_in_a_handler_is_internal_with_its_message_bounded_and_on_one_line() {
        let response = answer(|_| async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            panic!("a\n\u{1b}[31m{}", "x".repeat(100_000))
        });
        let status = status(response.await.headers());
        assert_eq!(status.code(), Code::Internal);
        assert!(status.message().starts_with(r"the handler panicked: a\n\u{1b}[31mxxx"), "{status:?}");
        assert!(status.message().len() < 2 * MESSAGE_CHARACTERS);
    }

    #[tokio::test]
    async fn a_panic_with_something_else_than_text_is_internal() {
        let response = answer(|_| async { std::panic::panic_any(5) }).await;
        assert_eq!(status(response.headers()).code(), Code::Internal);
    }

    /// One frame, then a panic.
    struct Panicking(bool);

    impl http_body::Body for Panicking {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            assert!(!self.0, "the second frame");
            self.0 = true;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"first")))))
        }
    }

    #[tokio::test]
    async fn a_panic_in_a_response_stream_ends_it_with_internal() {
        let response = answer(|_| async { Ok(Response::new(Body::new(Panicking(false)))) }).await;
        let mut body = pin!(response.into_body());
        let mut frames = Vec::new();
        while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            frames.push(frame.unwrap());
        }
        assert_eq!(frames[0].data_ref().unwrap(), "first");
        let status = status(frames[1].trailers_ref().unwrap());
        assert_eq!(
            (status.code(), status.message()),
            (Code::Internal, "the handler panicked: the second frame")
        );
        assert_eq!(frames.len(), 2);
    }

    #[tokio::test]
    async fn an_answer_without_a_panic_is_left_as_it_is() {
        let response = answer(|_| async { Ok(Status::not_found("it").into_http()) }).await;
        assert_eq!(status(response.headers()).message(), "it");
        assert!(response.body().is_end_stream());
    }
}
