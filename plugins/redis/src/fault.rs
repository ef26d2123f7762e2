//! Why Redis did not do what it was asked to do, and which status says so.

use std::io;
use std::time::Duration;

use redis::{RedisError, ServerError};
use thiserror::Error;
use tonic::{Code, Status};

/// Shown, it holds none of the words of Redis but the name of an error: they can quote a command with what was to be
/// stored, or with the password.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Fault {
    #[error("Redis cannot be reached: {0}")]
    Unreachable(String),
    /// What was asked for may have been done.
    #[error("the connection to Redis has broken")]
    Lost,
    /// What was asked for may have been done, or may still be.
    #[error("Redis did not answer within {0:?}")]
    TimedOut(Duration),
    #[error("Redis is loading its data")]
    Loading,
    #[error("Redis has as many clients as it allows")]
    TooManyClients,
    #[error("Redis is a read-only replica")]
    ReadOnly,
    #[error("Redis does not accept the user or the password, or wants one")]
    LoggedOut,
    #[error("Redis has no database of the number in the URL")]
    NoDatabase,
    #[error("the Redis user may not use this command or these keys")]
    NotPermitted,
    #[error("Redis cannot save its data, and takes no more until it can")]
    CannotSave,
    #[error("Redis has no room for more")]
    Full,
    #[error("Redis has answered with error {0}")]
    Refused(String),
    #[error("Redis has given an answer that makes no sense")]
    Nonsense,
}

impl Fault {
    pub(crate) fn unreachable(error: &io::Error) -> Self {
        Self::Unreachable(error.to_string())
    }

    /// By its name, and by its words only where Redis has no name for it.
    fn reported(code: &str, words: Option<&str>) -> Self {
        match code {
            "LOADING" => Self::Loading,
            "READONLY" => Self::ReadOnly,
            "NOAUTH" | "WRONGPASS" => Self::LoggedOut,
            "NOPERM" => Self::NotPermitted,
            "MISCONF" => Self::CannotSave,
            "OOM" => Self::Full,
            "ERR" if words.is_some_and(|words| words.starts_with("max number of clients")) => {
                Self::TooManyClients
            }
            _ if is_name(code) => Self::Refused(code.to_owned()),
            _ => Self::Refused("of no name".to_owned()),
        }
    }

    /// Whether it makes Redis as a whole doubtful.
    pub(crate) fn is_of_all(&self) -> bool {
        matches!(self, Self::Lost | Self::TimedOut(_) | Self::Loading | Self::LoggedOut)
    }

    /// What it means as the answer to PING: nothing, if lookups go on. Whoever may not ask has been heard all the same, and
    /// a Redis that cannot save refuses PING together with what is to be stored.
    pub(crate) fn after_ping(self) -> Result<(), Self> {
        if matches!(self, Self::NotPermitted | Self::CannotSave) { Ok(()) } else { Err(self) }
    }

    /// Whose move is next, by the test in tonic's documentation of `FAILED_PRECONDITION`.
    fn code(&self) -> Code {
        match self {
            // To call again helps, sooner or later.
            Self::Unreachable(_) | Self::Lost | Self::Loading | Self::TooManyClients => Code::Unavailable,
            Self::TimedOut(_) => Code::DeadlineExceeded,
            // Nothing helps until somebody changes something about Redis, or about the user there.
            Self::ReadOnly | Self::LoggedOut | Self::NoDatabase | Self::NotPermitted | Self::CannotSave => {
                Code::FailedPrecondition
            }
            Self::Full => Code::ResourceExhausted,
            Self::Refused(name) => match name.as_str() {
                "BUSY" | "CLUSTERDOWN" | "MASTERDOWN" | "NOREPLICAS" | "TRYAGAIN" => Code::Unavailable,
                // It is a part of a cluster, or takes connections from its own machine only.
                "ASK" | "CROSSSLOT" | "DENIED" | "MOVED" => Code::FailedPrecondition,
                _ => Code::Internal,
            },
            Self::Nonsense => Code::Internal,
        }
    }
}

/// Whether it looks like what Redis calls an error: `ERR`, `WRONGTYPE`.
fn is_name(code: &str) -> bool {
    (1..=20).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_uppercase())
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        Self::new(fault.code(), fault.to_string())
    }
}

impl From<ServerError> for Fault {
    fn from(error: ServerError) -> Self {
        Self::reported(error.code(), error.details())
    }
}

impl From<RedisError> for Fault {
    fn from(error: RedisError) -> Self {
        match error.kind() {
            redis::ErrorKind::Io => Self::Lost,
            redis::ErrorKind::Server(_) | redis::ErrorKind::Extension => {
                Self::reported(error.code().unwrap_or_default(), error.detail())
            }
            _ => Self::Nonsense,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_redis_are_known_by_name_and_their_words_are_not_repeated() {
        for (code, expected, status) in [
            ("LOADING", Fault::Loading, Code::Unavailable),
            ("READONLY", Fault::ReadOnly, Code::FailedPrecondition),
            ("NOAUTH", Fault::LoggedOut, Code::FailedPrecondition),
            ("WRONGPASS", Fault::LoggedOut, Code::FailedPrecondition),
            ("NOPERM", Fault::NotPermitted, Code::FailedPrecondition),
            ("OOM", Fault::Full, Code::ResourceExhausted),
            ("MISCONF", Fault::CannotSave, Code::FailedPrecondition),
            ("DENIED", Fault::Refused("DENIED".into()), Code::FailedPrecondition),
            ("MASTERDOWN", Fault::Refused("MASTERDOWN".into()), Code::Unavailable),
            ("NEW", Fault::Refused("NEW".into()), Code::Internal),
            ("hunter2", Fault::Refused("of no name".into()), Code::Internal),
        ] {
            let error = redis::make_extension_error(code.to_owned(), Some("SET k hunter2".to_owned()));
            let fault = Fault::from(error);
            assert_eq!(fault, expected);
            let answered = Status::from(fault);
            assert_eq!(answered.code(), status, "{code}");
            assert!(!answered.message().contains("hunter2"), "{answered:?}");
        }
    }

    #[test]
    fn what_breaks_a_connection_is_no_fault_of_the_call() {
        let reset = RedisError::from(io::Error::from(io::ErrorKind::ConnectionReset));
        assert_eq!(Status::from(Fault::from(reset)).code(), Code::Unavailable);
    }
}
