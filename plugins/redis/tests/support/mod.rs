//! A `redis-server` for one test.
#![allow(dead_code, reason = "each file of tests uses a part of it")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use cache_contract::Plugin;
use e2e::process;
use e2e::wait::{wait_for, wait_until};
use redis::{Client, Connection, ConnectionLike, FromRedisValue};
use rustix::process::Signal;
use tempfile::TempDir;

/// The plugin under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_fib-cache-redis");

/// A Redis on a Unix socket in a directory of its own, which stores nothing unless told to. Dropping it kills it.
pub(crate) struct Redis {
    directory: TempDir,
    args: Vec<String>,
    /// `None` while it is down.
    child: Option<Child>,
}

impl Redis {
    /// Starts one; `None` where `redis-server` is not installed. `test` is who asks.
    #[track_caller]
    pub(crate) fn start(test: &str) -> Option<Self> {
        let mut redis = Self::down(test)?;
        redis.up();
        Some(redis)
    }

    /// One that is not started yet.
    pub(crate) fn down(test: &str) -> Option<Self> {
        if !is_installed() {
            e2e::skip(test, "redis-server");
            return None;
        }
        let directory = tempfile::Builder::new().prefix("redis-").tempdir().expect("a directory can be made");
        Some(Self { directory, args: Vec::new(), child: None })
    }

    /// Gives it more arguments from its next start on.
    pub(crate) fn args(&mut self, args: &[&str]) {
        self.args.extend(args.iter().map(|&arg| arg.to_owned()));
    }

    /// Starts it, and waits until it answers.
    #[track_caller]
    pub(crate) fn up(&mut self) {
        self.launch();
        wait_until("redis-server to answer", || {
            self.connection().is_some_and(|mut connection| connection.check_connection())
        });
    }

    /// Starts it, and waits until it takes connections.
    #[track_caller]
    pub(crate) fn launch(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let mut command = Command::new("redis-server");
        command
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--loglevel", "warning"])
            .arg("--dir")
            .arg(self.directory.path())
            .arg("--unixsocket")
            .arg(self.socket())
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        self.child = Some(e2e::start(&mut command));
        wait_for("redis-server to listen", || self.connection());
    }

    /// What to give to `--url`.
    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// A directory for a test's own files.
    pub(crate) fn directory(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// A plugin that uses it, and serves. It waits for longer than a busy machine makes Redis take.
    pub(crate) async fn plugin(&self, args: &[&str]) -> Plugin {
        let url = format!("--url={}", self.url());
        let patient = !args.iter().any(|arg| arg.starts_with("--timeout"));
        let timeout = patient.then_some("--timeout=30s");
        Plugin::start(PROGRAM, [&*url].into_iter().chain(timeout).chain(args.iter().copied())).await
    }

    /// A connection to it, if it takes one.
    pub(crate) fn connection(&self) -> Option<Connection> {
        Client::open(self.url()).expect("the URL is one").get_connection().ok()
    }

    /// A connection for whoever knows the password.
    pub(crate) fn connection_as(&self, password: &str) -> Option<Connection> {
        let url = format!("{}?pass={password}", self.url());
        Client::open(url).expect("the URL is one").get_connection().ok()
    }

    /// Has it execute a command.
    #[track_caller]
    pub(crate) fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut connection = self.connection().expect("it runs");
        let answer = redis::cmd(words[0]).arg(&words[1..]).query(&mut connection);
        answer.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Its process id.
    #[track_caller]
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Sends it a signal.
    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        process::signal(self.pid(), signal);
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it can be killed");
            child.wait().expect("it can be waited for");
        }
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn is_installed() -> bool {
    let version = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// A port that nobody has at the moment.
pub(crate) fn free_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port can be had");
    listener.local_addr().expect("it has an address").port().to_string()
}
