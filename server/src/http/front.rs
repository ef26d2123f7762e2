//! Which way a request takes: numbers go straight to their handler, all else by way of the router.
//!
//! `GET /fib/{n}` is nearly all that is asked for, and the router's boxed futures and extensions are work for each request.
//! The router has the route as well, for HEAD and to refuse other methods.

use axum::{
    Router,
    body::{Body, Bytes},
};
use http::{HeaderValue, Method, Request, Response, Version, header, request};
use http_body_util::{Either, Full};
use tower::Service;

use super::{App, error::ApiError, fib, router};
use crate::fib::FibIndex;

/// Of an answer: one piece, or whatever the router has.
pub(super) type AnswerBody = Either<Full<Bytes>, Body>;

/// What a request is for.
pub(super) enum Wanted {
    Number(Result<FibIndex, ApiError>),
    /// Nothing that could be answered.
    Bad(ApiError),
    Other(Box<Request<Body>>),
}

/// Both ways. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Front {
    app: App,
    router: Router,
}

impl Front {
    /// All that the server answers. To be served by [`serve`](super::serve()), which adds request ids and the access log.
    pub fn new(app: App) -> Self {
        Self { router: router(app.clone()), app }
    }

    /// What a request is for. Of its head nothing is left if that is a number.
    pub(super) fn wanted(&self, head: request::Parts) -> Wanted {
        if !names_its_host(&head) {
            return Wanted::Bad(ApiError::NoHost);
        }
        if head.method == Method::GET && fib::is_number(head.uri.path()) {
            return Wanted::Number(fib::index(head.uri.path(), self.app.max_n));
        }
        Wanted::Other(Box::new(Request::from_parts(head, Body::empty())))
    }

    pub(super) async fn answer(&self, wanted: Wanted) -> Response<AnswerBody> {
        match wanted {
            Wanted::Number(n) => fib::answer(&self.app, n).await.map(Either::Left),
            Wanted::Bad(error) => {
                let mut response = error.response().map(Either::Left);
                // What else comes on this connection may be meant for somebody else.
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                response
            }
            Wanted::Other(request) => {
                // In a box, as numbers have no use for room for it.
                let Ok(response) = Box::pin(self.router.clone().call(*request)).await;
                response.map(Either::Right)
            }
        }
    }
}

/// RFC 9112, 3.2: a request of HTTP/1.1 has one `Host`, no more and no less. Proxies that take different ones for the right
/// one are how requests are smuggled.
fn names_its_host(head: &request::Parts) -> bool {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), None) => true,
        (None, _) => head.version < Version::HTTP_11,
        (Some(_), Some(_)) => false,
    }
}
