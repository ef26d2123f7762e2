//! A host that supervises plugins and has a control socket, in a process of its own, for tests of those who operate it.
//!
//! ```text
//! supervised-host [--control PATH] [--sure] NAME=PROGRAM...
//! ```
//!
//! It says `ready` once all plugins that can serve do, and then does what it reads on stdin, a line each: `log NAME TEXT` has a
//! plugin log, `kill NAME` kills it, `end` and the end of stdin end the host. Each is answered with `done`. With `--sure` a new instance
//! takes over as soon as it is well, and delays between starts are as good as endless.

use std::process::ExitCode;
use std::time::Duration;

use plugin_sdk::host::{
    Backoff, Contract, ControlOptions, ControlServer, Launch, PluginState, RestartPolicy, Supervised,
    Supervisor, Swap,
};
use rustix::process::{Pid, Signal, kill_process};
use sample_plugin::sample_client::SampleClient;
use tokio::io::{AsyncBufReadExt, BufReader};

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "this is a host, whose stdout is nobody's wire")]
async fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (mut path, mut sure, mut plugins) = (None, false, Vec::new());
    while let Some(arg) = args.next() {
        match (arg.as_str(), arg.split_once('=')) {
            ("--control", _) => path = args.next(),
            ("--sure", _) => sure = true,
            (_, Some((name, program))) => plugins.push(supervise(name, program, sure)),
            _ => return ExitCode::from(2),
        }
    }
    let handles = plugins.iter().map(|plugin| plugin.handle().clone()).collect();
    let options = ControlOptions::default().host_log_level(|level| {
        if level == tracing::Level::TRACE { Err("nobody wants that much") } else { Ok(()) }
    });
    let control = match path {
        Some(path) => ControlServer::start_at(path, handles, options).await,
        None => ControlServer::start(handles, options).await,
    };
    let control = match control {
        Ok(control) => control,
        Err(error) => {
            println!("error={}", plugin_sdk::one_line(&error));
            return ExitCode::FAILURE;
        }
    };
    for plugin in &plugins {
        let settled = |state: &PluginState| !matches!(state, PluginState::Starting { .. });
        let mut status = plugin.status();
        // One that is gone is settled too.
        let _ = status.wait_for(|status| settled(&status.state)).await.is_ok();
    }
    println!("ready");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if line == "end" {
            break;
        }
        obey(&line, &plugins).await;
        println!("done");
    }
    for plugin in plugins {
        plugin.shutdown().await;
    }
    control.shutdown().await;
    ExitCode::SUCCESS
}

fn supervise(name: &str, program: &str, sure: bool) -> Supervised {
    let launch = Launch::new(program, Contract::new(sample_plugin::cookie(), [1, 2])).name(name);
    let mut supervisor = Supervisor::launch(launch);
    if sure {
        let backoff = Backoff::constant(Duration::from_secs(100_000));
        supervisor = supervisor
            .policy(RestartPolicy { backoff, stable_after: Duration::MAX, ..RestartPolicy::default() })
            .swap(Swap { settle: Duration::ZERO, ..Swap::default() });
    }
    supervisor.start()
}

/// Returns once what it leads to can be seen.
async fn obey(line: &str, plugins: &[Supervised]) {
    let mut words = line.splitn(3, ' ');
    let [what, name, text] = [(); 3].map(|()| words.next().unwrap_or_default());
    let Some(plugin) = plugins.iter().map(Supervised::handle).find(|plugin| plugin.name() == name) else {
        return;
    };
    match what {
        "log" => {
            let (_, mut lines) = plugin.logs().follow();
            if SampleClient::new(plugin.channel()).log(text.to_owned()).await.is_ok() {
                lines.next().await;
            }
        }
        _ => {
            let (_, mut crashes) = plugin.crashes().follow();
            let pid = plugin.status().borrow().state.live().and_then(|live| live.pid);
            let pid = pid.and_then(|pid| Pid::from_raw(pid.cast_signed()));
            if pid.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok()) {
                crashes.next().await;
            }
        }
    }
}
