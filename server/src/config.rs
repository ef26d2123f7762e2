//! Command line and environment -> a checked [`Config`].
//!
//! Nothing here binds, starts or writes. Each flag is also a variable: `--cache-plugin-path` is
//! `FIB_CACHE_PLUGIN_PATH`; the flag wins, and a variable that is set to nothing counts as not set. The single-dash
//! flags of the Go service that this one replaces still work.

mod args;
mod legacy;
mod locate;
mod plugin;

use std::{env, ffi::OsString, num::NonZeroUsize, path::PathBuf, thread, time::Duration};

use clap::{
    ArgMatches, CommandFactory, FromArgMatches,
    error::{ContextKind, ContextValue},
};
use plugin_sdk::host::{LaunchError, Supervisor};

use self::args::Args;
use crate::fib::Algorithm;

/// All that the operator has decided, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Listening and connections.
    pub http: HttpConfig,
    /// What is logged, and how.
    pub log: LogConfig,
    /// Calculations.
    pub compute: ComputeConfig,
    /// The cache plugin; without one nothing is cached.
    pub cache: Option<CacheConfig>,
    /// Whether operators can look at the plugin and steer it.
    pub control: Control,
    /// Flags that were accepted and have no effect, for the log.
    pub warnings: Vec<String>,
}

/// Listening and connections.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Address or name to listen on.
    pub host: String,
    /// Port to listen on; 0 takes any free one.
    pub port: u16,
    /// File for the address that was bound.
    pub port_file: Option<PathBuf>,
    /// Time for a client to send the head of a request, and for which an idle connection is kept.
    pub header_timeout: Duration,
    /// Time for which a client may take in nothing of an answer. No flag, since no client needs another value.
    pub write_timeout: Duration,
    /// Threads that serve requests.
    pub threads: NonZeroUsize,
    /// Connections open at the same time.
    pub max_connections: NonZeroUsize,
    /// Time to finish requests after the first signal.
    pub drain_timeout: Duration,
}

/// What is logged, and how.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Least important lines to log.
    pub level: LogLevel,
    /// How lines look.
    pub format: LogFormat,
}

/// Calculations.
#[derive(Clone, Debug)]
pub struct ComputeConfig {
    /// How numbers are calculated.
    pub algorithm: Algorithm,
    /// The largest n that is answered.
    pub max_n: u8,
    /// Time for one calculation, and for one caller to wait for it.
    pub timeout: Duration,
    /// Long calculations at the same time, and as many short ones.
    pub threads: NonZeroUsize,
}

/// The cache plugin.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// What to run or attach to, and how to keep it running.
    pub supervisor: Supervisor,
    /// How long a number that is stored is valid; at most a hundred years.
    pub expiration: Duration,
    /// Time for one call.
    pub timeout: Duration,
    /// What the first start waits for.
    pub first_start: FirstStart,
    /// Time without a request after which the plugin is ended; `None` for never.
    pub idle_after: Option<Duration>,
}

/// When the plugin is started first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstStart {
    /// With the server, which is ready once that has succeeded or failed.
    WithServer,
    /// With the first request that needs it: the server is ready before.
    WhenNeeded,
}

/// Whether there is a control socket, for `pluginctl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Control {
    /// Through a socket that no other user can open.
    #[default]
    On,
    /// Not at all.
    Off,
}

