//! What a plugin leaves behind.

use std::path::{Path, PathBuf};

use plugin_sdk::PluginAddress;
use plugin_sdk::host::Plugin;

use crate::process::{children_of, is_running};
use crate::wait::{LIMIT, holds_in_time};

/// What a plugin has in the system: its process, the children of that, and its socket. To be taken while it runs, and
/// looked at when its host has ended it.
///
/// Of a plugin in memory there is nothing.
#[derive(Debug, Clone)]
pub struct Traces {
    pids: Vec<u32>,
    socket: Option<PathBuf>,
}

impl Traces {
    /// What there is now.
    #[must_use]
    pub fn of(plugin: &Plugin) -> Self {
        if *plugin.address() == PluginAddress::Memory {
            return Self { pids: Vec::new(), socket: None };
        }
        let socket = match plugin.address() {
            PluginAddress::Unix(path) => Some(path.clone()),
            _ => None,
        };
        let pid = plugin.pid();
        Self { pids: pid.into_iter().chain(pid.into_iter().flat_map(children_of)).collect(), socket }
    }

    /// Its Unix socket, if that is what it listens on.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// What of it is still there, in words; empty if nothing is. The number of a process may be that of another by then,
    /// on a machine that starts many.
    #[must_use]
    pub fn left(&self) -> Vec<String> {
        let processes = self.pids.iter().filter(|pid| is_running(**pid)).map(|pid| format!("process {pid}"));
        let socket = self.socket.iter().filter(|path| path.exists());
        processes.chain(socket.map(|path| format!("socket {}", path.display()))).collect()
    }

    /// Waits until all is gone.
    ///
    /// # Panics
    /// It is not within [`LIMIT`]. The panic names what is left.
    pub async fn gone(&self) {
        let in_time = holds_in_time(async || self.left().is_empty()).await;
        assert!(in_time, "left after {LIMIT:?}: {}", self.left().join(", "));
    }
}
