//! A host and a plugin in one process, for tests: real services, client and broker, and no child process.

use thiserror::Error;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::host::{AttachError, Contract, Plugin};
use crate::plugin::{MemoryPlugin, PluginBuilder, ServeError};
use crate::runtime::SocketDir;

/// A plugin that runs in this process, and the host's view of it, for tests: real services, client and broker, and no child
/// process.
///
/// ```
/// use plugin_sdk::host::Contract;
/// use plugin_sdk::plugin::PluginBuilder;
/// use plugin_sdk::{InMemory, MagicCookie};
/// use tonic::service::Routes;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cookie = MagicCookie::new("EXAMPLE_PLUGIN", "1f0e");
/// let plugin = PluginBuilder::new(cookie.clone()).version(1, |_context| Routes::default());
/// let running = InMemory::start(plugin, &Contract::new(cookie, [1])).await?;
/// running.plugin().health().await?; // Or any client that tonic generates, on plugin().channel().
/// running.stop().await?;
/// # Ok(())
/// # }
/// ```
///
/// Not as in a process of its own: stdout is not captured, nothing is read from the environment, and an abort is one
/// of the test; [`crash`](Self::crash) is for the rest of what a host sees of it. Brokered connections use real
/// sockets. Dropping this ends the plugin without a drain.
#[derive(Debug)]
#[must_use = "dropping it ends the plugin; keep it for as long as the plugin is called"]
pub struct InMemory {
    plugin: Plugin,
    stop: CancellationToken,
    crash: CancellationToken,
    serving: JoinHandle<Result<(), ServeError>>,
}

/// Why there is no plugin.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InMemoryError {
    /// The plugin cannot serve.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The host cannot reach it, or cannot speak its version.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

impl InMemory {
    /// Starts the plugin and connects to it, as a host with this contract.
    ///
    /// # Errors
    /// A plugin that cannot serve, is not well, or has no version in common with the host.
    pub async fn start(builder: PluginBuilder, contract: &Contract) -> Result<Self, InMemoryError> {
        let (stop, crash) = (CancellationToken::new(), CancellationToken::new());
        let socket_dir = SocketDir::create(None).map_err(AttachError::SocketDir)?;
        let dir = socket_dir.path().to_path_buf();
        let (memory, serving) =
            MemoryPlugin::new(builder, contract.app_versions(), dir, stop.clone(), crash.clone()).await?;
        let serving = tokio::spawn(serving);
        let (ended, app_version) = (memory.ended().clone(), memory.app_version);
        let plugin = Plugin::in_this_process(memory, ended, app_version, contract, socket_dir).await?;
        Ok(Self { plugin, stop, crash, serving })
    }

    /// The host's view.
    pub fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    /// Ends the plugin as SIGKILL ends a process, in the middle of everything: calls that are running fail, so do all
    /// later ones, and [`Plugin::exited`] returns.
    pub fn crash(&self) {
        self.crash.cancel();
    }

    /// [`crash`](Self::crash), for whoever has no hold of this: a service of the plugin, perhaps. To cancel the token is to
    /// crash.
    #[must_use]
    pub fn crash_token(&self) -> CancellationToken {
        self.crash.clone()
    }

    /// Ends the plugin, after the calls that are running.
    ///
    /// # Errors
    /// What the plugin ended with.
    pub async fn stop(self) -> Result<(), ServeError> {
        self.stop.cancel();
        // It fails only if serving panicked, which the test has seen by itself.
        let served = self.serving.await.unwrap_or(Ok(()));
        self.plugin.read_last_words().await;
        served
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;
    use tonic::service::Routes;

    use super::*;
    use crate::MagicCookie;
    use crate::host::ExitKind;

    #[tokio::test]
    async fn versions_are_negotiated_and_checked() {
        let cookie = MagicCookie::new("COOKIE", "value");
        let plugin = || {
            PluginBuilder::new(cookie.clone())
                .version(1, |_| Routes::default())
                .version(2, |_| Routes::default())
        };
        let running = InMemory::start(plugin(), &Contract::new(cookie.clone(), [2, 3])).await.unwrap();
        assert_eq!(running.plugin().app_version().get(), 2);
        running.plugin().health().await.unwrap();
        running.stop().await.unwrap();
        let other = InMemory::start(plugin(), &Contract::new(cookie.clone(), [3])).await;
        assert!(matches!(other, Err(InMemoryError::Attach(AttachError::Version { .. }))));
    }

    #[tokio::test]
    async fn health_is_what_the_plugin_says() {
        let cookie = MagicCookie::new("COOKIE", "value");
        let (tell, told) = std::sync::mpsc::channel();
        let plugin = PluginBuilder::new(cookie.clone()).version(1, move |context| {
            let _ = tell.send(context.health().clone());
            Routes::default()
        });
        let running = InMemory::start(plugin, &Contract::new(cookie, [1])).await.unwrap();
        told.recv().unwrap().set_not_serving();
        assert!(running.plugin().health().await.is_err());
        running.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_crash_is_seen_by_the_host_as_the_end_of_a_process_is() {
        let cookie = MagicCookie::new("COOKIE", "value");
        let plugin = PluginBuilder::new(cookie.clone()).version(1, |_| Routes::default());
        let running = InMemory::start(plugin, &Contract::new(cookie, [1])).await.unwrap();
        assert!(timeout(Duration::from_millis(20), running.plugin().exited()).await.is_err());
        running.crash();
        let exit = timeout(Duration::from_secs(30), running.plugin().exited()).await.unwrap();
        assert_eq!(exit.status, ExitKind::Unknown);
        assert!(running.plugin().health().await.is_err());
        running.stop().await.unwrap();
    }
}
