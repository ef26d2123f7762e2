//! The flags as clap sees them: names, variables, help texts and the types that need no knowledge of one another.

use std::{
    fmt::Display,
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use clap::{Parser, ValueEnum, builder::BoolishValueParser};
use plugin_sdk::host::{Backoff, Intensity};

use super::{Control, LogFormat, LogLevel};
use crate::fib::{Algorithm, LAST_INDEX};

/// Longest duration a flag takes: a hundred years, which is for ever, and can still be added to any clock.
pub(super) const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Most threads for calculations, and so half of the threads they can occupy (there are two lanes). Far beyond any
/// machine this runs on, far below what exhausts one.
const MAX_THREADS: usize = 1024;

const EXIT_CODES: &str = "\
Exit codes:
  0         stopped as asked
  1         cannot listen, or cannot go on; the last line on stderr says why
  2         bad configuration; one line on stderr says which
  130, 143  stopped at once, by a second SIGINT or SIGTERM";

/// Serves Fibonacci numbers over HTTP, with a cache that is a plugin process.
#[derive(Debug, Parser)]
#[command(name = "fib-server", version, disable_help_subcommand = true, after_help = EXIT_CODES)]
pub(super) struct Args {
    /// Address or name to listen on.
    #[arg(long, env = "FIB_HOST", value_name = "HOST", default_value = "127.0.0.1")]
    pub(super) host: String,

    /// Port to listen on; 0 takes any free one.
    #[arg(long, env = "FIB_PORT", value_name = "PORT", default_value_t = 8080)]
    pub(super) port: u16,

    /// File to write `host:port` to once the server listens; removed at exit.
    #[arg(long, env = "FIB_PORT_FILE", value_name = "PATH")]
    pub(super) port_file: Option<PathBuf>,

    /// What to log on stderr; the variable RUST_LOG, if set, has the last word.
    #[arg(
        long,
        env = "FIB_LOG_LEVEL",
        value_name = "LEVEL",
        value_enum,
        ignore_case = true,
        default_value_t
    )]
    pub(super) log_level: LogLevel,

    /// How to log it.
    #[arg(
        long,
        env = "FIB_LOG_FORMAT",
        value_name = "FORMAT",
        value_enum,
        ignore_case = true,
        default_value_t
    )]
    pub(super) log_format: LogFormat,

    /// How long a cached number is valid.
    #[arg(long, env = "FIB_CACHE_EXPIRATION", value_name = "DURATION", value_parser = duration, default_value = "15s")]
    pub(super) cache_expiration: Duration,

    /// Cache plugin: a path, or the name of a plugin in --plugin-dir or beside this program (`memory` is
    /// `fib-cache-memory`). Without one nothing is cached.
    #[arg(long, env = "FIB_CACHE_PLUGIN_PATH", value_name = "PATH-or-NAME")]
    pub(super) cache_plugin_path: Option<PathBuf>,

    /// Cache plugin that somebody else runs, as a service: unix:PATH or tcp:HOST:PORT.
    #[arg(
        long,
        env = "FIB_CACHE_PLUGIN_ATTACH",
        value_name = "ADDRESS",
        conflicts_with = "cache_plugin_path"
    )]
    pub(super) cache_plugin_attach: Option<String>,

    /// Checksum that the plugin's file has to have at every start: sha256:... or sha512:... in hexadecimal digits.
    #[arg(
        long,
        env = "FIB_CACHE_PLUGIN_CHECKSUM",
        value_name = "CHECKSUM",
        conflicts_with = "cache_plugin_attach"
    )]
    pub(super) cache_plugin_checksum: Option<String>,

    /// Argument for the cache plugin; may be given many times. The variable holds one argument.
    #[arg(
        long,
        env = "FIB_CACHE_PLUGIN_ARG",
        value_name = "ARG",
        allow_hyphen_values = true,
        hide_env_values = true
    )]
    pub(super) cache_plugin_arg: Vec<String>,

    /// Environment variable for the cache plugin; may be given many times. FIB_CACHE_PLUGIN_ENV holds one. Its value
    /// is never logged.
    #[arg(long, env = "FIB_CACHE_PLUGIN_ENV", value_name = "K=V", hide_env_values = true)]
    pub(super) cache_plugin_env: Vec<String>,

    /// Where to look for a plugin given by name, before looking beside this program.
    #[arg(long, env = "FIB_PLUGIN_DIR", value_name = "DIR")]
    pub(super) plugin_dir: Option<PathBuf>,

    /// Time a plugin has to become ready once started, or to answer once connected to.
    #[arg(long, env = "FIB_PLUGIN_START_TIMEOUT", value_name = "DURATION", value_parser = duration, default_value = "10s")]
    pub(super) plugin_start_timeout: Duration,

    /// When a plugin that has ended is started again.
    #[arg(
        long,
        env = "FIB_PLUGIN_RESTART",
        value_name = "WHEN",
        value_enum,
        ignore_case = true,
        default_value = "always"
    )]
    pub(super) plugin_restart: Restart,

    /// Delay before each restart that follows a short run or a failed start: FROM..TO doubles each time, and a random
    /// part of it is waited; a single duration is always the same.
    #[arg(long, env = "FIB_PLUGIN_BACKOFF", value_name = "FROM..TO", value_parser = backoff, default_value = "100ms..30s")]
    pub(super) plugin_backoff: Backoff,

    /// Starts in a row that may fail before the plugin is given up, until an operator or a new file starts it anew. One
    /// that starts and says that it cannot work yet is not given up.
    #[arg(long, env = "FIB_PLUGIN_MAX_STARTS", value_name = "COUNT", value_parser = count::<NonZeroU32>, default_value = "5")]
    pub(super) plugin_max_starts: NonZeroU32,

    /// Restarts after which a plugin that serves and dies is given up, as COUNT/DURATION [default: no limit].
    #[arg(long, env = "FIB_PLUGIN_MAX_RESTARTS", value_name = "COUNT/DURATION", value_parser = intensity)]
    pub(super) plugin_max_restarts: Option<Intensity>,

    /// Time between two health checks of the plugin.
    #[arg(long, env = "FIB_PLUGIN_PROBE_INTERVAL", value_name = "DURATION", value_parser = duration, default_value = "1s")]
    pub(super) plugin_probe_interval: Duration,

    /// Time for the plugin to answer a health check; after three in a row without an answer it is killed.
    #[arg(long, env = "FIB_PLUGIN_PROBE_TIMEOUT", value_name = "DURATION", value_parser = duration, default_value = "2s")]
    pub(super) plugin_probe_timeout: Duration,

    /// Time for which a new instance has to be well before it takes over in a reload.
    #[arg(long, env = "FIB_PLUGIN_SETTLE", value_name = "DURATION", value_parser = duration, default_value = "2s")]
    pub(super) plugin_settle: Duration,

    /// Time for calls to the old instance to end in a reload.
    #[arg(long, env = "FIB_PLUGIN_DRAIN", value_name = "DURATION", value_parser = duration, default_value = "10s")]
    pub(super) plugin_drain: Duration,

    /// Have a new instance take over whenever the plugin's file has changed, and start a plugin anew that was given up.
    #[arg(long, env = "FIB_PLUGIN_WATCH", value_parser = BoolishValueParser::new())]
    pub(super) plugin_watch: bool,

    /// Start the plugin with the first request that needs it, and not with the server.
    #[arg(long, env = "FIB_PLUGIN_LAZY", value_parser = BoolishValueParser::new())]
    pub(super) plugin_lazy: bool,

    /// Stop the plugin after so long without a request; the next one starts it [default: never].
    #[arg(long, env = "FIB_PLUGIN_IDLE_AFTER", value_name = "DURATION", value_parser = duration)]
    pub(super) plugin_idle_after: Option<Duration>,

    /// Directory for reports of crashes, a file each, of which the latest 20 are kept [default: they are kept in memory
    /// alone].
    #[arg(long, env = "FIB_PLUGIN_CRASH_DIR", value_name = "DIR")]
    pub(super) plugin_crash_dir: Option<PathBuf>,

    /// Whether this user's `pluginctl` can look at the plugin and steer it.
    #[arg(
        long,
        env = "FIB_CONTROL",
        value_name = "WHETHER",
        value_enum,
        ignore_case = true,
        default_value_t
    )]
    pub(super) control: Control,

    /// Time for one call of the cache; after that the number is calculated.
    #[arg(long, env = "FIB_CACHE_TIMEOUT", value_name = "DURATION", value_parser = duration, default_value = "250ms")]
    pub(super) cache_timeout: Duration,

    /// The largest n that is answered.
    #[arg(long, env = "FIB_MAX_N", value_name = "N", default_value_t = LAST_INDEX,
          value_parser = clap::value_parser!(u8).range(0..=LAST_INDEX as i64))]
    pub(super) max_n: u8,

    /// How numbers are calculated.
    #[arg(
        long,
        env = "FIB_ALGORITHM",
        value_name = "ALGORITHM",
        value_enum,
        ignore_case = true,
        default_value = "naive"
    )]
    pub(super) algorithm: Algorithm,

    /// Time for one calculation; after that the answer is 503.
    #[arg(long, env = "FIB_COMPUTE_TIMEOUT", value_name = "DURATION", value_parser = duration, default_value = "30s")]
    pub(super) compute_timeout: Duration,

    /// Long calculations that run at the same time [default: number of cores].
    #[arg(long, env = "FIB_COMPUTE_THREADS", value_name = "COUNT", value_parser = threads)]
    pub(super) compute_threads: Option<NonZeroUsize>,

    /// Threads that serve requests [default: half the number of cores].
    #[arg(long, env = "FIB_THREADS", value_name = "COUNT", value_parser = threads)]
    pub(super) threads: Option<NonZeroUsize>,

    /// Time to finish requests after SIGTERM, SIGINT or SIGHUP; a second SIGTERM or SIGINT ends the server at once.
    #[arg(long, env = "FIB_DRAIN_TIMEOUT", value_name = "DURATION", value_parser = duration, default_value = "10s")]
    pub(super) drain_timeout: Duration,

    /// Time for a client to send the head of a request, and for which an idle connection is kept.
    #[arg(long, env = "FIB_HEADER_TIMEOUT", value_name = "DURATION", value_parser = duration, default_value = "10s")]
    pub(super) header_timeout: Duration,

    /// Connections open at the same time; more wait in the listen queue. At most the limit on open files (ulimit -Hn)
    /// less 64.
    #[arg(long, env = "FIB_MAX_CONNECTIONS", value_name = "COUNT", value_parser = count::<NonZeroUsize>, default_value = "10000")]
    pub(super) max_connections: NonZeroUsize,
}

