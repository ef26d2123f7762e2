//! `pluginctl`: looks at plugins and calls them, from a shell.
//!
//! ```text
//! cli ─▶ config ─▶ inspect ─▶ report on stdout        plugin's stderr ─▶ log ─▶ report, or talk
//!            ├───▶ call ────▶ messages on stdout      all else        ─▶ talk ─▶ stderr
//!            └───▶ operate ─▶ a running host's control socket
//! ```
//!
//! For `inspect` and `call` it is a host like any other, built on `plugin-sdk`, and knows nothing of what plugins are for: what it needs to know, such as
//! the magic cookie and the .proto files, it is told.

mod call;
mod certificate;
mod cli;
mod config;
mod data;
mod dynamic;
mod escape;
mod failure;
mod inspect;
mod limits;
mod log;
mod metadata;
mod operate;
mod output;
mod reflection;
mod schema;
mod status;
mod stop;
mod talk;

use std::pin::pin;
use std::process::ExitCode;

use clap::error::ErrorKind;
use plugin_sdk::one_line;

use config::{Config, Task, UsageError};
use failure::Failure;
use log::{Kept, Sink};
use output::{Output, OutputError};
use stop::{Signals, Stop};
use talk::Talk;

/// Exit code for a command line that cannot be used; what clap uses.
const USAGE: u8 = 2;

/// Exit code of a program whose stdout was closed; as if SIGPIPE had ended it, which is what happens to most.
const STDOUT_CLOSED: u8 = 141;

fn main() -> ExitCode {
    let Ok(talk) = Talk::start(std::io::stderr()) else {
        // No thread can be started, so nothing can.
        return ExitCode::FAILURE;
    };
    let code = match Config::parse(std::env::args_os()) {
        Ok(config) => run(config, &talk),
        Err(UsageError::Clap(told)) if is_help(&told) => {
            // If nobody reads it there is nobody to tell.
            let _ = told.print();
            return ExitCode::from(if told.use_stderr() { USAGE } else { 0 });
        }
        Err(error) => {
            talk.say_at_last(format_args!("pluginctl: {}", one_line(&error)));
            ExitCode::from(USAGE)
        }
    };
    talk.flush(limits::LAST_WORDS);
    code
}

/// Help or the version, also for those who have said nothing; not an error, which is one line.
fn is_help(told: &clap::Error) -> bool {
    !told.use_stderr() || told.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
}

fn run(config: Config, talk: &Talk) -> ExitCode {
    // To end what only looks on is no news.
    let nothing_is_stopped = matches!(config, Config::Operate(_));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(obey_signals(config, talk));
            // Reading stdin and writing stdout may never end.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(Failure::Runtime(error)),
    };
    // A plugin that was not stopped in order, since its start failed or time was short, was told to die.
    let left = plugin_sdk::host::kill_all(limits::REAP);
    let code = match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Output(OutputError::Closed)) => ExitCode::from(STDOUT_CLOSED),
        Err(Failure::Stopped(signal)) if nothing_is_stopped => ExitCode::from(signal.exit_code()),
        Err(Failure::Operate(error)) if error.is_said() => ExitCode::from(error.exit_code()),
        Err(failure) => {
            let hint = failure.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
            talk.say_at_last(format_args!("pluginctl: {}{hint}", one_line(&failure)));
            match failure {
                Failure::Stopped(signal) => ExitCode::from(signal.exit_code()),
                Failure::Operate(error) => ExitCode::from(error.exit_code()),
                _ => ExitCode::FAILURE,
            }
        }
    };
    if left == 0 {
        return code;
    }
    talk.say_at_last("pluginctl: the plugin does not end although it was killed");
    ExitCode::FAILURE
}

/// Does the work. The first signal asks it to end, which stops the plugin; the second drops it, which kills the plugin.
async fn obey_signals(config: Config, talk: &Talk) -> Result<(), Failure> {
    let mut signals = Signals::new().map_err(Failure::Runtime)?;
    let (ask, stop) = Stop::new();
    let mut work = pin!(work(config, talk, &stop));
    let signal = tokio::select! {
        biased;
        done = &mut work => return done,
        signal = signals.next() => signal,
    };
    ask.send_replace(Some(signal));
    tokio::select! {
        biased;
        _ = &mut work => {}
        _ = signals.next() => {}
    }
    Err(Failure::Stopped(signal))
}

async fn work(config: Config, talk: &Talk, stop: &Stop) -> Result<(), Failure> {
    let mut output = Output::stdout();
    let (launch, timeout, format, task) = match config {
        Config::Operate(args) => return stop.or(operate::operate(*args, &mut output, talk)).await?,
        Config::Completions(shell) => {
            return Ok(stop.or(output.text(&operate::generate::completions(shell))).await??);
        }
        Config::Man(dir) => return Ok(operate::generate::man(&dir)?),
        Config::Plugin { launch, timeout, format, task } => (launch, timeout, format, task),
    };
    match task {
        Task::Inspect => {
            let kept = Kept::default();
            log::collect(talk.clone(), Sink::Keep(kept.clone()));
            let (report, outcome) = inspect::inspect(&launch, timeout, &kept, stop).await;
            stop.or(report.print(&mut output, format)).await??;
            outcome
        }
        Task::Call(call) => {
            log::collect(talk.clone(), if call.verbose { Sink::Say } else { Sink::Ignore });
            call::call(call, &launch, timeout, call::Show::new(&mut output, talk, format), stop).await
        }
    }
}
