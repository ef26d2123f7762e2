//! What the server says over HTTP.
//!
//! | request | answer |
//! |---|---|
//! | `GET /fib/{n}` | 200 `{"result":55}`; 400 `invalid value`; 503 `timed out` with `Retry-After`, `stopping` |
//! | `GET /healthz` | 200 for as long as the process works; never asks the plugin |
//! | `GET /readyz` | 503 during the first start of the plugin, unless that waits for a request (`--plugin-lazy`); else 200 |
//! | `GET /readyz?verbose` | the same, with the state of the plugin; what it wrote to its stderr is for operators alone |
//! | `GET /version` | name and version |
//! | anything else | 404, or 405 with `Allow` |
//!
//! A request of HTTP/1.1 without a `Host`, or with several, is 400 `bad request`.
//!
//! A server that is draining accepts no connection, so that nobody can ask it anything. What it has been asked before it answers,
//! if need be with 503 `stopping`.
//!
//! Each body is JSON and ends with a newline, each answer has an `x-request-id`, and HEAD is GET without the body.
//! Only what hyper refuses before there is a request is answered without a body: 400 for a head that is not HTTP,
//! 431 for one that is too large; and the preface of HTTP/2, which is closed without a word.

mod access_log;
mod cache_status;
mod drain;
mod error;
mod fib;
mod front;
mod request_id;
mod serve;
mod status;

use std::sync::Arc;

use axum::{Router, body::Bytes, routing::get};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use plugin_sdk::host::PluginHandle;

pub use self::{
    error::ApiError,
    front::Front,
    serve::{Drained, serve},
};
use crate::{
    cache::Cache,
    compute::{Flights, Refill},
    config::FirstStart,
};

/// What requests need.
#[derive(Clone, Debug)]
pub struct App {
    /// The largest n that is answered.
    pub max_n: u8,
    /// Asked first.
    pub cache: Cache,
    /// Asked then.
    pub flights: Arc<Flights<Refill>>,
    /// For `/readyz`; `None` if the server has no plugin.
    pub plugin: Option<Plugin>,
}

/// The plugin, to be looked at.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// Tells its state.
    pub handle: PluginHandle,
    /// Whether the server is ready before.
    pub first_start: FirstStart,
}

fn router(app: App) -> Router {
    Router::new()
        .route("/fib/", get(fib::fib))
        .route("/fib/{n}", get(fib::fib))
        .route("/healthz", get(status::healthz))
        .route("/readyz", get(status::readyz))
        .route("/version", get(status::version))
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .with_state(app)
}

/// A JSON answer; `line` is one value and a newline.
fn json(status: StatusCode, line: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(line));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
