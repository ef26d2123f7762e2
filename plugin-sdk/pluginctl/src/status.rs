//! A gRPC status as people and scripts want to see it.

use std::error::Error;
use std::fmt;

use prost::Message;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::escape::escaped;

/// A status that is not OK, and who made it.
#[derive(Debug)]
pub(crate) struct CallStatus(Box<Status>);

impl CallStatus {
    pub(crate) fn new(status: Status) -> Self {
        Self(Box::new(status))
    }

    pub(crate) fn status(&self) -> &Status {
        &self.0
    }

    /// Whether the connection made it, and not the plugin.
    pub(crate) fn is_local(&self) -> bool {
        self.0.source().is_some()
    }
}

/// `the plugin answered NOT_FOUND: no such key (1 detail: google.rpc.ErrorInfo)`
impl fmt::Display for CallStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = if self.is_local() { "the call broke off" } else { "the plugin answered" };
        write!(f, "{who}{}{}", if self.is_local() { ": " } else { " " }, code_name(self.0.code()))?;
        if !self.0.message().is_empty() {
            write!(f, ": {}", escaped(self.0.message()))?;
        }
        let details = details(&self.0);
        match details.len() {
            0 => Ok(()),
            1 => write!(f, " (1 detail: {})", escaped(&details[0])),
            count => write!(f, " ({count} details: {})", escaped(&details.join(", "))),
        }
    }
}

impl Error for CallStatus {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// `None` is OK.
pub(crate) fn json(status: Option<&Status>) -> Value {
    let code = status.map_or(Code::Ok, Status::code);
    json!({
        "code": code_name(code),
        "number": i32::from(code),
        "message": status.map(Status::message).unwrap_or_default(),
        "details": status.map(details).unwrap_or_default(),
    })
}

/// The name that gRPC's documentation uses.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// The parts of `google.rpc.Status`, which travels as metadata, that are not in the status itself.
#[derive(Clone, PartialEq, Message)]
struct Details {
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// Types of the details. What cannot be read is none.
fn details(status: &Status) -> Vec<String> {
    let details = Details::decode(status.details()).unwrap_or_default().details;
    details.into_iter().map(|any| any.type_url.rsplit('/').next().unwrap_or_default().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_shown_with_name_message_and_details() {
        let any = |name: &str| prost_types::Any { type_url: name.to_owned(), value: Vec::new() };
        let types = ["type.googleapis.com/google.rpc.ErrorInfo", "google.rpc.Help"];
        for (count, shown) in [
            (0, "the plugin answered NOT_FOUND: no\\n key"),
            (1, "the plugin answered NOT_FOUND: no\\n key (1 detail: google.rpc.ErrorInfo)"),
            (
                2,
                "the plugin answered NOT_FOUND: no\\n key (2 details: google.rpc.ErrorInfo, google.rpc.Help)",
            ),
        ] {
            let details = Details { details: types[..count].iter().copied().map(any).collect() };
            let status = Status::with_details(Code::NotFound, "no\n key", details.encode_to_vec().into());
            assert_eq!(json(Some(&status))["details"].as_array().unwrap().len(), count);
            assert_eq!(CallStatus::new(status).to_string(), shown);
        }
        let rubbish = Status::with_details(Code::Aborted, "", b"\xff\xff".to_vec().into());
        assert_eq!(CallStatus::new(rubbish).to_string(), "the plugin answered ABORTED");
        assert_eq!(json(None)["code"], "OK");
    }
}