/// Least important lines to log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
#[allow(missing_docs)]
pub enum LogLevel {
    Off,
    Error,
    #[value(alias = "warning")]
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl From<tracing::Level> for LogLevel {
    fn from(level: tracing::Level) -> Self {
        match level {
            tracing::Level::ERROR => Self::Error,
            tracing::Level::WARN => Self::Warn,
            tracing::Level::INFO => Self::Info,
            tracing::Level::DEBUG => Self::Debug,
            tracing::Level::TRACE => Self::Trace,
        }
    }
}

impl LogLevel {
    /// The name that log filters know.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Time for which a client may take in nothing of an answer before its connection is closed. Answers are smaller
/// than any socket buffer, so only a client that sends requests without ever reading gets here.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

impl Config {
    /// Reads a command line, program name first, and the environment.
    pub fn parse(args: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Self, ConfigError> {
        let command = without_empty_variables(Args::command());
        let modern = legacy::modernise(args.into_iter().map(Into::into), &command);
        let told = command.clone();
        let matches = command.try_get_matches_from(modern.args.clone());
        let matches = matches.map_err(|error| name_variable(error, &told, &modern.args))?;
        Self::check(Args::from_arg_matches(&matches)?, &matches, modern.warnings)
    }

    fn check(args: Args, matches: &ArgMatches, mut warnings: Vec<String>) -> Result<Self, ConfigError> {
        if args.host.is_empty() {
            return Err(ConfigError::Value { flag: "--host", problem: "must not be empty".into() });
        }
        warnings.extend(plugin::warnings(&args, matches));
        Ok(Self {
            cache: plugin::check(&args)?,
            control: args.control,
            http: HttpConfig {
                // `[::1]` is how an IPv6 address is written in front of a port.
                host: args.host.trim_start_matches('[').trim_end_matches(']').to_owned(),
                port: args.port,
                port_file: args.port_file,
                header_timeout: args.header_timeout,
                write_timeout: WRITE_TIMEOUT,
                threads: args.threads.unwrap_or_else(serving_threads),
                max_connections: args.max_connections,
                drain_timeout: args.drain_timeout,
            },
            log: LogConfig { level: args.log_level, format: args.log_format },
            compute: ComputeConfig {
                algorithm: args.algorithm,
                max_n: args.max_n,
                timeout: args.compute_timeout,
                threads: args.compute_threads.unwrap_or_else(cores),
            },
            warnings,
        })
    }
}

/// Why the program did not start. The operator's move, always.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The command line or a variable is not understood; also how clap hands over `--help` and `--version`.
    #[error("{}", one_paragraph(.0))]
    Usage(clap::Error),
    /// A value that clap takes and we do not.
    #[error("{flag}: {problem}")]
    Value {
        /// The flag, with its dashes.
        flag: &'static str,
        /// What is wrong with its value.
        problem: String,
    },
    /// The file of the plugin cannot be run.
    #[error("--cache-plugin-path")]
    Plugin(#[source] LaunchError),
}

impl From<clap::Error> for ConfigError {
    /// Not as a source: its text is in ours already.
    fn from(error: clap::Error) -> Self {
        Self::Usage(error)
    }
}

/// clap's message without its blank lines and the usage after it, so that it fits on one line.
fn one_paragraph(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let kept: Vec<_> =
        lines.take_while(|l| !l.starts_with("Usage:") && !l.starts_with("For more information")).collect();
    kept.join("; ").trim_start_matches("error: ").to_owned()
}

/// Adds where a value is from that the command line does not have: clap names the flag alone.
fn name_variable(mut error: clap::Error, command: &clap::Command, args: &[OsString]) -> clap::Error {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return error };
    let flag = flag.split(' ').next().unwrap_or_default().to_owned();
    let is_said = args.iter().any(|arg| arg.to_string_lossy().split('=').next() == Some(&flag));
    let variable = command.get_arguments().find(|arg| flag.strip_prefix("--") == arg.get_long());
    let variable = variable.and_then(clap::Arg::get_env).filter(|name| env::var_os(name).is_some());
    if let Some(variable) = variable.filter(|_| !is_said) {
        let tip = format!("it is the value of the variable {}", variable.display());
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

fn without_empty_variables(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| {
        let is_empty = arg.get_env().and_then(env::var_os).is_some_and(|value| value.is_empty());
        if is_empty { arg.env(None) } else { arg }
    })
}

fn cores() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// One, unless there are more than two cores: on two, which it shares with the plugin and the clients, a second thread was
/// measured to make the server slower. With more, half of them.
fn serving_threads() -> NonZeroUsize {
    NonZeroUsize::new(cores().get() / 2).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Config, ConfigError> {
        Config::parse(std::iter::once("fib-server").chain(args.iter().copied()))
    }

    #[test]
    fn flags_are_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn each_flag_is_also_a_variable() {
        for arg in Args::command().get_arguments() {
            let Some(long) = arg.get_long().filter(|long| !["help", "version"].contains(long)) else {
                continue;
            };
            let variable = format!("FIB_{}", long.replace('-', "_").to_uppercase());
            assert_eq!(arg.get_env().unwrap().to_str(), Some(variable.as_str()));
        }
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let config = parse(&[]).unwrap();
        assert_eq!((config.http.host.as_str(), config.http.port), ("127.0.0.1", 8080));
        assert_eq!((config.log.level, config.log.format), (LogLevel::Info, LogFormat::Text));
        assert_eq!((config.compute.algorithm, config.compute.max_n), (Algorithm::Naive, 93));
        assert_eq!(config.compute.timeout, Duration::from_secs(30));
        assert_eq!(config.http.max_connections.get(), 10_000);
        assert!(config.cache.is_none());
    }

    #[test]
    fn old_and_new_spellings_give_the_same() {
        for args in [
            &["--port=9", "--log-level=DEBUG", "--max-n", "50", "--algorithm", "doubling"][..],
            &["-port", "9", "-log-level=Debug", "-max-n=50", "-algorithm=Doubling", "-cache-expiration=1m0s"],
        ] {
            let config = parse(args).unwrap();
            assert_eq!(config.http.port, 9);
            assert_eq!(config.log.level, LogLevel::Debug);
            assert_eq!((config.compute.max_n, config.compute.algorithm), (50, Algorithm::Doubling));
        }
        assert_eq!(parse(&["-cache-plugin-factory-name", "F"]).unwrap().warnings.len(), 1);
        assert_eq!(parse(&["--host", "[::1]"]).unwrap().http.host, "::1");
    }

    #[test]
    fn a_bad_value_is_one_line_that_names_its_flag() {
        for (args, flag) in [
            (&["--port=65536"][..], "--port"),
            (&["-port=x"], "--port"),
            (&["--host="], "--host"),
            (&["--max-n=94"], "--max-n"),
            (&["--log-level=loud"], "--log-level"),
            (&["--log-format=xml"], "--log-format"),
            (&["--cache-expiration=0s"], "--cache-expiration"),
            (&["--cache-expiration=-1s"], "--cache-expiration"),
            (&["--cache-expiration=15"], "--cache-expiration"),
            (&["--compute-timeout=1000years"], "--compute-timeout"),
            (&["--compute-threads=0"], "--compute-threads"),
            (&["--threads=0"], "--threads"),
            (&["--max-connections=0"], "--max-connections"),
            (&["--cache-plugin-env=x"], "--cache-plugin-env"),
            (&["--cache-plugin-env==x"], "--cache-plugin-env"),
            (&["--cache-plugin-path=no-such-plugin"], "--cache-plugin-path"),
            (&["--cache-plugin-path=/no/such/plugin"], "--cache-plugin-path"),
            (&["--cache-plugin-path=/etc/passwd"], "--cache-plugin-path"),
            (&["--cache-plugin-path=/"], "--cache-plugin-path"),
            (
                &["--cache-plugin-checksum=sha256:12", "--cache-plugin-path=/bin/true"],
                "--cache-plugin-checksum",
            ),
            (&["--cache-plugin-checksum=", "--cache-plugin-path=/bin/true"], "--cache-plugin-checksum"),
            (&["--cache-plugin-attach=run/x"], "--cache-plugin-attach"),
            (&["--cache-plugin-attach=unix:"], "--cache-plugin-attach"),
            (&["--cache-plugin-attach=unix:/x", "--cache-plugin-path=/bin/true"], "--cache-plugin-attach"),
            (&["--plugin-backoff=1s..100ms"], "--plugin-backoff"),
            (&["--plugin-backoff=fast"], "--plugin-backoff"),
            (&["--plugin-max-restarts=5"], "--plugin-max-restarts"),
            (&["--plugin-max-restarts=x/1m"], "--plugin-max-restarts"),
            (&["--plugin-max-starts=0"], "from 1 to 4294967295"),
            (&["--max-connections=many"], "from 1 to"),
            (&["--plugin-restart=perhaps"], "--plugin-restart"),
            (&["--plugin-probe-timeout=0s"], "--plugin-probe-timeout"),
            (&["--plugin-settle=soon"], "--plugin-settle"),
            (
                &["--plugin-crash-dir=/no/such/directory", "--cache-plugin-path=/bin/true"],
                "no file can be made in /no/such/directory: No such file",
            ),
            // Where not even root can write.
            (&["--plugin-crash-dir=/proc/self", "--cache-plugin-path=/bin/true"], "--plugin-crash-dir"),
            (
                &["--cache-plugin-checksum=sha256:12", "--cache-plugin-attach=unix:/x"],
                "--cache-plugin-checksum",
            ),
            (&["--plugin-watch", "--cache-plugin-attach=unix:/x"], "--plugin-watch"),
            (&["--control=maybe"], "--control"),
            (&["-prot=1"], "-p"),
            (&["--prot=1"], "--port"),
        ] {
            let error = parse(args).unwrap_err();
            let line = plugin_sdk::one_line(&error).to_string();
            assert!(line.contains(flag) && !line.contains('\n'), "{args:?}: {line}");
        }
    }

    #[test]
    fn values_of_variables_never_show() {
        let error = parse(&["--cache-plugin-env", "hunter2"]).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
        let config =
            parse(&["--cache-plugin-path=/bin/true", "--cache-plugin-env", "PASSWORD=hunter2"]).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn flags_without_an_effect_are_told() {
        let attach = "--cache-plugin-attach=unix:/x";
        let all = ["--cache-plugin-arg=x", "--cache-plugin-env=A=b", "--plugin-watch", "--plugin-lazy"];
        let named = |args: &[&str]| -> Vec<String> {
            let warnings = parse(args).unwrap().warnings.into_iter();
            warnings.map(|warning| warning.split(' ').next().unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(
            named(&all),
            ["--cache-plugin-arg", "--cache-plugin-env", "--plugin-watch", "--plugin-lazy"]
        );
        let more =
            ["--plugin-backoff=1s..2s", "--plugin-idle-after=1m", "--cache-timeout=1s", "--control=off"];
        let mut told = named(&more);
        told.sort_unstable();
        let mut expected = more.map(|flag| flag.split('=').next().unwrap());
        expected.sort_unstable();
        assert_eq!(told, expected);
        assert_eq!(named(&["--port=1", "--drain-timeout=1s"]), [""; 0]);
        assert_eq!(named(&["--cache-plugin-checksum=sha256:12"]), ["--cache-plugin-checksum"]);
        assert_eq!(named(&[&all[..], &["--cache-plugin-path=/bin/true"]].concat()), [""; 0]);
        // An attached plugin that is lazy is connected to with the first request.
        assert_eq!(named(&[attach, all[0], all[1], all[3]]), ["--cache-plugin-arg", "--cache-plugin-env"]);
    }

    #[test]
    fn attached_plugin_has_the_start_timeout_to_answer() {
        let config = parse(&["--cache-plugin-attach=unix:/x", "--plugin-start-timeout=1234567ms"]).unwrap();
        assert!(format!("{:?}", config.cache).contains("1234.567s"));
    }

    #[test]
    fn plugin_arguments_may_begin_with_dashes() {
        let args =
            ["--cache-plugin-path=/bin/true", "--cache-plugin-arg", "--port=1", "--cache-plugin-arg=-x"];
        let config = parse(&args).unwrap();
        assert_eq!(config.http.port, 8080);
        assert!(format!("{:?}", config.cache).contains(r#""--port=1", "-x""#));
    }
}
