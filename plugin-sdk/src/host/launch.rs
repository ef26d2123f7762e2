//! From a description of a plugin to a process that has said where it listens.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::error::{NulIn, Waiting};
use super::link::{Link, Reopen, Target, Unreachable};
use super::log::Source;
use super::logbook::LogBook;
use super::output::{Output, PIPE_GRACE};
use super::pipe::Pipe;
use super::run::{Begun, Run};
use super::runner::{PluginCommand, Runner};
use super::stderr_copy::StderrCopy;
use super::{Checksum, ChecksumError, Exit, LaunchError, Plugin};
use crate::clock::after;
use crate::handshake::{
    CONTROL_VARIABLES, Expectation, HOST_LIFELINE, LIFELINE_IS_STDIN, MAX_LINE_BYTES, Offer,
};
use crate::process::{Lines, Piece, PieceKind, examine, kill_with_this_process, without_shell};
use crate::runtime::SocketDir;
use crate::services::Means;
use crate::transport::{BUSY_POLL, Identity, Peer, Place, Tls};
use crate::{
    AppVersion, AppVersions, HandshakeLine, LineProblem, MagicCookie, PortRange, ReattachConfig, TlsConfig,
};

/// Time from the start of the process to the answer of its first health check. go-plugin's `StartTimeout`.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Time a plugin has to exit after `Shutdown` before it gets SIGTERM. go-plugin's value (`Client.Kill`, which then goes
/// straight to SIGKILL), so authors can rely on it.
pub(super) const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// How long a plugin that has printed rubbish, or closed its stdout, may take to exit by itself, so that the error can tell its
/// exit status.
const EXIT_GRACE: Duration = Duration::from_secs(1);

/// How long the kernel may take to remove a process that got SIGKILL.
pub(super) const REAP_LIMIT: Duration = Duration::from_secs(5);

/// Characters of a plugin's line that are quoted in an error.
const QUOTED_CHARACTERS: usize = 200;

/// What a host and its plugins have agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contract {
    cookie: MagicCookie,
    app_versions: AppVersions,
}

impl Contract {
    /// The versions that the host can speak.
    pub(crate) fn app_versions(&self) -> &AppVersions {
        &self.app_versions
    }

    /// The cookie and every application protocol version that the host can speak, in any order.
    #[must_use]
    pub fn new<V: Into<AppVersion>>(cookie: MagicCookie, app_versions: impl IntoIterator<Item = V>) -> Self {
        Self { cookie, app_versions: app_versions.into_iter().collect() }
    }
}

/// What a plugin inherits of its host's environment. Variables given by [`Launch::env`] come on top and win, and the
/// variables of the handshake above all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Environment {
    /// Only what programs need to find their way, and no secrets: see [`CLEAN_ENVIRONMENT`](Self::CLEAN_ENVIRONMENT).
    #[default]
    Clean,
    /// Nothing, as go-plugin does with `SkipHostEnv`.
    Empty,
    /// All of it, as go-plugin does by default, but for the variables by which the host's own host controls it.
    Inherit,
}

impl Environment {
    /// What [`Environment::Clean`] lets through. Later versions of this crate may let through more of the kind.
    pub const CLEAN_ENVIRONMENT: &[&str] =
        &["HOME", "LANG", "LC_ALL", "PATH", BUSY_POLL, "TMPDIR", "TZ", "USER"];

    fn lets_through(self, name: &OsStr) -> bool {
        match self {
            Self::Clean => Self::CLEAN_ENVIRONMENT.iter().any(|clean| name == *clean),
            Self::Empty => false,
            Self::Inherit => CONTROL_VARIABLES.iter().all(|control| name != *control),
        }
    }
}

/// What a plugin has as its stdin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stdin {
    /// A pipe that ends when the host does, however it does, and in which nothing is ever written. A plugin that reads it
    /// to its end knows of its host's end without looking at processes; `PLUGIN_HOST_LIFELINE` tells it so.
    #[default]
    Lifeline,
    /// Nothing: reading it ends at once.
    Null,
    /// The host's own, as in go-plugin.
    Inherit,
}

/// How the connections to a plugin are secured, the brokered ones included.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Security {
    /// By the socket's directory, which only this user can enter.
    #[default]
    Plain,
    /// With certificates that both sides make for this start and tell each other; go-plugin's `AutoMTLS`.
    AutoMtls,
    /// With certificates of the application's own. The plugin has to be configured to match.
    Tls(TlsConfig),
}

