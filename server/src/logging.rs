//! Log lines on stderr, for people or as JSON.

use std::{
    env,
    io::{self, IsTerminal},
};

use tracing_subscriber::{EnvFilter, filter::ParseError};

use crate::config::{LogConfig, LogFormat, LogLevel};

/// Libraries whose own lines are of no use below a warning: each request would give dozens.
const CHATTY: [&str; 5] = ["h2", "hyper", "hyper_util", "tonic", "tower"];

/// `RUST_LOG` is no list of filters. The operator's move.
#[derive(Debug, thiserror::Error)]
#[error("RUST_LOG is not understood")]
pub struct FilterError(#[from] ParseError);

/// Sends what the program logs from now on to stderr. To be called once.
pub fn init(config: &LogConfig) -> Result<(), FilterError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(config.level)?)
        .with_writer(io::stderr)
        // It would be reported with `eprintln!`, which panics if nobody reads stderr any more.
        .log_internal_errors(false);
    match config.format {
        LogFormat::Text => builder.with_ansi(wants_colour()).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}

fn filter(level: LogLevel) -> Result<EnvFilter, FilterError> {
    match env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => Ok(EnvFilter::try_new(directives)?),
        _ => Ok(EnvFilter::try_new(directives(level))?),
    }
}

fn directives(level: LogLevel) -> String {
    let quiet = level.min(LogLevel::Warn).as_str();
    let chatty = CHATTY.map(|library| format!(",{library}={quiet}")).concat();
    format!("{}{chatty}", level.as_str())
}

/// <https://no-color.org>: set to anything but nothing.
fn wants_colour() -> bool {
    io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_never_say_more_than_the_server() {
        for (level, expected) in [
            (LogLevel::Trace, "trace,h2=warn,hyper=warn,hyper_util=warn,tonic=warn,tower=warn"),
            (LogLevel::Error, "error,h2=error,hyper=error,hyper_util=error,tonic=error,tower=error"),
        ] {
            assert_eq!(directives(level), expected);
            assert!(EnvFilter::try_new(directives(level)).is_ok());
        }
        assert!(EnvFilter::try_new(directives(LogLevel::Off)).is_ok());
    }
}
