//! A running fib-server.

use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::binary::{clean, run_with, start};
use crate::http::{self, Response};
use crate::log::Log;
use crate::wait::{wait_for, wait_until};
use crate::{binary, process};

/// A fib-server on a port of its own, with a directory of its own for temporary files. Dropping it kills it and
/// every process that it started, and shows its log if the test has failed.
pub struct Server {
    child: Child,
    directory: Arc<TempDir>,
    address: SocketAddr,
    log: Log,
}

impl Server {
    /// Starts a server on any port, with a full log and `args`, and waits until it is ready.
    #[track_caller]
    pub fn start<S: AsRef<str>>(args: impl IntoIterator<Item = S>) -> Self {
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
        Self::start_with_all_flags(
            ["--port=0", "--log-level=debug"].map(str::to_owned).into_iter().chain(args),
        )
    }

    /// Starts a server with no flags but `args`, which must name a port, and waits until it is ready.
    #[track_caller]
    pub fn start_with_all_flags<S: AsRef<str>>(args: impl IntoIterator<Item = S>) -> Self {
        Self::launch(args).ready()
    }

    /// Waits until it is ready.
    #[track_caller]
    fn ready(self) -> Self {
        wait_until("/readyz to say 200", || {
            self.send("GET", "/readyz").is_ok_and(|ready| ready.status == 200)
        });
        self
    }

    /// Starts a server with a plugin and waits until the plugin serves.
    #[track_caller]
    pub fn start_with_plugin<S: AsRef<str>>(args: impl IntoIterator<Item = S>) -> Self {
        Self::start(args).with_plugin()
    }

    /// Like [`Server::start_with_plugin`], with a log that does not tell of each request.
    #[track_caller]
    pub fn start_for_load<S: AsRef<str>>(args: impl IntoIterator<Item = S>) -> Self {
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
        Self::start_with_all_flags(
            ["--port=0", "--log-level=warn"].map(str::to_owned).into_iter().chain(args),
        )
        .with_plugin()
    }

    /// Like [`Server::start_with_plugin`], from a shell that has executed `prelude` before.
    #[track_caller]
    pub fn start_with_plugin_after<S: AsRef<str>>(prelude: &str, args: impl IntoIterator<Item = S>) -> Self {
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
        let fixed = ["--port=0", "--log-level=debug"].map(str::to_owned);
        Self::launch_after(prelude, fixed.into_iter().chain(args)).ready().with_plugin()
    }

    /// Waits until the plugin serves.
    #[track_caller]
    fn with_plugin(self) -> Self {
        wait_until("the plugin to serve", || self.plugin_state() == "serving");
        self
    }

    /// Starts a server with `args`, which must name a port, and waits until it listens.
    #[track_caller]
    pub fn launch<S: AsRef<str>>(args: impl IntoIterator<Item = S>) -> Self {
        Self::launch_after("", args)
    }

    /// Like [`Server::launch`], from a shell that has executed `prelude` before.
    #[track_caller]
    pub fn launch_after<S: AsRef<str>>(prelude: &str, args: impl IntoIterator<Item = S>) -> Self {
        Self::begin_after(prelude, args).listening()
    }

    /// Starts another server with the directory for temporary files of this one, whatever this one has left there, and
    /// waits until it listens. This one should have ended.
    #[track_caller]
    pub fn succeeded_by<S: AsRef<str>>(self, args: impl IntoIterator<Item = S>) -> Self {
        let directory = Arc::clone(&self.directory);
        // It kills what it finds there.
        drop(self);
        // It may not have been able to remove it.
        let _none = std::fs::remove_file(directory.path().join(PORT_FILE));
        Self::begin_in(directory, "", args).listening()
    }

    #[track_caller]
    fn listening(mut self) -> Self {
        self.address = wait_for("the port file", || {
            let status = self.child.try_wait().expect("a child can be waited for");
            assert!(status.is_none(), "the server ended ({status:?}) before it listened");
            parse_address(&std::fs::read_to_string(self.directory.path().join(PORT_FILE)).ok()?)
        });
        self
    }

    /// Starts a server as [`Server::launch_after`] does, and waits for nothing: it has no address.
    #[track_caller]
    pub fn begin_after<S: AsRef<str>>(prelude: &str, args: impl IntoIterator<Item = S>) -> Self {
        let directory = tempfile::Builder::new().prefix("e2e-").tempdir().expect("a directory can be made");
        std::fs::create_dir(temporary_files(&directory)).expect("a directory can be made");
        Self::begin_in(Arc::new(directory), prelude, args)
    }

