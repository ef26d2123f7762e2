//! Starting and ending plugins by the application's own means.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tokio::io::AsyncRead;

use super::ExitKind;
use super::pipe::Pipe;
use crate::PluginAddress;
use crate::handshake::{CONTROL_VARIABLES, Offer, UNIX_SOCKET_DIR};

/// Starts plugins by other means than as a child of this host: in a container, under a remote supervisor, in a test.
/// go-plugin's `RunnerFunc`. See [`Launch::runner`](super::Launch::runner).
///
/// All else is as with a child: handshake, security, broker, stdio, health, and an end in bounded time.
///
/// ```
/// use std::io;
/// use std::path::PathBuf;
/// use std::process::Stdio;
///
/// use plugin_sdk::PluginAddress;
/// use plugin_sdk::host::{ExitKind, PluginCommand, Runner, Running, Started};
/// use tokio::process::{Child, Command};
/// use tokio::sync::Mutex;
///
/// /// Runs plugins of an image, which calls the socket directory `/sockets`.
/// struct Podman {
///     image: String,
/// }
///
/// struct Container {
///     name: String,
///     sockets: PathBuf,
///     /// Runs as long as the container.
///     podman: Mutex<Child>,
/// }
///
/// #[tonic::async_trait]
/// impl Runner for Podman {
///     async fn start(&self, mut command: PluginCommand) -> io::Result<Started> {
///         let sockets = command.socket_dir.clone();
///         // Its last part is different for each instance.
///         let name = sockets.file_name().unwrap_or_default().to_string_lossy().into_owned();
///         command.set_socket_dir("/sockets");
///         let mut podman = Command::new("podman");
///         podman.args(["run", "--rm", "--userns=keep-id", "--name", &name]);
///         podman.arg("--volume").arg(format!("{}:/sockets", sockets.display()));
///         for name in command.env.keys() {
///             podman.arg("--env").arg(name); // The value is in podman's own environment.
///         }
///         podman.arg(&self.image).arg(&command.program).args(&command.args).envs(&command.env);
///         podman.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
///         let mut podman = podman.spawn()?;
///         let (stdout, stderr) = (podman.stdout.take(), podman.stderr.take());
///         let (Some(stdout), Some(stderr)) = (stdout, stderr) else { unreachable!("both are pipes") };
///         Ok(Started::new(Container { name, sockets, podman: Mutex::new(podman) }, stdout, stderr))
///     }
/// }
///
/// #[tonic::async_trait]
/// impl Running for Container {
///     fn id(&self) -> String {
///         self.name.clone()
///     }
///
///     async fn wait(&self) -> ExitKind {
///         self.podman.lock().await.wait().await.map_or(ExitKind::Unknown, ExitKind::from)
///     }
///
///     async fn kill(&self) -> io::Result<()> {
///         let killed = Command::new("podman").args(["kill", &self.name]).status().await?;
///         if killed.success() { Ok(()) } else { Err(io::Error::other(format!("podman kill: {killed}"))) }
///     }
///
///     fn plugin_to_host(&self, address: PluginAddress) -> io::Result<PluginAddress> {
///         let PluginAddress::Unix(path) = &address else { return Ok(address) };
///         let socket = path.strip_prefix("/sockets").map_err(io::Error::other)?;
///         Ok(PluginAddress::Unix(self.sockets.join(socket)))
///     }
///
///     fn host_to_plugin(&self, address: PluginAddress) -> io::Result<PluginAddress> {
///         let PluginAddress::Unix(path) = &address else { return Ok(address) };
///         let socket = path.strip_prefix(&self.sockets).map_err(io::Error::other)?;
///         Ok(PluginAddress::Unix(PathBuf::from("/sockets").join(socket)))
///     }
/// }
/// ```
#[tonic::async_trait]
pub trait Runner: Send + Sync {
    /// Starts one instance. May be called for several at once.
    ///
    /// The future is dropped if the start is given up, or takes longer than the start time-out; what it has begun by then is
    /// its own to undo.
    ///
    /// # Errors
    /// Whatever kept it from starting; it becomes the source of [`LaunchError::Spawn`](super::LaunchError::Spawn).
    async fn start(&self, command: PluginCommand) -> io::Result<Started>;
}

/// What runs one plugin: sees to its end, and knows its name space. go-plugin's `AttachedRunner` and, with
/// [`diagnose`](Self::diagnose), the rest of its `Runner`.
///
/// It is dropped after the plugin and its broker. If the run time ends before the plugin does, being dropped is all that
/// it hears of it.
#[tonic::async_trait]
pub trait Running: Send + Sync {
    /// What it is to its runner: the id of a container, of a job, of a process. For people and logs.
    fn id(&self) -> String;

    /// Waits for the end of the plugin, and tells how it was if that can be known.
    ///
    /// The future may be dropped and asked for again. It never runs together with that of [`kill`](Self::kill), so that both
    /// may hold one lock.
    async fn wait(&self) -> ExitKind;

    /// Ends the plugin at once, and all that belongs to it. Not called for one that has ended. It and the
    /// [`wait`](Self::wait) that follows have 5 s together.
    ///
    /// # Errors
    /// Whatever kept it from ending. It is logged.
    async fn kill(&self) -> io::Result<()>;

