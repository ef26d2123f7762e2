//! What is measured: servers with their caches, each a row of the tables.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use tempfile::TempDir;

use crate::Failure;
use crate::load::{self, RANDOM};
use crate::process::Tree;
use crate::redis::Redis;
use crate::started::{self, Lines, PATIENCE, Started, wait_for};

/// A server with a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Row {
    /// A server in Go with the cache in its own process, by `-buildmode=plugin`.
    GoSo,
    /// A server in Go that runs a plugin in Go by go-plugin.
    GoPlugin,
    /// Fib-server with the cache in its own process; built so for this alone.
    InProcess,
    /// Fib-server with the plugin `memory`.
    Memory,
    /// The same, and the plugin has Get and Set and nothing else; built so for this alone.
    GetOnly,
    /// Fib-server with the plugin `memory`, which lets the server give a hit again for a second without asking.
    Lease,
    /// Fib-server with the plugin in Go, which has Get and Set and nothing else.
    GoGetOnly,
    /// A server in Go with a cache in Redis, asked from its own process, by `-buildmode=plugin`.
    GoRedisSo,
    /// Fib-server with the plugin `redis`.
    Redis,
}

impl Row {
    /// The order of the tables.
    pub(crate) const ALL: [Self; 9] = [
        Self::GoSo,
        Self::GoPlugin,
        Self::InProcess,
        Self::Memory,
        Self::GetOnly,
        Self::Lease,
        Self::GoGetOnly,
        Self::GoRedisSo,
        Self::Redis,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::GoSo => "Go, in-process .so",
            Self::GoPlugin => "Go, go-plugin",
            Self::InProcess => "ours, in-process",
            Self::Memory => "ours, memory",
            Self::GetOnly => "ours, Get only",
            Self::Lease => "ours, memory, leases of 1 s",
            Self::GoGetOnly => "ours, Go plugin, Get only",
            Self::GoRedisSo => "Go, Redis, in-process .so",
            Self::Redis => "ours, redis",
        }
    }

    /// Whether the cache is a process of its own that can be killed.
    pub(crate) fn has_plugin(self) -> bool {
        !matches!(self, Self::GoSo | Self::InProcess | Self::GoRedisSo)
    }

    /// The programs that it needs, the server first.
    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::GoSo => &["go-inprocess", "go-cache.so"],
            Self::GoPlugin => &["go-host", "go-plugin"],
            Self::InProcess => &["fib-server-in-process"],
            Self::Memory | Self::Lease => &["fib-server", "fib-cache-memory"],
            Self::GetOnly => &["fib-server", "bench-get-only"],
            Self::GoGetOnly => &["fib-server", "go-plugin"],
            Self::GoRedisSo => &["go-inprocess", "go-redis-cache.so"],
            Self::Redis => &["fib-server", "fib-cache-redis"],
        }
    }

    /// The first thing it needs that is not there: one of its programs in `folder`, or Redis.
    pub(crate) fn missing(self, folder: &Path) -> Option<&'static str> {
        let program = self.programs().iter().find(|program| !folder.join(program).is_file()).copied();
        program.or_else(|| (self.asks_redis() && !Redis::is_installed()).then_some(Redis::PROGRAM))
    }

    fn is_ours(self) -> bool {
        !matches!(self, Self::GoSo | Self::GoPlugin | Self::GoRedisSo)
    }

    /// Whether its cache is in Redis.
    pub(crate) fn asks_redis(self) -> bool {
        matches!(self, Self::GoRedisSo | Self::Redis)
    }
}

/// A server that runs. Dropping it ends it, and its plugin with it.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) row: Row,
    pub(crate) address: SocketAddr,
    /// When its process was started: after its Redis, if it has one.
    pub(crate) started: Instant,
    server: Started,
    /// Not one of its processes: what Redis takes is not counted.
    _redis: Option<Redis>,
    _directory: TempDir,
}

impl Running {
    /// Starts a server and waits until it has an address.
    pub(crate) fn start(row: Row, folder: &Path) -> Result<Self, Failure> {
        let directory = started::directory()?;
        let port_file = directory.path().join("port");
        let redis = if row.asks_redis() { Some(Redis::start(&directory)?) } else { None };
        let programs: Vec<PathBuf> = row.programs().iter().map(|program| folder.join(program)).collect();
        let mut command = started::command(&programs[0], &directory);
        if row.is_ours() {
            command.args(["--port=0", "--log-level=error", "--cache-expiration=1h", "--port-file"]);
            command.arg(&port_file).stdin(Stdio::null()).stdout(Stdio::null());
            if let Some(plugin) = programs.get(1) {
                command.arg("--cache-plugin-path").arg(plugin);
            }
            if row == Row::Lease {
                command.arg("--cache-plugin-arg=--max-age=1s");
            }
            if let Some(redis) = &redis {
                command.arg(format!("--cache-plugin-arg=--url={}", redis.url()));
            }
        } else {
            // Its stdin ends with this process.
            command.args(&programs[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
            command.envs(redis.as_ref().map(|redis| ("REDIS_URL", redis.url())));
        }
        let started = Instant::now();
        let mut server = Started::new(&mut command)?;
        let address = if row.is_ours() {
            wait_for(row.name(), "address", || parse(&fs::read_to_string(&port_file).ok()?))?
        } else {
            let stdout = server.child.stdout.take().ok_or("stdout is piped")?;
            let line = Lines::of(stdout).next(row.name(), PATIENCE)?;
            parse(&line).ok_or_else(|| format!("{} says {line:?} and no address", row.name()))?
        };
        Ok(Self { row, address, started, server, _redis: redis, _directory: directory })
    }

    /// Starts a server and waits until it has in its cache all that is going to be asked for.
    pub(crate) fn start_warm(row: Row, folder: &Path) -> Result<Self, Failure> {
        let running = Self::start(row, folder)?;
        running.warm()?;
        Ok(running)
    }

    /// Waits until every number comes from the cache.
    pub(crate) fn warm(&self) -> Result<(), Failure> {
        for n in 0..RANDOM {
            self.wait("hit", || load::ask(self.address, n, PATIENCE).ok().filter(|hit| *hit))?;
        }
        Ok(())
    }

    /// The server and what it has started.
    pub(crate) fn processes(&self) -> Tree {
        self.server.processes()
    }

    /// Waits for something of it.
    pub(crate) fn wait<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> Result<T, Failure> {
        wait_for(self.row.name(), what, look)
    }
}

fn parse(text: &str) -> Option<SocketAddr> {
    text.trim().parse().ok()
}