    fn begin_in<S: AsRef<str>>(
        directory: Arc<TempDir>,
        prelude: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Self {
        let temporary = temporary_files(&directory);
        let mut command = Command::new("/bin/sh");
        clean(&mut command)
            .arg("-c")
            .arg(format!("{prelude}\nexec \"$0\" \"$@\""))
            .arg(binary("fib-server"))
            .args(args.into_iter().map(|arg| arg.as_ref().to_owned()))
            .args(["--log-format=json", "--port-file"])
            .arg(directory.path().join(PORT_FILE))
            .env("TMPDIR", &temporary)
            .env("XDG_RUNTIME_DIR", &temporary)
            .stdin(Stdio::null())
            .stdout(Stdio::inherit())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = start(&mut command);
        let log = Log::collect(child.stderr.take().expect("stderr is piped"));
        Self { child, directory, address: ([127, 0, 0, 1], 0).into(), log }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id, which is that of its process group as well.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Asks with GET, and expects an answer.
    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        self.send("GET", target).unwrap_or_else(|error| panic!("no answer to GET {target}: {error}"))
    }

    /// Asks, and gives the answer if there is one.
    pub fn send(&self, method: &str, target: &str) -> io::Result<Response> {
        http::send(self.address, method, target)
    }

    /// Asks for Fibonacci number `n` and expects status 200.
    #[track_caller]
    pub fn fib(&self, n: u32) -> Response {
        let response = self.get(&format!("/fib/{n}"));
        assert_eq!(response.status, 200, "{}", response.text());
        response
    }

    /// Asks for Fibonacci number `n` until the answer comes from the cache.
    #[track_caller]
    pub fn wait_for_hit(&self, n: u32) -> Response {
        wait_for("a hit", || {
            Some(self.fib(n)).filter(|response| response.cache_status().starts_with("fib; hit"))
        })
    }

    /// How often a Fibonacci number was calculated and not taken from the cache or from another caller.
    pub fn calculations(&self) -> usize {
        self.log.count("calculated")
    }

    /// What `/readyz?verbose` says of the plugin.
    pub fn plugin(&self) -> Value {
        self.get("/readyz?verbose").json()["plugin"].take()
    }

    /// The state of the plugin, such as `serving`.
    pub fn plugin_state(&self) -> String {
        self.plugin()["state"].as_str().unwrap_or_default().to_owned()
    }

    /// The process id of the plugin, once there is one that serves.
    #[track_caller]
    pub fn plugin_pid(&self) -> u32 {
        wait_for("the process id of the plugin", || u32::try_from(self.plugin()["pid"].as_u64()?).ok())
    }

    /// Waits until the plugin is another process than `old`, and serves.
    #[track_caller]
    pub fn wait_for_plugin_after(&self, old: u32) -> u32 {
        wait_for("another plugin process", || Some(self.plugin_pid()).filter(|pid| *pid != old))
    }

    /// Waits until it has used a fifth of a second of processor time: more than answering a few requests takes.
    #[track_caller]
    pub fn wait_until_calculating(&self) {
        let ticks = || process::cpu_ticks(self.pid());
        let before = ticks();
        wait_until("the calculation to begin", || ticks() > before.map(|ticks| ticks + 20));
    }

    /// Runs `pluginctl` as an operator of this server does, and gives what it says and its exit code.
    pub fn pluginctl(&self, line: &str) -> (String, Option<i32>) {
        let temporary = temporary_files(&self.directory);
        let mut command = Command::new(binary("pluginctl"));
        command.args(line.split_whitespace()).env("TMPDIR", &temporary).env("XDG_RUNTIME_DIR", &temporary);
        // Not any other host that may run.
        command.env("PLUGINCTL_HOST", self.pid().to_string()).env_remove("PLUGINCTL_SOCKET");
        let output = run_with(&mut command);
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout) + &text(&output.stderr), output.status.code())
    }

    /// Like [`Server::pluginctl`], and expects it to succeed.
    #[track_caller]
    pub fn order(&self, line: &str) -> String {
        let (said, code) = self.pluginctl(line);
        assert_eq!(code, Some(0), "{line}: {said}");
        said
    }

    /// Its processes that run now: itself, plugins, and what those have started.
    pub fn processes(&self) -> Vec<u32> {
        process::marked_with(&temporary_files(&self.directory).to_string_lossy())
    }

    /// Its temporary files, directories among them.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        list(&temporary_files(&self.directory), &mut files);
        files
    }

    /// Removes its temporary files, as the end of a user's session does with the runtime directory, and lets there be a new
    /// session.
    pub fn lose_files(&self) {
        let directory = temporary_files(&self.directory);
        std::fs::remove_dir_all(&directory).expect("it can be removed");
        std::fs::create_dir(&directory).expect("a directory can be made");
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        process::signal(self.pid(), signal);
    }

    /// Waits until it has ended.
    #[track_caller]
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        process::wait_for_exit(&mut self.child, "the server to end")
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_some()
    }
}

#[expect(clippy::print_stderr, reason = "shown with the output of the failed test")]
impl Drop for Server {
    fn drop(&mut self) {
        // First the server, which would start its plugin again.
        process::signal_group(self.pid(), Signal::KILL);
        let _status = self.child.wait();
        for pid in self.processes() {
            process::signal(pid, Signal::KILL);
        }
        if std::thread::panicking() {
            eprintln!("--- log of the server\n{}---", self.log);
        }
    }
}

/// Name of the port file in the server's directory.
const PORT_FILE: &str = "port";

/// The arguments for a server with the rogue plugin in this mode.
pub fn rogue(mode: &str) -> Vec<String> {
    let path = binary("rogue-plugin");
    vec![format!("--cache-plugin-path={}", path.display()), format!("--cache-plugin-arg={mode}")]
}

/// The server's directory for temporary files. It occurs in the environment of all its processes: of a plugin as
/// the directory for its socket.
fn temporary_files(directory: &TempDir) -> PathBuf {
    directory.path().join("tmp")
}

/// The port file has the port or the whole address.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let text = text.trim();
    text.parse().ok().or_else(|| Some(([127, 0, 0, 1], text.parse().ok()?).into()))
}

fn list(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        files.push(entry.path());
        if entry.path().is_dir() {
            list(&entry.path(), files);
        }
    }
}
