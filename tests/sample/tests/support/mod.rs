//! What tests of whole processes share.
#![allow(dead_code, reason = "every file of tests uses some of it")]

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plugin_sdk::PluginAddress;
use plugin_sdk::host::{Contract, Launch, Plugin};
use rustix::process::{Pid, Signal};
use sample_plugin::sample_client::SampleClient;
use tonic::transport::Channel;

pub(crate) mod logged;

/// The sample plugin.
pub(crate) const SAMPLE: &str = env!("CARGO_BIN_EXE_sample-plugin");

/// A plugin made without the SDK, see `src/bin/bare-plugin.rs`.
pub(crate) const BARE: &str = env!("CARGO_BIN_EXE_bare-plugin");

/// A host in a process of its own, see `src/bin/sample-host.rs`.
pub(crate) const HOST: &str = env!("CARGO_BIN_EXE_sample-host");

/// How long anything may take: far more than it does, since test machines are slow now and then.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn contract(versions: &[u32]) -> Contract {
    Contract::new(sample_plugin::cookie(), versions.iter().copied())
}

/// Any program as a sample plugin of version 1.
pub(crate) fn launch_of(program: impl Into<PathBuf>) -> Launch {
    Launch::new(program, contract(&[1])).start_timeout(LIMIT)
}

/// The sample plugin, with version 1.
pub(crate) fn sample() -> Launch {
    launch_of(SAMPLE)
}

/// A plugin that is a shell script.
pub(crate) fn script(dir: &Path, text: &str) -> Launch {
    let path = dir.join("plugin");
    // Written by another name first: a file that is open for writing cannot be executed.
    let mut file = std::fs::File::create(dir.join("draft")).expect("the directory is there");
    file.write_all(format!("#!/bin/sh\n{text}\n").as_bytes()).expect("there is room");
    file.set_permissions(std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    drop(file);
    std::fs::rename(dir.join("draft"), &path).expect("the directory is there");
    launch_of(path)
}

/// Starts, with the whole cause in the panic if it does not work.
pub(crate) async fn start(launch: &Launch) -> (Plugin, SampleClient<Channel>) {
    let plugin = launch.start().await.unwrap_or_else(|error| panic!("{}", plugin_sdk::one_line(&error)));
    let client = SampleClient::new(plugin.channel());
    (plugin, client)
}

/// What a plugin says that it is, or why it does not answer.
pub(crate) async fn who(plugin: &Plugin) -> String {
    let answer = SampleClient::new(plugin.channel()).who(()).await;
    answer.map_or_else(|status| status.to_string(), tonic::Response::into_inner)
}

pub(crate) fn pid(plugin: &Plugin) -> u32 {
    plugin.pid().expect("a plugin that was launched has a process")
}

pub(crate) fn socket(plugin: &Plugin) -> PathBuf {
    match plugin.address() {
        PluginAddress::Unix(path) => path.clone(),
        other => panic!("{other} is not a Unix socket"),
    }
}

pub(crate) fn socket_dir(plugin: &Plugin) -> PathBuf {
    socket(plugin).parent().expect("a socket is in a directory").to_path_buf()
}

/// Whether there is such a process and it has not ended.
pub(crate) fn is_running(pid: u32) -> bool {
    // A zombie has no command line.
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

/// Sends a signal to one process.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("process ids are positive");
    rustix::process::kill_process(pid, signal).expect("it can be signalled");
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let reached = tokio::time::timeout(LIMIT, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(reached.await.is_ok(), "not within {LIMIT:?}: {what}");
}
