//! Errors as callers see them: a status, and `{"error":"...","detail":"..."}`.

use std::time::Duration;

use axum::{
    body::Bytes,
    response::{self, IntoResponse},
};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::Value;

use super::json;
use crate::{compute::FlightError, fib::ParseIndexError, text::excerpt};

/// Most characters of a caller's input that an answer repeats: enough to recognise it by.
const ECHOED_CHARACTERS: usize = 40;

/// Why a request has no better answer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// The caller asked for something that is not a number in range.
    #[error("invalid value")]
    InvalidValue {
        /// What is wrong with it.
        detail: String,
    },
    /// The request has no `Host`, or several.
    #[error("bad request")]
    NoHost,
    /// The caller asked for a path that does not exist.
    #[error("not found")]
    NotFound,
    /// The path exists, for other methods. The router adds `Allow`.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// The number is too large for the time there is. The same request may have more luck later, with less load.
    #[error("timed out")]
    TimedOut {
        /// How long was tried.
        after: Duration,
    },
    /// The server ends sooner than there is an answer. Another one may have it.
    #[error("stopping")]
    Stopping,
    /// A defect of the server.
    #[error("internal error")]
    Internal,
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match self {
            Self::InvalidValue { .. } | Self::NoHost => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TimedOut { .. } | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::InvalidValue { detail } => detail.clone(),
            Self::NoHost => "a request of HTTP/1.1 has one Host header".into(),
            Self::NotFound => "there is /fib/{n}, /healthz, /readyz and /version".into(),
            Self::MethodNotAllowed => "this path takes GET and HEAD".into(),
            Self::TimedOut { after } => {
                format!("the calculation did not end within {}", humantime::format_duration(*after))
            }
            Self::Stopping => "the server is stopping and does not wait for the answer".into(),
            Self::Internal => "the calculation was lost".into(),
        }
    }

    /// After how many seconds another try makes sense: when the calculations that are running now have ended, one
    /// way or the other.
    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::TimedOut { after } => Some(after.as_secs().max(1)),
            _ => None,
        }
    }

    pub(super) fn response(&self) -> Response<Full<Bytes>> {
        // By hand, for the order of the two fields.
        let (error, detail) = (Value::from(self.to_string()), Value::from(self.detail()));
        let mut response = json(self.status(), format!("{{\"error\":{error},\"detail\":{detail}}}\n"));
        if let Some(seconds) = self.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> response::Response {
        self.response().into_response()
    }
}

impl From<ParseIndexError> for ApiError {
    fn from(error: ParseIndexError) -> Self {
        let detail = match &error {
            ParseIndexError::NotAnInteger { text } => {
                format!("\"{}\" is {error}", excerpt(text, ECHOED_CHARACTERS))
            }
            _ => error.to_string(),
        };
        Self::InvalidValue { detail }
    }
}

impl From<FlightError> for ApiError {
    fn from(error: FlightError) -> Self {
        match error {
            FlightError::TimedOut { after } => Self::TimedOut { after },
            FlightError::Lost => Self::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_repeated_is_short_and_harmless() {
        let text = "\n\u{1b}[31m".repeat(1000);
        let error = ApiError::from(ParseIndexError::NotAnInteger { text });
        let detail = error.detail();
        assert!(detail.chars().count() < 10 * ECHOED_CHARACTERS);
        assert!(!detail.chars().any(char::is_control));
    }

    #[test]
    fn a_caller_is_told_to_wait_at_least_a_second() {
        for (after, seconds) in [(Duration::from_millis(5), 1), (Duration::from_secs(30), 30)] {
            assert_eq!(ApiError::TimedOut { after }.retry_after(), Some(seconds));
        }
    }
}
