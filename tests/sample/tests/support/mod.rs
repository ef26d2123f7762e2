//! What tests of whole processes share.
#![allow(dead_code, unused_imports, reason = "every file of tests uses some of it")]

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use plugin_sdk::PluginAddress;
use plugin_sdk::host::{Contract, Launch, Plugin};
pub(crate) use plugin_testkit::{process::is_running, until, wait::LIMIT};
use rustix::process::Signal;
use sample_plugin::sample_client::SampleClient;
use tonic::transport::Channel;

/// What the host has logged.
pub(crate) mod logged {
    pub(crate) use plugin_testkit::{Line, Logged};
}

/// The sample plugin.
pub(crate) const SAMPLE: &str = env!("CARGO_BIN_EXE_sample-plugin");

/// A plugin made without the SDK, see `src/bin/bare-plugin.rs`.
pub(crate) const BARE: &str = env!("CARGO_BIN_EXE_bare-plugin");

/// A host in a process of its own, see `src/bin/sample-host.rs`.
pub(crate) const HOST: &str = env!("CARGO_BIN_EXE_sample-host");

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
    launch_of(e2e::file::script(dir, "plugin", text))
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

/// A plugin that no host has started. It is killed when this is dropped, and what it has left goes with it.
pub(crate) struct Stray {
    child: tokio::process::Child,
    _files: tempfile::TempDir,
}

impl Stray {
    pub(crate) fn spawn(command: &mut tokio::process::Command) -> Self {
        let files = tempfile::tempdir().expect("a directory can be made");
        if command.as_std().get_envs().all(|(name, _)| name != "TMPDIR") {
            command.env("TMPDIR", files.path());
        }
        let child = command.kill_on_drop(true).spawn();
        Self { child: child.expect("the plugin starts"), _files: files }
    }
}

impl Deref for Stray {
    type Target = tokio::process::Child;

    fn deref(&self) -> &Self::Target {
        &self.child
    }
}

impl DerefMut for Stray {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.child
    }
}

/// Sends a signal to one process.
pub(crate) fn signal(pid: u32, signal: Signal) {
    assert!(plugin_testkit::process::signal(pid, signal), "{pid} cannot be signalled");
}

/// What can leak from this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    descriptors: usize,
    threads: usize,
    tasks: usize,
}

impl Count {
    pub(crate) fn now() -> Self {
        let entries = |path| std::fs::read_dir(path).expect("Linux has /proc").count();
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        Self { descriptors: entries("/proc/self/fd"), threads: entries("/proc/self/task"), tasks }
    }

    /// Whether there is not more of anything.
    pub(crate) fn is_within(self, other: Self) -> bool {
        let Self { descriptors, threads, tasks } = self;
        descriptors <= other.descriptors && threads <= other.threads && tasks <= other.tasks
    }
}
