//! The reasons of errors, for programs: `google.rpc.ErrorInfo` in the details of a status.

use std::collections::HashMap;

use prost::Message;
use prost_types::Any;
use tonic::{Code, Status};

use super::{PACKAGE, Reason};

const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";

/// How the names of the enum begin, and those on the wire do not.
const PREFIX: &str = "REASON_";

/// `google.rpc.Status`, which travels as the details of a status.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.rpc.ErrorInfo`.
#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(map = "string, string", tag = "3")]
    metadata: HashMap<String, String>,
}

impl Reason {
    /// The reason that the host has given for an error; `None` if the error is not the host's, or of a later version.
    #[must_use]
    pub fn of(status: &Status) -> Option<Self> {
        let info = error_info(status)?;
        Self::from_str_name(&format!("{PREFIX}{}", info.reason))
    }

    /// What the host has said with the reason under this name, such as `plugins`.
    #[must_use]
    pub fn metadata(status: &Status, name: &str) -> Option<String> {
        error_info(status)?.metadata.remove(name)
    }

    /// The reason as it is on the wire: `NO_SUCH_PLUGIN`.
    #[must_use]
    pub fn word(self) -> &'static str {
        let name = self.as_str_name();
        name.strip_prefix(PREFIX).unwrap_or(name)
    }

    pub(crate) fn status(self, message: impl Into<String>) -> Status {
        self.status_with(message, [])
    }

    pub(crate) fn status_with<const N: usize>(
        self,
        message: impl Into<String>,
        metadata: [(&str, String); N],
    ) -> Status {
        let (code, message) = (self.code(), message.into());
        let metadata = metadata.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
        let info = ErrorInfo { reason: self.word().to_owned(), domain: PACKAGE.to_owned(), metadata };
        let info = Any { type_url: ERROR_INFO.to_owned(), value: info.encode_to_vec() };
        let details = RpcStatus { code: code.into(), message: message.clone(), details: vec![info] };
        Status::with_details(code, message, details.encode_to_vec().into())
    }

    fn code(self) -> Code {
        match self {
            Self::Unspecified => Code::Unknown,
            Self::PluginNotNamed | Self::BadRequest => Code::InvalidArgument,
            Self::NoSuchPlugin | Self::NoSuchCrash => Code::NotFound,
            Self::Disabled
            | Self::NotOurs
            | Self::NotStarted
            | Self::Ended
            | Self::Unwell
            | Self::OlderVersion => Code::FailedPrecondition,
            Self::Superseded => Code::Aborted,
            Self::Busy | Self::TooManyFollowers => Code::ResourceExhausted,
            Self::HostStopping => Code::Unavailable,
            Self::NoHostLevel => Code::Unimplemented,
            Self::HostFailed => Code::Internal,
        }
    }
}

fn error_info(status: &Status) -> Option<ErrorInfo> {
    let details = RpcStatus::decode(status.details()).ok()?.details;
    let info = details.into_iter().find(|any| any.type_url == ERROR_INFO)?;
    ErrorInfo::decode(info.value.as_slice()).ok().filter(|info| info.domain == PACKAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_read_as_it_was_written_and_strangers_have_none() {
        let status = Reason::NoSuchPlugin.status_with("no", [("plugins", "a, b".to_owned())]);
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(Reason::of(&status), Some(Reason::NoSuchPlugin));
        assert_eq!(Reason::metadata(&status, "plugins").as_deref(), Some("a, b"));
        assert_eq!(Reason::NoSuchPlugin.word(), "NO_SUCH_PLUGIN");
        assert_eq!(Reason::of(&Status::not_found("no")), None);
        let rubbish = Status::with_details(Code::NotFound, "no", b"\xff\xff".to_vec().into());
        assert_eq!(Reason::of(&rubbish), None);
    }
}
