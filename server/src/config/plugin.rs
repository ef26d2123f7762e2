//! From the flags of the plugin to a supervisor of it.

use std::{
    env,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgAction, ArgMatches, CommandFactory, parser::ValueSource};
use plugin_sdk::{
    PluginAddress,
    host::{Attach, Checksum, Launch, Probe, RestartPolicy, Supervisor, Swap},
    one_line,
};
use tracing::Level;

use super::{CacheConfig, ConfigError, FirstStart, args::Args, locate};
use crate::{cache, logging};

/// Variable by which a plugin on our SDK learns what to log.
const PLUGIN_LOG_VARIABLE: &str = "RUST_LOG";

/// The plugin that the flags describe, if they do.
pub(super) fn check(args: &Args) -> Result<Option<CacheConfig>, ConfigError> {
    let variables = variables(&args.cache_plugin_env)?;
    let supervisor = match (&args.cache_plugin_path, &args.cache_plugin_attach) {
        (None, None) => return Ok(None),
        (Some(wanted), _) => Supervisor::launch(launch(args, wanted, variables)?),
        (None, Some(_)) if args.plugin_watch => {
            return Err(wrong(
                "--plugin-watch",
                "the file of a plugin that somebody else runs is not known".into(),
            ));
        }
        (None, Some(address)) => Supervisor::attach(attach(address)?.timeout(args.plugin_start_timeout)),
    };
    let policy = RestartPolicy {
        restart: args.plugin_restart.into(),
        backoff: args.plugin_backoff,
        hopeless_after: args.plugin_max_starts.get(),
        intensity: args.plugin_max_restarts,
        ..RestartPolicy::default()
    };
    let probe = Probe {
        interval: args.plugin_probe_interval,
        timeout: args.plugin_probe_timeout,
        ..Probe::default()
    };
    let swap = Swap { settle: args.plugin_settle, drain: args.plugin_drain };
    let mut supervisor = supervisor
        .policy(policy)
        .probe(probe)
        .swap(swap)
        .lazy(args.plugin_lazy)
        .idle_after(args.plugin_idle_after)
        .watch_file(args.plugin_watch)
        .log_level(logging::least(args.log_level).unwrap_or(Level::ERROR))
        .log_level_variable(PLUGIN_LOG_VARIABLE);
    if let Some(dir) = &args.plugin_crash_dir {
        supervisor = supervisor.crash_dir(dir);
    }
    supervisor.check().map_err(|error| wrong("--plugin-crash-dir", one_line(&error).to_string()))?;
    Ok(Some(CacheConfig {
        supervisor,
        expiration: args.cache_expiration,
        timeout: args.cache_timeout,
        first_start: if args.plugin_lazy { FirstStart::WhenNeeded } else { FirstStart::WithServer },
        idle_after: args.plugin_idle_after,
    }))
}

/// Flags that have no effect, for the log.
pub(super) fn warnings(args: &Args, matches: &ArgMatches) -> Vec<String> {
    let (is_idle, why): (fn(&str) -> bool, _) = match (&args.cache_plugin_path, &args.cache_plugin_attach) {
        (Some(_), _) => return Vec::new(),
        (None, Some(_)) => (is_of_a_file, "a plugin that somebody else runs"),
        (None, None) => (is_of_a_plugin, "no plugin"),
    };
    let command = Args::command();
    let flags =
        command.get_arguments().filter(|arg| is_idle(arg.get_id().as_str()) && is_given(arg, matches));
    let names = flags.filter_map(|arg| arg.get_long());
    names.map(|name| format!("--{name} has no effect with {why}")).collect()
}

fn is_of_a_plugin(id: &str) -> bool {
    id.starts_with("cache_") || id.starts_with("plugin_") || id == "control"
}

fn is_of_a_file(id: &str) -> bool {
    ["cache_plugin_arg", "cache_plugin_env", "cache_plugin_checksum", "plugin_dir"].contains(&id)
}

/// Whether it was said by whoever starts the server. A switch that is off counts as not said.
fn is_given(arg: &Arg, matches: &ArgMatches) -> bool {
    let id = arg.get_id().as_str();
    let is_on = !matches!(arg.get_action(), ArgAction::SetTrue) || matches.get_flag(id);
    is_on && matches!(matches.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable))
}

fn launch(args: &Args, wanted: &Path, variables: Vec<(&str, &str)>) -> Result<Launch, ConfigError> {
    let located = locate::locate(wanted, &plugin_folders(args.plugin_dir.as_deref()))
        .map_err(|error| wrong("--cache-plugin-path", error.to_string()))?;
    let mut launch = Launch::new(&located.path, cache::contract())
        .name(&located.name)
        .args(&args.cache_plugin_arg)
        .start_timeout(args.plugin_start_timeout);
    if let Some(text) = &args.cache_plugin_checksum {
        let checksum =
            Checksum::parse(text).map_err(|problem| wrong("--cache-plugin-checksum", problem.to_string()))?;
        launch = launch.checksum(checksum);
    }
    for (name, value) in variables {
        launch = launch.env(name, value);
    }
    launch.check().map_err(ConfigError::Plugin)?;
    Ok(launch)
}

fn attach(address: &str) -> Result<Attach, ConfigError> {
    let parsed: PluginAddress = address.parse().map_err(|problem| {
        wrong(
            "--cache-plugin-attach",
            format!("{}; write it like unix:/run/x.sock or tcp:localhost:9000", one_line(&problem)),
        )
    })?;
    Ok(Attach::to(parsed, cache::contract()).name(address))
}

fn wrong(flag: &'static str, problem: String) -> ConfigError {
    ConfigError::Value { flag, problem }
}

fn variables(pairs: &[String]) -> Result<Vec<(&str, &str)>, ConfigError> {
    pairs.iter().enumerate().map(|(position, pair)| variable(position, pair)).collect()
}

/// Splits `K=V`. The error tells the position and never the text, which may be a secret.
fn variable(position: usize, pair: &str) -> Result<(&str, &str), ConfigError> {
    match pair.split_once('=') {
        Some((name, value)) if !name.is_empty() && !pair.contains('\0') => Ok((name, value)),
        _ => Err(ConfigError::Value {
            flag: "--cache-plugin-env",
            problem: format!("value {} is not of the form NAME=VALUE", position + 1),
        }),
    }
}

fn plugin_folders(plugin_dir: Option<&Path>) -> Vec<PathBuf> {
    let beside_us = env::current_exe().ok().and_then(|program| program.parent().map(Path::to_owned));
    plugin_dir.map(Path::to_owned).into_iter().chain(beside_us).collect()
}
