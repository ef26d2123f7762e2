//! The command line as clap sees it. Whatever may hold a secret is taken as plain text here and read by
//! [`config`](crate::config), whose errors never repeat it; clap's would.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::limits::MAX_DURATION;
use crate::operate::args::Operate;
use crate::schema::MethodName;

const EXIT_CODES: &str = "\
Exit codes:
  0    all worked; what was started here is gone
  1    something failed; the last line on stderr says what
  2    the command line cannot be used, or a host or plugin has to be named; nothing was done
  3    the host has no such plugin
  4    no host runs, or it has stopped; `status`: the plugin does not run
  5    `status`: the plugin is degraded, or was given up
  130  ended by Ctrl-C, and the plugin was stopped; 129 by SIGHUP, 143 by SIGTERM
  141  whoever read stdout has gone";

/// Looks at plugins and calls them, and steers those of a running host: any executable that speaks the protocol of
/// HashiCorp's go-plugin over gRPC, in whatever language it is written.
///
/// `inspect` and `call` start the plugin, as its host would, and stop it before they end. The other commands start
/// nothing: they ask a running host, through its control socket. Data goes to stdout, all else to stderr.
#[derive(Debug, Parser)]
#[command(name = "pluginctl", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// How the result looks: `text` for people, `json` for programs, one object, or one per line for what goes on.
    #[arg(short, long, global = true, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) output: Format,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a plugin, show all there is to know about it, and stop it.
    ///
    /// Shows what the plugin said in its handshake, its certificate, its health, its services and methods (by gRPC
    /// reflection), how long its start took, what it logged and how it ended. If something fails, it shows what is known
    /// until then.
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect(InspectArgs),

    /// Start a plugin, call one of its methods, and stop it.
    ///
    /// The messages are JSON, in protobuf's own mapping: bytes are base64, 64-bit numbers may be texts. What they are
    /// made of is learnt from the plugin by gRPC reflection, or from .proto files.
    #[command(after_help = CALL_EXAMPLES)]
    Call(CallArgs),

    #[command(flatten)]
    Operate(Operate),

    /// Print a script that completes command lines in a shell.
    Completions {
        /// The shell.
        #[arg(value_name = "SHELL", value_enum)]
        shell: Shell,
    },

    /// Write the manual pages into a directory.
    Man {
        /// The directory.
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
}

const INSPECT_EXAMPLES: &str = "\
Examples:
  pluginctl inspect ./kv-plugin --cookie BASIC_PLUGIN=hello
  pluginctl inspect ./kv-plugin --cookie BASIC_PLUGIN=hello --app-versions 2,3 --auto-mtls -o json";

const CALL_EXAMPLES: &str = "\
Examples:
  pluginctl call ./kv-plugin proto.KV/Get --cookie BASIC_PLUGIN=hello --data '{\"key\": \"a\"}'
  pluginctl call ./kv-plugin proto.KV/Get --cookie BASIC_PLUGIN=hello --proto kv.proto --data @request.json
  printf '\"one\" \"two\"' | pluginctl call ./chat chat.v1.Chat/Talk --cookie CHAT=1 --data -";

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) start: StartArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CallArgs {
    #[command(flatten)]
    pub(crate) start: StartArgs,

    /// The method, as pkg.Service/Method.
    #[arg(value_name = "METHOD")]
    pub(crate) method: MethodName,

    /// The message to send, as JSON; @FILE reads it from a file, - from stdin. A method that takes a stream gets one
    /// message for each JSON value, as they come [default: an empty message, or an empty stream].
    #[arg(short, long, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    pub(crate) data: Option<OsString>,

    /// A .proto file that declares the service, in place of reflection; may be given many times.
    #[arg(long, value_name = "FILE")]
    pub(crate) proto: Vec<PathBuf>,

    /// A directory to look for imports of the .proto files in, before their own; may be given many times.
    #[arg(short = 'I', long = "include", value_name = "DIR", requires = "proto")]
    pub(crate) include: Vec<PathBuf>,

    /// Metadata to send with the call; may be given many times. Values for names that end with -bin are base64.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", allow_hyphen_values = true)]
    pub(crate) header: Vec<String>,

    /// Show on stderr what else there is: the plugin's metadata, trailers, log lines and end.
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

/// How the plugin is started; the same for all commands.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// The plugin's executable. PATH is not searched.
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,

    /// The plugin's magic cookie: the variable without which it does not start. It is a constant in the source of the
    /// plugin and of its host.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) cookie: Option<String>,

    /// Application protocol versions to offer; the plugin takes the highest that it has.
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "1")]
    pub(crate) app_versions: Vec<u32>,

    /// Secure the connection with one-time certificates (go-plugin's AutoMTLS).
    #[arg(long)]
    pub(crate) auto_mtls: bool,

    /// Ask for all brokered connections to share one socket (go-plugin's GRPCBrokerMultiplex).
    #[arg(long)]
    pub(crate) multiplex: bool,

    /// An argument for the plugin; may be given many times.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) arg: Vec<OsString>,

    /// An environment variable for the plugin; may be given many times. Its value is never shown.
    #[arg(long, value_name = "K=V")]
    pub(crate) env: Vec<OsString>,

    /// Do not pass this program's environment on, but for what programs need to find their way, such as PATH and HOME.
    #[arg(long)]
    pub(crate) clean_env: bool,

    /// Time for the plugin to start, up to its first answer.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10s")]
    pub(crate) start_timeout: Duration,

    /// Time for each call, from its beginning to its end; for a stream too.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    pub(crate) timeout: Duration,
}

/// How a result looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people; the answers of a call are JSON all the same, indented.
    #[default]
    Text,
    /// For programs: a report is one object; a call gives one object per line, `{"headers"}`, then each `{"message"}`, then
    /// `{"status", "trailers"}`, or `{"error"}` where the call did not get so far.
    Json,
}

/// Reads `15s`, `1h30m`, `250ms`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Err(error) => Err(format!("{error}; write it like 15s or 1m30s")),
        Ok(Duration::ZERO) => Err("must be more than zero".into()),
        Ok(duration) if duration > MAX_DURATION => Err("must be at most a hundred years".into()),
        Ok(duration) => Ok(duration),
    }
}
