//! Log lines on stderr, for people or as JSON.

mod queue;

use std::{
    env,
    io::{self, IsTerminal},
};

use tracing::Level;
use tracing_subscriber::{EnvFilter, filter::ParseError, reload};

pub use self::queue::Flush;
use self::queue::Queue;
use crate::config::{LogConfig, LogFormat, LogLevel};

/// Libraries whose own lines are of no use below a warning: each request would give dozens.
const CHATTY: [&str; 5] = ["h2", "hyper", "hyper_util", "tonic", "tower"];

/// Why nothing can be logged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// `RUST_LOG` is no list of filters. The operator's move.
    #[error("RUST_LOG is not understood")]
    Filter(#[from] ParseError),
    /// The system has no thread for it.
    #[error("cannot start a thread for the log")]
    Thread(#[source] io::Error),
}

/// Changes what is logged, while the program runs.
pub struct LevelControl(Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>);

/// The level stays as it was. There is nothing that an operator can do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LevelError {
    /// The level makes no filter.
    #[error("there is no filter for the level")]
    Filter(#[from] ParseError),
    /// The filter cannot be exchanged.
    #[error("the filter cannot be exchanged")]
    Reload(#[from] reload::Error),
}

impl LevelControl {
    /// Logs lines of this level and more important ones from now on, whatever the flag and `RUST_LOG` have said. What plugins
    /// say has a level of its own.
    pub fn set(&self, level: LogLevel) -> Result<(), LevelError> {
        Ok((self.0)(EnvFilter::try_new(directives(level))?)?)
    }
}

/// Sends what the program logs from now on to stderr, without ever waiting for it. To be called once. What is logged just
/// before the end is only sure to be written if the [`Flush`] is dropped after it.
pub fn init(config: &LogConfig) -> Result<(LevelControl, Flush), InitError> {
    let filter = filter(config.level)?;
    let (queue, flush) = Queue::to_stderr().map_err(InitError::Thread)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(queue)
        // It would be reported with `eprintln!`, which panics if nobody reads stderr any more.
        .log_internal_errors(false);
    let level = match config.format {
        LogFormat::Text => {
            let builder = builder.with_ansi(wants_colour()).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            LevelControl(Box::new(move |filter| handle.reload(filter)))
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            LevelControl(Box::new(move |filter| handle.reload(filter)))
        }
    };
    Ok((level, flush))
}

fn filter(level: LogLevel) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(of_environment().unwrap_or_else(|| directives(level)))
}

/// The least important level at which anything is logged; `None` if nothing is.
pub(crate) fn least(level: LogLevel) -> Option<Level> {
    let wanted = of_environment().unwrap_or_else(|| level.as_str().to_owned());
    EnvFilter::try_new(wanted).ok()?.max_level_hint()?.into_level()
}

/// What `RUST_LOG` says, which goes before the flag.
fn of_environment() -> Option<String> {
    env::var("RUST_LOG").ok().filter(|directives| !directives.is_empty())
}

fn directives(level: LogLevel) -> String {
    let quiet = level.min(LogLevel::Warn).as_str();
    let chatty = CHATTY.map(|library| format!(",{library}={quiet}")).concat();
    // What a plugin says has a level of its own, which its supervisor heeds. A directive is for all targets that begin so.
    let plugin = if level == LogLevel::Off { "off" } else { "trace" };
    let level = level.as_str();
    format!("{level},plugin={plugin},plugin_sdk={level}{chatty}")
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
            (
                LogLevel::Trace,
                "trace,plugin=trace,plugin_sdk=trace,h2=warn,hyper=warn,hyper_util=warn,tonic=warn,tower=warn",
            ),
            (
                LogLevel::Error,
                "error,plugin=trace,plugin_sdk=error,h2=error,hyper=error,hyper_util=error,tonic=error,tower=error",
            ),
        ] {
            assert_eq!(directives(level), expected);
            assert!(EnvFilter::try_new(directives(level)).is_ok());
        }
        assert!(EnvFilter::try_new(directives(LogLevel::Off)).is_ok());
    }
}
