//! Which way a request takes: numbers go straight to their handler, all else by way of the router.
//!
//! `GET /fib/{n}` is nearly all that is asked for, and the router's boxed futures and extensions are work for each request.
//! The router has the route as well, for HEAD and to refuse other methods.

use axum::{
    Router,
    body::{Body, Bytes},
};
use http::{Method, Request, Response, request};
use http_body_util::{Either, Full};
use tower::Service;

use super::{App, fib, router};

/// Of an answer: one piece, or whatever the router has.
pub(super) type AnswerBody = Either<Full<Bytes>, Body>;

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

    pub(super) async fn answer(&self, head: request::Parts) -> Response<AnswerBody> {
        if head.method == Method::GET && fib::is_number(head.uri.path()) {
            return fib::answer(&self.app, head.uri.path()).await.map(Either::Left);
        }
        let request = Request::from_parts(head, Body::empty());
        let Ok(response) = self.router.clone().call(request).await;
        response.map(Either::Right)
    }
}