/// How to start a plugin. Never changed by a start, and so good for any number of them.
///
/// ```no_run
/// use plugin_sdk::MagicCookie;
/// use plugin_sdk::host::{Contract, Launch};
///
/// # async fn example() -> Result<(), plugin_sdk::host::LaunchError> {
/// let contract = Contract::new(MagicCookie::new("EXAMPLE_PLUGIN", "1f0e"), [1]);
/// let plugin = Launch::new("/usr/lib/example/plugin", contract).arg("--verbose").start().await?;
/// let channel = plugin.channel(); // For any client that tonic generates.
/// println!("{}", plugin.shutdown().await);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Launch {
    program: PathBuf,
    contract: Contract,
    name: String,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    environment: Environment,
    stdin: Stdin,
    killed_with_host: bool,
    current_dir: Option<PathBuf>,
    ports: PortRange,
    pub(super) security: Security,
    pub(super) multiplexing: bool,
    pub(super) socket_group: Option<String>,
    checksum: Option<Checksum>,
    runner: Option<Arc<dyn Runner>>,
    peer_check: bool,
    stderr_copy: Option<StderrCopy>,
    book: Option<LogBook>,
    /// In which the plugin is told the level of the book.
    level_variable: Option<OsString>,
    start_timeout: Duration,
    pub(super) shutdown_grace: Duration,
}