    /// Anything that may explain to a person why the plugin did not get ready: the state of its container, its events. It
    /// becomes a part of the error of a failed start, up to 2,000 characters of it.
    ///
    /// Called before [`kill`](Self::kill), while [`wait`](Self::wait) may be waiting, and given up after 2 s.
    async fn diagnose(&self) -> String {
        String::new()
    }

    /// The host's name for an address that the plugin has told. Must not block.
    ///
    /// # Errors
    /// There is none.
    fn plugin_to_host(&self, address: PluginAddress) -> io::Result<PluginAddress> {
        Ok(address)
    }

    /// The plugin's name for an address of the host. Must not block.
    ///
    /// # Errors
    /// There is none.
    fn host_to_plugin(&self, address: PluginAddress) -> io::Result<PluginAddress> {
        Ok(address)
    }
}

/// What a [`Runner`] has to run. With what is not here, such as stdin, it may do what it likes.
#[derive(Clone)]
#[non_exhaustive]
pub struct PluginCommand {
    /// What the launch calls the plugin. Several instances may have the same name.
    pub name: String,
    /// The path that the launch was given, a relative one made absolute. It need not exist on this machine.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// The whole environment, that of the handshake included, which must reach the plugin as it is but for the socket
    /// directory.
    pub env: BTreeMap<OsString, OsString>,
    /// The working directory, if the launch was given one.
    pub current_dir: Option<PathBuf>,
    /// The host's name for the directory where both sides make their sockets. It is the host's to remove.
    pub socket_dir: PathBuf,
}

impl PluginCommand {
    /// What would have been started as a child.
    pub(super) fn new(name: String, child: &Command, offer: &Offer) -> Self {
        let env = child.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
        // Whatever else a child is told by such variables is about a child.
        let env = env.filter(|(name, _)| CONTROL_VARIABLES.iter().all(|control| name != *control));
        let offered = offer.variables().into_iter().map(|(name, value)| (name.into(), value));
        Self {
            name,
            program: child.get_program().into(),
            args: child.get_args().map(OsString::from).collect(),
            env: env.chain(offered).collect(),
            current_dir: child.get_current_dir().map(Path::to_path_buf),
            socket_dir: offer.socket_dir.clone(),
        }
    }

    /// Tells the plugin another name for the socket directory, in its own name space. Short, as the path of a socket must
    /// not be longer than about 100 bytes.
    pub fn set_socket_dir(&mut self, dir: impl Into<OsString>) {
        self.env.insert(UNIX_SOCKET_DIR.into(), dir.into());
    }
}

/// Without the values of variables, which may be secrets.
impl fmt::Debug for PluginCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginCommand")
            .field("name", &self.name)
            .field("program", &self.program)
            .field("args", &self.args)
            .field("env", &self.env.keys())
            .field("current_dir", &self.current_dir)
            .field("socket_dir", &self.socket_dir)
            .finish()
    }
}

/// A plugin that a [`Runner`] has started.
pub struct Started {
    pub(super) running: Arc<dyn Running>,
    pub(super) stdout: Pipe,
    pub(super) stderr: Pipe,
}

impl Started {
    /// What runs it, and what it writes: the handshake is read from `stdout`, log lines from `stderr`. Both are read to
    /// their end.
    #[must_use]
    pub fn new(
        running: impl Running + 'static,
        stdout: impl AsyncRead + Send + 'static,
        stderr: impl AsyncRead + Send + 'static,
    ) -> Self {
        Self { running: Arc::new(running), stdout: Pipe::new(stdout), stderr: Pipe::new(stderr) }
    }
}

impl fmt::Debug for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Started").field("id", &self.running.id()).finish_non_exhaustive()
    }
}

#[tonic::async_trait]
impl<R: Runner + ?Sized> Runner for Arc<R> {
    async fn start(&self, command: PluginCommand) -> io::Result<Started> {
        (**self).start(command).await
    }
}

#[tonic::async_trait]
impl<R: Running + ?Sized> Running for Arc<R> {
    fn id(&self) -> String {
        (**self).id()
    }

    async fn wait(&self) -> ExitKind {
        (**self).wait().await
    }

    async fn kill(&self) -> io::Result<()> {
        (**self).kill().await
    }

    async fn diagnose(&self) -> String {
        (**self).diagnose().await
    }

    fn plugin_to_host(&self, address: PluginAddress) -> io::Result<PluginAddress> {
        (**self).plugin_to_host(address)
    }

    fn host_to_plugin(&self, address: PluginAddress) -> io::Result<PluginAddress> {
        (**self).host_to_plugin(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_shows_no_values_of_variables() {
        let mut command = PluginCommand {
            name: "sample".into(),
            program: "/sample".into(),
            args: Vec::new(),
            env: BTreeMap::from([("TOKEN".into(), "secret".into())]),
            current_dir: None,
            socket_dir: "/run/plugin".into(),
        };
        command.set_socket_dir("/sockets");
        assert_eq!(command.env[&OsString::from("PLUGIN_UNIX_SOCKET_DIR")], "/sockets");
        let shown = format!("{command:?}");
        assert!(shown.contains("TOKEN") && !shown.contains("secret"), "{shown}");
    }
}