/// When a plugin that has ended is started again.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Restart {
    /// Whatever it has ended with.
    Always,
    /// Not if its exit status was 0.
    OnFailure,
    /// Not at all.
    Never,
}

impl From<Restart> for plugin_sdk::host::Restart {
    fn from(restart: Restart) -> Self {
        match restart {
            Restart::Always => Self::Always,
            Restart::OnFailure => Self::OnFailure,
            Restart::Never => Self::Never,
        }
    }
}

/// Reads `100ms..30s` or `50ms`.
fn backoff(text: &str) -> Result<Backoff, String> {
    match text.split_once("..") {
        None => duration(text).map(Backoff::constant),
        Some((from, to)) => match (duration(from)?, duration(to)?) {
            (from, to) if from <= to => Ok(Backoff::exponential(from, to)),
            _ => Err("must not end before it begins".into()),
        },
    }
}

/// Reads `5/1m`.
fn intensity(text: &str) -> Result<Intensity, String> {
    let (restarts, within) = text.split_once('/').ok_or("write it like 5/1m")?;
    let restarts = restarts.parse().map_err(|error| format!("{restarts:?}: {error}"))?;
    Ok(Intensity { restarts, within: duration(within)? })
}

/// Reads `15s`, `1h30m`, `250ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let duration =
        humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 15s or 1m30s"))?;
    match duration {
        Duration::ZERO => Err("must be more than zero".into()),
        d if d > MAX_DURATION => Err("must be at most a hundred years".into()),
        d => Ok(d),
    }
}

/// Reads a number that is not zero, and not too large.
fn count<T: Count>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("must be a number from 1 to {}", T::MAX))
}

trait Count: FromStr + Display {
    const MAX: Self;
}

impl Count for NonZeroU32 {
    const MAX: Self = Self::MAX;
}

impl Count for NonZeroUsize {
    const MAX: Self = Self::MAX;
}

fn threads(text: &str) -> Result<NonZeroUsize, String> {
    match text.parse::<NonZeroUsize>() {
        Ok(count) if count.get() <= MAX_THREADS => Ok(count),
        _ => Err(format!("must be a number from 1 to {MAX_THREADS}")),
    }
}
