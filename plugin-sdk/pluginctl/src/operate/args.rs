//! The commands for operators, as clap sees them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use plugin_sdk::control::Level;

use crate::cli::{Format, duration};

/// What can be done to the plugins of a running host.
#[derive(Debug, Subcommand)]
pub(crate) enum Operate {
    /// List the plugins of a running host.
    #[command(visible_alias = "ls")]
    List(Place),

    /// Show all there is to know about one plugin. The exit code says how it is.
    #[command(after_help = STATUS_CODES)]
    Status(OnePlugin),

    /// End a plugin's process and start another; two operators at once get one restart.
    Restart(GiveOrder),

    /// Have another process take over without a call being lost.
    ///
    /// It is started beside the old one and takes over once it is well. If it is not, the old one goes on, and the reason is
    /// told. Without --path it is of the same executable, whatever its file holds now.
    Reload(Reload),

    /// End a plugin; it stays ended until it is started.
    Stop(GiveOrder),

    /// Start a plugin that does not run, with all failures forgotten.
    Start(GiveOrder),

    /// Start a plugin that was disabled.
    Enable(GiveOrder),

    /// End a plugin; nothing but `enable` starts it again.
    Disable(GiveOrder),

    /// Forget a plugin's failures: start it if it was given up, or waits for its next start.
    Clear(GiveOrder),

    /// Show what a plugin has logged and printed, the latest 2,000 lines.
    Logs(Logs),

    /// Show what was decided about plugins and seen of them, and why.
    Events(Events),

    /// List the crashes that the host remembers, or show all that is known of one.
    Crashes(Crashes),

    /// Show again and again what the plugins do and use, until Ctrl-C.
    Top(Top),

    /// Change from which level on the host logs what a plugin says, or its own lines.
    LogLevel(LogLevel),
}

impl Operate {
    pub(crate) fn place_mut(&mut self) -> &mut Place {
        match self {
            Self::List(place) => place,
            Self::Status(one) => &mut one.place,
            Self::Restart(order)
            | Self::Stop(order)
            | Self::Start(order)
            | Self::Enable(order)
            | Self::Disable(order)
            | Self::Clear(order) => &mut order.one.place,
            Self::Reload(reload) => &mut reload.order.one.place,
            Self::Logs(logs) => &mut logs.one.place,
            Self::Events(events) => &mut events.place,
            Self::Crashes(crashes) => &mut crashes.place,
            Self::Top(top) => &mut top.place,
            Self::LogLevel(level) => &mut level.one.place,
        }
    }
}

const STATUS_CODES: &str = "\
Exit codes of its own:
  0  it serves
  4  it does not run: starting, stopping, stopped, disabled, or waiting for its next start
  5  it is degraded, or was given up";

/// Which host, and how the result looks; the same for all commands.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The host, where several run: the name of its program, its process, or, where containers have one of the same number each,
    /// its directory's name.
    #[arg(long, value_name = "NAME|PID|DIR", env = "PLUGINCTL_HOST", conflicts_with = "socket")]
    pub(crate) host: Option<String>,

    /// Where hosts have their directories, in place of all the usual places, such as /run/user/1000/plugin-hosts.
    #[arg(long, value_name = "DIR", env = "PLUGINCTL_RUNTIME_DIR")]
    pub(crate) runtime_dir: Option<PathBuf>,

    /// The host's control socket, where it is not found by itself.
    #[arg(long, value_name = "PATH", env = "PLUGINCTL_SOCKET")]
    pub(crate) socket: Option<PathBuf>,

    /// The program's flag, which may stand before the command, too.
    #[arg(skip)]
    pub(crate) output: Format,

    /// Whether text has colours. By itself, if stdout is a terminal and NO_COLOR is not set; CLICOLOR_FORCE is understood.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    pub(crate) color: Color,
}

/// When text has colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On terminals.
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Debug, Args)]
pub(crate) struct OnePlugin {
    /// The plugin; need not be named if it is the host's only one.
    #[arg(value_name = "PLUGIN", default_value = "", hide_default_value = true)]
    pub(crate) plugin: String,

    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, Args)]
pub(crate) struct GiveOrder {
    #[command(flatten)]
    pub(crate) one: OnePlugin,

    #[command(flatten)]
    pub(crate) wait: Waiting,
}

#[derive(Debug, Args)]
pub(crate) struct Waiting {
    /// Wait until it is known what the order has led to; this is what happens anyway.
    #[arg(long, conflicts_with = "no_wait")]
    pub(crate) wait: bool,

    /// Do not wait: the order is taken, and `status` and `events` show what it leads to.
    #[arg(long)]
    pub(crate) no_wait: bool,

    /// How long to wait. The order is not taken back after that.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5m")]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Reload {
    #[command(flatten)]
    pub(crate) order: GiveOrder,

    /// The executable that is run from now on. If the reload fails, the old one stays.
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    #[command(flatten)]
    pub(crate) one: OnePlugin,

    #[command(flatten)]
    pub(crate) range: Range,

    /// Only lines that are at least so important.
    #[arg(long, value_name = "LEVEL", value_enum)]
    pub(crate) level: Option<LevelName>,
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// The plugin [default: all].
    #[arg(value_name = "PLUGIN", default_value = "", hide_default_value = true)]
    pub(crate) plugin: String,

    #[command(flatten)]
    pub(crate) place: Place,

    #[command(flatten)]
    pub(crate) range: Range,
}

#[derive(Debug, Args)]
pub(crate) struct Range {
    /// Go on with what comes, until Ctrl-C or the end of the host.
    #[arg(short, long)]
    pub(crate) follow: bool,

    /// At most so many of those that the host has kept, the latest [default: all].
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) tail: Option<u32>,

    /// Only what came in so long until now, such as 5m.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) since: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct Crashes {
    /// The plugin [default: all].
    #[arg(value_name = "PLUGIN", default_value = "", hide_default_value = true)]
    pub(crate) plugin: String,

    /// Show all that is known of one crash, what the plugin wrote to stderr among it.
    #[arg(long, value_name = "NUMBER|last", value_parser = crash_number)]
    pub(crate) show: Option<u64>,

    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, Args)]
pub(crate) struct Top {
    #[command(flatten)]
    pub(crate) place: Place,

    /// How often.
    #[arg(short, long, value_name = "DURATION", value_parser = duration, default_value = "1s")]
    pub(crate) interval: Duration,

    /// End after so many tables [default: never].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct LogLevel {
    /// The level.
    #[arg(value_name = "LEVEL", value_enum)]
    pub(crate) level: LevelName,

    #[command(flatten)]
    pub(crate) one: OnePlugin,

    /// Change the level of the host's own lines.
    #[arg(long, conflicts_with = "plugin")]
    pub(crate) of_host: bool,
}

/// Levels by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LevelName {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl From<LevelName> for Level {
    fn from(name: LevelName) -> Self {
        match name {
            LevelName::Trace => Self::Trace,
            LevelName::Debug => Self::Debug,
            LevelName::Info => Self::Info,
            LevelName::Warn => Self::Warn,
            LevelName::Error => Self::Error,
        }
    }
}

/// 0 is the latest, as in the protocol.
fn crash_number(text: &str) -> Result<u64, String> {
    match text {
        "last" => Ok(0),
        _ => {
            text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "a number from 1, or `last`".into())
        }
    }
}
