//! A `redis-server` for one server to ask.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::Failure;
use crate::started::{self, Started, wait_for};

/// It listens on a Unix socket and stores nothing. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Redis {
    socket: PathBuf,
    _server: Started,
}

impl Redis {
    /// What it is called.
    pub(crate) const PROGRAM: &str = "redis-server";

    pub(crate) fn is_installed() -> bool {
        let mut version = Command::new(Self::PROGRAM);
        version.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        version.status().is_ok_and(|status| status.success())
    }

    /// Starts one with its socket in `directory`, and waits until it answers.
    pub(crate) fn start(directory: &TempDir) -> Result<Self, Failure> {
        let socket = directory.path().join("redis.sock");
        let mut command = started::command(Path::new(Self::PROGRAM), directory);
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--loglevel", "warning", "--dir"]);
        command.arg(directory.path()).arg("--unixsocket").arg(&socket);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let redis = Self { socket, _server: Started::new(&mut command)? };
        wait_for(Self::PROGRAM, "answer", || redis.ping())?;
        Ok(redis)
    }

    /// For those who ask it.
    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    fn ping(&self) -> Option<()> {
        let mut stream = UnixStream::connect(&self.socket).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        stream.write_all(b"PING\r\n").ok()?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer).ok()?;
        (answer == *b"+PONG\r\n").then_some(())
    }
}
