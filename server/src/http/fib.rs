//! `GET /fib/{n}`: the cache, and if that has nothing the calculation.

use std::{borrow::Cow, time::Instant};

use axum::{body::Bytes, extract::State};
use http::{Response, StatusCode, Uri};
use http_body_util::Full;

use super::{App, cache_status, cache_status::CacheStatus, error::ApiError, json};
use crate::{
    cache::Lookup,
    compute::{Answer, FlightError},
    fib::FibIndex,
};

/// What the routes of this handler begin with.
const PREFIX: &str = "/fib/";

pub(super) async fn fib(State(app): State<App>, uri: Uri) -> Response<Full<Bytes>> {
    answer(&app, index(uri.path(), app.max_n)).await
}

/// Whether a path is this handler's.
pub(super) fn is_number(path: &str) -> bool {
    path.strip_prefix(PREFIX).is_some_and(|rest| !rest.contains('/'))
}

/// Answers a path that is this handler's, by what it asks for.
pub(super) async fn answer(app: &App, n: Result<FibIndex, ApiError>) -> Response<Full<Bytes>> {
    match n {
        Ok(n) => number(app, n).await,
        Err(error) => error.response(),
    }
}

async fn number(app: &App, n: FibIndex) -> Response<Full<Bytes>> {
    let looked_at = Instant::now();
    let lookup = app.cache.get(n).await;
    let answer = match lookup {
        Lookup::Hit { value, .. } => Ok(Answer { value, collapsed: false }),
        Lookup::Miss(_) => app.flights.value(n, looked_at).await,
    };
    let collapsed = matches!(answer, Ok(Answer { collapsed: true, .. }));
    with_cache_status(response(answer), CacheStatus { lookup, collapsed })
}

fn response(answer: Result<Answer, FlightError>) -> Response<Full<Bytes>> {
    match answer {
        Ok(Answer { value, .. }) => json(StatusCode::OK, result(value)),
        Err(error) => ApiError::from(error).response(),
    }
}

/// By hand: `format!` here and for two headers was a seventh of the instructions of a hit.
fn result(value: u64) -> String {
    let mut digits = itoa::Buffer::new();
    ["{\"result\":", digits.format(value), "}\n"].concat()
}

fn with_cache_status(mut response: Response<Full<Bytes>>, status: CacheStatus) -> Response<Full<Bytes>> {
    response.headers_mut().insert(cache_status::NAME, status.header());
    response
}

/// What a path asks for. Our own reading of its last part rather than axum's: what is no UTF-8 is the caller's invalid value
/// like any other.
pub(super) fn index(path: &str, max_n: u8) -> Result<FibIndex, ApiError> {
    let text = path.strip_prefix(PREFIX).unwrap_or_default();
    let decoded = percent_decoded(text)
        .ok_or_else(|| ApiError::InvalidValue { detail: "not a percent-encoded UTF-8 text".into() })?;
    Ok(FibIndex::parse(&decoded, max_n)?)
}

/// `None` if a `%` is not followed by two hexadecimal digits, or the bytes are not UTF-8.
fn percent_decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(text.into());
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex_digit(bytes.next()?)? << 4 | hex_digit(bytes.next()?)?,
            plain => plain,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn hex_digit(byte: u8) -> Option<u8> {
    // The digit of a base below 256 fits.
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_are_numbers() {
        for (path, n) in [
            ("/fib/5", 5),
            ("/fib/05", 5),
            ("/fib/+5", 5),
            ("/fib/%35", 5),
            ("/fib/%2B5", 5),
            ("/fib/%2b%30%35", 5),
            ("/fib/93", 93),
            ("/fib/0", 0),
        ] {
            assert_eq!(index(path, 93).unwrap().get(), n, "{path}");
        }
    }

    #[test]
    fn paths_that_are_not() {
        for path in [
            "/fib/",
            "/fib/abc",
            "/fib/-1",
            "/fib/5.0",
            "/fib/1e3",
            "/fib/94",
            "/fib/%00",
            "/fib/%",
            "/fib/%3",
            "/fib/%+5",
            "/fib/%zz",
            "/fib/%FF",
            "/fib/%2F5",
            "/fib/%20",
            "/fib/５",
            "/fib/%EF%BC%95",
        ] {
            assert!(matches!(index(path, 93), Err(ApiError::InvalidValue { .. })), "{path}");
        }
    }
}