impl Launch {
    /// A plugin at a path. A relative one starts at the working directory of the host; `PATH` is never searched.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>, contract: Contract) -> Self {
        let program = program.into();
        let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
        Self {
            program,
            contract,
            name,
            args: Vec::new(),
            env: Vec::new(),
            environment: Environment::default(),
            stdin: Stdin::default(),
            killed_with_host: true,
            current_dir: None,
            ports: PortRange::default(),
            security: Security::default(),
            multiplexing: false,
            socket_group: None,
            checksum: None,
            runner: None,
            peer_check: true,
            stderr_copy: None,
            book: None,
            level_variable: None,
            start_timeout: START_TIMEOUT,
            shutdown_grace: SHUTDOWN_GRACE,
        }
    }

    /// What the plugin is called in logs, of which `manual::lifecycle` says what is in them. Default: the name of its file.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of the plugin's environment. It wins over an inherited one (in go-plugin it loses); of two with one name
    /// the later wins. Variables of the handshake cannot be set.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// What the plugin inherits of the host's environment.
    #[must_use]
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = environment;
        self
    }

    /// What the plugin has as its stdin. Default: a pipe that ends with the host.
    #[must_use]
    pub fn stdin(mut self, stdin: Stdin) -> Self {
        self.stdin = stdin;
        self
    }

    /// Whether the kernel kills the plugin (SIGKILL, to its process alone) at the moment this host ends, however it ends.
    /// Default: yes. Linux only.
    ///
    /// No for a plugin that ends by itself when its host has gone, as all that are made with this crate do, and that needs
    /// a second for it, to write something down. No as well for one of another make that is left for another host to
    /// reattach to, together with [`Stdin::Null`]; the next host that this user starts
    /// [sweeps](crate::host::runtime::sweep) it up with its directory all the same.
    #[must_use]
    pub fn killed_with_host(mut self, killed: bool) -> Self {
        self.killed_with_host = killed;
        self
    }

    /// The plugin's working directory. Default: the host's.
    #[must_use]
    pub fn current_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.current_dir = Some(dir.into());
        self
    }

    /// Ports for a plugin that listens on TCP. Default: 10000 to 25000.
    #[must_use]
    pub fn ports(mut self, ports: PortRange) -> Self {
        self.ports = ports;
        self
    }

    /// How the connections are secured. Default: plain.
    #[must_use]
    pub fn security(mut self, security: Security) -> Self {
        self.security = security;
        self
    }

    /// Whether brokered connections share the plugin's one socket; go-plugin's `GRPCBrokerMultiplex`. A plugin that
    /// cannot is refused. Default: no, each has a socket of its own.
    #[must_use]
    pub fn multiplexing(mut self, multiplexing: bool) -> Self {
        self.multiplexing = multiplexing;
        self
    }

    /// A group, by name or number, whose members may connect to the plugin's sockets: for a plugin that runs as
    /// another user. Default: only this user may.
    #[must_use]
    pub fn socket_group(mut self, group: impl Into<String>) -> Self {
        self.socket_group = Some(group.into());
        self
    }

    /// The checksum that the executable has to have, verified at each start: what runs is what was verified, whatever
    /// happens to the file meanwhile. Not for scripts. Default: none.
    #[must_use]
    pub fn checksum(mut self, checksum: Checksum) -> Self {
        self.checksum = Some(checksum);
        self
    }

    /// Has `runner` start the plugin, instead of starting it as a child of this host. Default: no runner.
    ///
    /// The program is then a path of the runner's: it is not looked at, and cannot be pinned by a checksum. What stdin the
    /// plugin has is the runner's choice. [`kill_all`](super::kill_all) does not know of it.
    #[must_use]
    pub fn runner(mut self, runner: impl Runner + 'static) -> Self {
        self.runner = Some(Arc::new(runner));
        self
    }

    /// Whether the process that listens on the announced Unix socket has to be of this user, and the plugin's own, a
    /// descendant of it or of its process group. Default: yes. No for plugins behind proxies, or as other users in containers.
    ///
    /// With a [`runner`](Self::runner), being of this user is enough.
    #[must_use]
    pub fn peer_check(mut self, check: bool) -> Self {
        self.peer_check = check;
        self
    }

    /// Gives `sink` a copy of what the plugin writes to stderr, as it is and beside the log: each line with one line feed
    /// at its end, in one call unless it is longer than 64 KiB. go-plugin's `Stderr`.
    ///
    /// It is called from the task that reads the pipe, so it must not wait: the plugin would wait with it. It may be called for
    /// several instances of this launch at once.
    #[must_use]
    pub fn stderr_copy(mut self, sink: impl Fn(&[u8]) + Send + Sync + 'static) -> Self {
        self.stderr_copy = Some(StderrCopy::new(sink));
        self
    }

    /// Keeps what the plugin says, and tells it at its start in a variable from which level on that is logged.
    pub(super) fn log_book(mut self, book: LogBook, level_variable: Option<OsString>) -> Self {
        self.book = Some(book);
        self.level_variable = level_variable;
        self
    }

    /// The same with another executable.
    pub(super) fn with_program(mut self, program: PathBuf) -> Self {
        self.program = program;
        self
    }

    pub(super) fn has_runner(&self) -> bool {
        self.runner.is_some()
    }

    /// What the plugin is called in logs.
    pub(super) fn display_name(&self) -> &str {
        &self.name
    }

    /// How long a start may take, up to the answer of the first health check. Default: 60 s.
    #[must_use]
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = timeout;
        self
    }

    /// How long the plugin may take to exit when it is asked to, before it gets SIGTERM, and then the same time again
    /// before it gets SIGKILL. Default: 2 s.
    ///
    /// It is a limit of the host. How long calls that are running may take is for the plugin to say, which breaks them off
    /// after its own limit (`PluginBuilder::drain_limit`, 1 s unless its author has set another).
    #[must_use]
    pub fn shutdown_grace(mut self, grace: Duration) -> Self {
        self.shutdown_grace = grace;
        self
    }

    /// The path that was given.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Looks for what would keep every start from working, without starting anything: a contract that cannot be used, arguments
    /// that cannot be passed on, a working directory that is not there, a file that is missing, cannot be executed, or is for
    /// another machine.
    ///
    /// # Errors
    /// What it found.
    pub fn check(&self) -> Result<(), LaunchError> {
        if !self.contract.cookie.is_usable() {
            return Err(LaunchError::UnusableCookie);
        }
        if self.contract.app_versions.is_empty() {
            return Err(LaunchError::NoVersion);
        }
        let program = || self.program.clone();
        if let Some(holder) = self.nul() {
            return Err(LaunchError::Nul { program: program(), holder });
        }
        match (&self.runner, &self.checksum) {
            (None, _) => {
                examine(&self.program)
                    .map_err(|problem| LaunchError::Program { program: program(), problem })?;
                let Some(dir) = &self.current_dir else { return Ok(()) };
                enterable(dir).map_err(|source| LaunchError::CurrentDir {
                    program: program(),
                    dir: dir.clone(),
                    source,
                })
            }
            (Some(_), None) => Ok(()),
            (Some(_), Some(_)) => {
                Err(LaunchError::Checksum { program: program(), source: ChecksumError::Runner })
            }
        }
    }

    /// What of the arguments and the environment has a NUL byte in it.
    fn nul(&self) -> Option<NulIn> {
        let has_nul = |text: &OsStr| text.as_bytes().contains(&0);
        let argument = self.args.iter().position(|arg| has_nul(arg)).map(|index| NulIn::Argument(index + 1));
        argument.or_else(|| {
            let (name, _) = self.env.iter().find(|(name, value)| has_nul(name) || has_nul(value))?;
            Some(NulIn::Variable(name.to_string_lossy().into_owned()))
        })
    }

    /// Starts an instance and waits until it can be called: [`spawn`](Self::spawn),
    /// [`handshake`](Spawned::handshake) and [`connect`](Announced::connect) in one.
    ///
    /// Dropping the future kills the process.
    ///
    /// # Errors
    /// Whatever keeps it from being ready, with the true cause; nothing is left of the process then.
    pub async fn start(&self) -> Result<Plugin, LaunchError> {
        self.spawn().await?.handshake().await?.connect().await
    }

    /// Starts the process, in a process group of its own and with a private directory for its sockets; or has the runner
    /// start it.
    ///
    /// # Errors
    /// Those of [`check`](Self::check), and whatever the operating system refuses.
    pub async fn spawn(&self) -> Result<Spawned, LaunchError> {
        self.check()?;
        let socket_dir = SocketDir::create(self.socket_group.as_deref()).map_err(LaunchError::SocketDir)?;
        let place = Place::Unix { dir: socket_dir.path().to_path_buf(), group: self.socket_group.clone() };
        let identity = match self.security {
            Security::AutoMtls => Some(Identity::generate()?),
            Security::Plain | Security::Tls(_) => None,
        };
        let offer = Offer {
            cookie: self.contract.cookie.clone(),
            app_versions: self.contract.app_versions.clone(),
            ports: self.ports.clone(),
            socket_dir: socket_dir.path().to_path_buf(),
            socket_group: self.socket_group.clone(),
            client_cert: identity.as_ref().map(Identity::certificate_pem),
            multiplexing: self.multiplexing,
        };
        let deadline = after(self.start_timeout);
        let begun = match &self.runner {
            None => {
                let pinned = self.pinned().await?;
                Begun::child(self.command(&offer, pinned.as_ref()), pinned, socket_dir).await
            }
            Some(runner) => {
                let command = PluginCommand::new(self.name.clone(), &self.command(&offer, None), &offer);
                let begun = tokio::time::timeout_at(deadline, Begun::guest(&**runner, command, socket_dir));
                begun.await.map_err(|_| LaunchError::TimedOut {
                    after: self.start_timeout,
                    waiting_for: Waiting::Runner,
                    stderr_tail: super::StderrTail::default(),
                })?
            }
        };
        let Begun { run, stdout, stderr } =
            begun.map_err(|source| LaunchError::Spawn { program: self.program.clone(), source })?;
        let source = Source { name: self.name.clone(), pid: run.pid(), book: self.book.clone() };
        tracing::debug!(plugin = source.name, pid = source.pid, program = %self.program.display(), "plugin started");
        let output = Output::of_launched(source, stderr, self.stderr_copy.clone());
        let launch = self.clone();
        let instance = Instance { launch, run, output, place, identity, deadline };
        Ok(Spawned { instance, stdout: Lines::new(stdout, MAX_LINE_BYTES) })
    }

    /// The executable in memory, verified, if it has to be.
    async fn pinned(&self) -> Result<Option<File>, LaunchError> {
        let Some(checksum) = self.checksum.clone() else { return Ok(None) };
        let program = self.program.clone();
        let verified = tokio::task::spawn_blocking(move || checksum.verified_copy(&program)).await;
        let verified = verified.unwrap_or_else(|error| Err(ChecksumError::Copy(io::Error::other(error))));
        verified.map(Some).map_err(|source| LaunchError::Checksum { program: self.program.clone(), source })
    }

    fn command(&self, offer: &Offer, pinned: Option<&File>) -> Command {
        // A relative path must not start at the plugin's working directory.
        let program = std::path::absolute(&self.program).unwrap_or_else(|_| self.program.clone());
        let mut command = match pinned {
            // The child has the descriptor until the moment of the exec, and no longer.
            Some(file) => Command::new(format!("/proc/self/fd/{}", file.as_raw_fd())),
            None => Command::new(&program),
        };
        let inherited = std::env::vars_os().filter(|(name, _)| self.environment.lets_through(name));
        let explicit =
            self.env.iter().filter(|(name, _)| CONTROL_VARIABLES.iter().all(|control| name != *control));
        command
            .arg0(&program)
            .args(&self.args)
            .env_clear()
            .envs(inherited)
            .envs(explicit.cloned())
            .envs(offer.variables())
            .stdin(match self.stdin {
                Stdin::Lifeline => Stdio::piped(),
                Stdin::Null => Stdio::null(),
                Stdin::Inherit => Stdio::inherit(),
            });
        if let (Some(book), Some(variable)) = (&self.book, &self.level_variable)
            && self.env.iter().all(|(name, _)| name != variable)
        {
            command.env(variable, book.level().as_str().to_ascii_lowercase());
        }
        if self.stdin == Stdin::Lifeline {
            command.env(HOST_LIFELINE, LIFELINE_IS_STDIN);
        }
        if let Some(dir) = &self.current_dir {
            command.current_dir(dir);
        }
        if self.killed_with_host {
            kill_with_this_process(&mut command);
            without_shell(&mut command, program.as_os_str());
        }
        command
    }
}

