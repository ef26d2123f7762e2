//! `fib-server`: arguments, logging, run time, signals, exit codes.
//!
//! Exit codes: 0 stopped as asked, 1 cannot listen, 2 bad configuration, 130 and 143 stopped at once by a second
//! SIGINT or SIGTERM.

mod signals;

use std::{
    env,
    error::Error,
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use fib_server::{
    BindError, Config, Service,
    compute::Pool,
    config::ConfigError,
    descriptors,
    logging::{self, InitError, LevelControl},
};
use plugin_sdk::{host::ControlOptions, one_line};
use tokio::runtime::{Builder, Runtime};
use tracing::{error, warn};

use self::signals::{AtOnce, Signals};

/// Exit code for a bad configuration; what clap uses.
const USAGE: u8 = 2;

/// Threads for blocking work other than calculations: the standard library's name resolution, and room to spare.
const SPARE_BLOCKING_THREADS: usize = 8;

/// Time for threads to end once everything has been told to stop. Calculations take a millisecond.
const RUNTIME_SHUTDOWN: Duration = Duration::from_secs(1);

/// Time for the kernel to remove plugins that got SIGKILL. It takes milliseconds, unless a file system hangs.
const PLUGIN_REAP: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let mut config = match Config::parse(env::args_os()) {
        Ok(config) => config,
        Err(ConfigError::Usage(asked)) if !asked.use_stderr() => {
            // Help or version. If stdout is closed there is nobody to tell.
            let _ = asked.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => return refuse(&error),
    };
    let (level, _flush) = match logging::init(&config.log) {
        Ok(log) => log,
        Err(error @ InitError::Thread(_)) => {
            tell(&error);
            return ExitCode::FAILURE;
        }
        Err(error) => return refuse(&error),
    };
    for warning in &config.warnings {
        warn!("{warning}");
    }
    config.http.max_connections = descriptors::make_room(config.http.max_connections);
    let runtime = match runtime(&config) {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "cannot start the run time");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(run(config, level));
    match outcome {
        // Calculations go on until the requests that want them are dropped, with the run time, and end with the process.
        Ok(Stopped::AtOnce(_)) => runtime.shutdown_background(),
        _ => runtime.shutdown_timeout(RUNTIME_SHUTDOWN),
    }
    // A plugin that was not stopped in order, for want of time, was told to die when its handle was dropped.
    let left = plugin_sdk::host::kill_all(PLUGIN_REAP);
    if left > 0 {
        warn!(left, "plugin processes do not end");
    }
    match outcome {
        Ok(Stopped::Gently) => ExitCode::SUCCESS,
        Ok(Stopped::AtOnce(signal)) => ExitCode::from(signal.exit_code()),
        Err(error) => {
            error!(reason = %one_line(&error), "cannot start");
            ExitCode::FAILURE
        }
    }
}

fn refuse(error: &(dyn Error + 'static)) -> ExitCode {
    tell(error);
    ExitCode::from(USAGE)
}

/// One line, before there is a log.
fn tell(error: &(dyn Error + 'static)) {
    // If stderr is closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "fib-server: {}", one_line(error));
}

fn runtime(config: &Config) -> io::Result<Runtime> {
    let mut runtime = match config.http.threads.get() {
        // This thread is the one.
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    let blocking = Pool::max_threads(config.compute.threads) + SPARE_BLOCKING_THREADS;
    runtime.enable_all().worker_threads(config.http.threads.get()).max_blocking_threads(blocking).build()
}

enum Stopped {
    Gently,
    AtOnce(AtOnce),
}

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("cannot listen for signals")]
    Signals(#[from] io::Error),
    #[error(transparent)]
    Bind(#[from] BindError),
}

async fn run(config: Config, level: LevelControl) -> Result<Stopped, StartError> {
    let mut signals = Signals::new()?;
    // Looking a host name up may take long.
    let service = tokio::select! {
        biased;
        () = signals.stop() => return Ok(Stopped::Gently),
        service = Service::bind(config) => service?,
    };
    let service = service.control(ControlOptions::default().host_log_level(move |new| level.set(new.into())));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let at_once = async {
        signals.stop().await;
        // Fails only if the service has ended by itself.
        let _ = stop.send(());
        signals.stop_at_once().await
    };
    let gently = service.run(async {
        // An error means that nobody will stop us, which cannot be: the other end is in the other branch.
        let _ = stopped.await;
    });
    tokio::select! {
        biased;
        () = gently => Ok(Stopped::Gently),
        signal = at_once => {
            warn!(?signal, "second signal, stopping at once");
            Ok(Stopped::AtOnce(signal))
        }
    }
}