/// Whether a process of this user may work in a directory.
fn enterable(dir: &Path) -> io::Result<()> {
    if !std::fs::metadata(dir)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(rustix::fs::access(dir, rustix::fs::Access::EXEC_OK)?)
}

/// Without the values of variables, which may be secrets.
impl fmt::Debug for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let env: Vec<_> = self.env.iter().map(|(name, _)| name).collect();
        f.debug_struct("Launch")
            .field("program", &self.program)
            .field("name", &self.name)
            .field("args", &self.args)
            .field("env", &env)
            .finish_non_exhaustive()
    }
}

/// What all steps of a start hold: the process and its readers. Dropping it kills the plugin.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) launch: Launch,
    pub(super) run: Run,
    pub(super) output: Output,
    /// Where the host's own brokered sockets go.
    pub(super) place: Place,
    /// The host's certificate, with AutoMTLS.
    pub(super) identity: Option<Identity>,
    deadline: Instant,
}

impl Instance {
    /// Runs one step of the start within what is left of its time.
    pub(super) async fn in_time<T>(&self, step: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout_at(self.deadline, step).await.ok()
    }

    /// The error of a start whose time is up.
    pub(super) async fn timed_out(self, waiting_for: Waiting) -> LaunchError {
        let after = self.launch.start_timeout;
        self.fail(|stderr_tail| LaunchError::TimedOut { after, waiting_for, stderr_tail }).await
    }

    /// Ends a failed start: kills, waits until nothing is left, and makes the error with what was said last.
    pub(super) async fn fail(mut self, error: impl FnOnce(super::StderrTail) -> LaunchError) -> LaunchError {
        let diagnosis = self.run.diagnose().await.map(String::into_boxed_str);
        self.run.kill();
        let _ = tokio::time::timeout(REAP_LIMIT, self.run.exited()).await;
        self.output.finish().await;
        error(super::StderrTail { diagnosis, ..self.output.tail() })
    }

    /// As [`fail`](Self::fail), but if the process ends by itself within a moment, its end is the cause.
    pub(super) async fn fail_unless_exited(
        self,
        error: impl FnOnce(super::StderrTail) -> LaunchError,
    ) -> LaunchError {
        match tokio::time::timeout(EXIT_GRACE, self.run.exited()).await {
            Ok(exit) => self.fail(|stderr_tail| LaunchError::Exited { exit, stderr_tail }).await,
            Err(_) => self.fail(error).await,
        }
    }
}

/// A process that has not said anything yet.
#[derive(Debug)]
#[must_use = "dropping it kills the process; `handshake` is the next step"]
pub struct Spawned {
    instance: Instance,
    stdout: Lines<Pipe>,
}

impl Spawned {
    /// Tells when nothing is left of it.
    pub(super) fn gone(&self) -> watch::Receiver<Option<Exit>> {
        self.instance.run.exit()
    }

    /// Process id, which is also the id of its process group. `None` with a runner.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.instance.run.pid()
    }

    /// Waits for the handshake line. Nothing before it is skipped: the first line of stdout is it.
    ///
    /// # Errors
    /// The process ended, or printed something else, or nothing in time.
    pub async fn handshake(mut self) -> Result<Announced, LaunchError> {
        let instance = self.instance;
        let stdout = &mut self.stdout;
        let first = instance
            .in_time(async {
                tokio::select! {
                    // First, so that a line that was printed before the end is seen.
                    biased;
                    line = stdout.next() => First::Line(line),
                    exit = instance.run.exited() => match tokio::time::timeout(PIPE_GRACE, stdout.next()).await {
                        Ok(line @ Ok(Some(_))) => First::Line(line),
                        _ => First::Exited(exit),
                    },
                }
            })
            .await;
        let piece = match first {
            Some(First::Line(Ok(Some(piece)))) => piece,
            Some(First::Line(Ok(None))) => {
                let closed = |stderr_tail| LaunchError::StdoutClosed { stderr_tail };
                return Err(instance.fail_unless_exited(closed).await);
            }
            Some(First::Line(Err(error))) => return Err(instance.fail(|_| LaunchError::Pipe(error)).await),
            Some(First::Exited(exit)) => {
                return Err(instance.fail(|stderr_tail| LaunchError::Exited { exit, stderr_tail }).await);
            }
            None => {
                let begun = quotable(self.stdout.pending());
                return Err(instance.timed_out(Waiting::Line(begun)).await);
            }
        };
        let expected = Expectation {
            app_versions: &instance.launch.contract.app_versions,
            certificate: instance.identity.is_some(),
            multiplexing: instance.launch.multiplexing,
        };
        let parsed = match piece.kind {
            PieceKind::Whole => HandshakeLine::parse(&piece.bytes, &expected),
            _ => Err(LineProblem::TooLong),
        };
        match parsed {
            Ok(line) => Ok(Announced { instance, stdout: self.stdout, line }),
            Err(problem) => {
                let line = quotable(&piece.bytes);
                // What it says on stderr while it exits may be the explanation.
                let _ = tokio::time::timeout(EXIT_GRACE, instance.run.exited()).await;
                Err(instance.fail(|stderr_tail| LaunchError::Handshake { line, problem, stderr_tail }).await)
            }
        }
    }
}

/// What comes first of a process that was started.
enum First {
    Line(io::Result<Option<Piece>>),
    Exited(Exit),
}

fn quotable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(QUOTED_CHARACTERS).collect()
}

/// A process that has said where it listens.
#[derive(Debug)]
#[must_use = "dropping it kills the process; `connect` is the next step"]
pub struct Announced {
    pub(super) instance: Instance,
    stdout: Lines<Pipe>,
    line: HandshakeLine,
}

impl Announced {
    /// What it said.
    #[must_use]
    pub fn line(&self) -> &HandshakeLine {
        &self.line
    }

    /// Connects, and waits until the plugin's health is `SERVING`. A plugin without the health service is taken to be
    /// well once it answers.
    ///
    /// # Errors
    /// The process ended, or does not answer in time, or is not well.
    pub async fn connect(self) -> Result<Plugin, LaunchError> {
        let Self { mut instance, stdout, line } = self;
        instance.output.read_stdout(stdout);
        let tls = match (&instance.launch.security, &instance.identity, &line.server_cert) {
            (Security::Tls(config), ..) => Some(config.tls()),
            (_, Some(own), Some(peer)) => match Tls::pinned(own, peer.clone()) {
                Ok(tls) => Some(tls),
                Err(error) => return Err(instance.fail(|_| error.into()).await),
            },
            _ => None,
        };
        let translation = instance.run.translation();
        let address = match translation.to_own(line.address.clone()) {
            Ok(address) => address,
            Err(source) => {
                let error = |stderr_tail| LaunchError::Connect { address: line.address, source, stderr_tail };
                return Err(instance.fail(error).await);
            }
        };
        let means = Means { place: instance.place.clone(), tls, mux: None, translation };
        let run = &instance.run;
        let target = Target {
            address: address.clone(),
            peer: if instance.launch.peer_check { run.peer() } else { Peer::Anyone },
            exit: Some(run.exit()),
            once: None,
        };
        // On the heap: connecting holds TLS and HTTP/2 in the making, which is much for a caller's stack.
        let reach = Box::pin(target.reach(means, instance.launch.multiplexing, instance.deadline));
        let reached = instance
            .in_time(async {
                tokio::select! {
                    // First, so that a plugin that printed its line and crashed is told by its exit.
                    biased;
                    exit = run.exited() => Reached::Exited(exit),
                    linked = reach => linked.map_or_else(Reached::Not, Reached::Linked),
                }
            })
            .await;
        let link = match reached {
            Some(Reached::Linked(link)) => link,
            None => return Err(instance.timed_out(Waiting::Health).await),
            Some(Reached::Exited(exit)) => {
                return Err(instance.fail(|stderr_tail| LaunchError::Exited { exit, stderr_tail }).await);
            }
            Some(Reached::Not(Unreachable::Refused(source))) => {
                let error = |stderr_tail| LaunchError::Connect { address: line.address, source, stderr_tail };
                return Err(instance.fail_unless_exited(error).await);
            }
            Some(Reached::Not(Unreachable::Unwell(source))) => {
                let error = |stderr_tail| LaunchError::Unhealthy { source, stderr_tail };
                return Err(instance.fail_unless_exited(error).await);
            }
        };
        let Instance { launch, run, mut output, identity, .. } = instance;
        link.open_streams(&mut output, Reopen::No);
        let app_version = line.app_version;
        let reattach = (identity.is_none() && !launch.multiplexing).then(|| ReattachConfig {
            app_version: Some(app_version),
            address: address.clone(),
            pid: run.pid(),
            test: false,
        });
        let owner = run.into_owner(launch.shutdown_grace);
        Ok(Plugin { owner, address, app_version, link, output, reattach })
    }
}

/// How an attempt to reach a plugin ended.
enum Reached {
    Linked(Link),
    Exited(Exit),
    Not(Unreachable),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explicit_variable_wins_and_control_variables_cannot_be_set() {
        let contract = Contract::new(MagicCookie::new("COOKIE", "value"), [1]);
        let launch = Launch::new("/bin/true", contract)
            .environment(Environment::Inherit)
            .env("PATH", "/explicit")
            .env("PLUGIN_CLIENT_CERT", "stale")
            .env("PLUGIN_HOST_LIFELINE", "stale")
            .env("PLUGIN_MIN_PORT", "1");
        let offer = Offer {
            cookie: launch.contract.cookie.clone(),
            app_versions: launch.contract.app_versions.clone(),
            ports: PortRange::default(),
            socket_dir: "/run/x".into(),
            socket_group: None,
            client_cert: None,
            multiplexing: false,
        };
        let command = launch.command(&offer, None);
        let get = |name: &str| {
            let found = command.get_envs().find(|(key, _)| *key == name);
            found.and_then(|(_, value)| value).map(|value| value.to_string_lossy().into_owned())
        };
        assert_eq!(get("PATH").as_deref(), Some("/explicit"));
        assert_eq!(get("COOKIE").as_deref(), Some("value"));
        assert_eq!(get("PLUGIN_MIN_PORT").as_deref(), Some("10000"));
        assert_eq!(get("PLUGIN_CLIENT_CERT"), None);
        assert_eq!(get("PLUGIN_HOST_LIFELINE").as_deref(), Some("stdin"));
    }

    #[test]
    fn environments_let_through_what_they_say() {
        for (environment, name, through) in [
            (Environment::Clean, "PATH", true),
            (Environment::Clean, "AWS_SECRET_ACCESS_KEY", false),
            (Environment::Clean, "PLUGIN_BUSY_POLL", true),
            (Environment::Empty, "PATH", false),
            (Environment::Inherit, "AWS_SECRET_ACCESS_KEY", true),
            (Environment::Inherit, "PLUGIN_MULTIPLEX_GRPC", false),
            (Environment::Inherit, "PLUGIN_UNIX_SOCKET_GROUP", false),
            (Environment::Inherit, "PLUGIN_HOST_LIFELINE", false),
        ] {
            assert_eq!(environment.lets_through(OsStr::new(name)), through, "{environment:?} {name}");
        }
    }
}
