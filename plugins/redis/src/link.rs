//! The one connection to Redis: made, looked after, and made anew. It alone knows what a connection is made of, so that
//! TLS, a cluster or sentinels would change nothing but this file.
//!
//! ```text
//!         ┌──────────────── delay ◀── failed ─┐
//!         ▼                                   │        broken, silent, or refuses to work
//!  connect, log in, PING ─────────────────────┴──▶ up ──────────────────────────────────▶ away, and connect again
//!         answered by PONG                          └─ PING each second, and when a call has cause for doubt
//! ```
//!
//! All calls share the connection: what is asked for at the same time goes out in one write, and replies come in the
//! order of the commands. A call that gives up waiting leaves its place in the order, and nothing else, behind.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use plugin_sdk::plugin::HealthReporter;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, Pipeline, RedisConnectionInfo, RedisResult, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout};

use crate::address::Address;
use crate::backoff;
use crate::fault::Fault;
use crate::greeting::greet;

/// How long Redis may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// To answer.
    pub(crate) reply: Duration,
    /// To answer on a new connection.
    pub(crate) connect: Duration,
}

/// The connection, whatever state it is in. Dropping it closes the connection.
pub(crate) struct Link {
    state: watch::Receiver<State>,
    doubts: mpsc::Sender<Doubt>,
    timeouts: Timeouts,
    _keeper: JoinSet<()>,
}

#[derive(Clone)]
enum State {
    Up(MultiplexedConnection),
    Away(Fault),
}

/// What a call has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    /// Redis may not be there any more, or not be of use.
    Away,
    /// It does not take what is to be stored.
    ReadOnly,
}

impl Link {
    /// Begins to connect, in a task of its own. From now on the plugin's health is that of the connection.
    pub(crate) fn keep(address: Address, timeouts: Timeouts, health: HealthReporter) -> Self {
        health.set_not_serving();
        let (publish, state) = watch::channel(State::Away(Fault::Unreachable("not yet tried".to_owned())));
        // One is enough: where there is a doubt, another adds nothing.
        let (doubts, doubted) = mpsc::channel(1);
        let (reported, file_problem, retired) = (None, None, JoinSet::new());
        let keeper = Keeper {
            address,
            timeouts,
            health,
            publish,
            doubted,
            attempt: 0,
            reported,
            file_problem,
            retired,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(keeper.run());
        Self { state, doubts, timeouts, _keeper: tasks }
    }

    /// Has Redis execute these commands and gives its reply to each, error replies among them. Fails at once while Redis is
    /// away, and at the latest after the time it has to reply.
    pub(crate) async fn execute(&self, commands: &Pipeline) -> Result<Vec<Value>, Fault> {
        let state = self.state.borrow().clone();
        let mut connection = match state {
            State::Up(connection) => connection,
            State::Away(fault) => return Err(fault),
        };
        within(self.timeouts.reply, connection.send_packed_commands(commands, 0, commands.len()))
            .await
            .map_err(|fault| self.notice(fault))
    }

    /// Looks into what a fault says of Redis as a whole, and gives it back.
    pub(crate) fn notice(&self, fault: Fault) -> Fault {
        let doubt = match &fault {
            fault if fault.is_of_all() => Some(Doubt::Away),
            Fault::ReadOnly => Some(Doubt::ReadOnly),
            _ => None,
        };
        if let Some(doubt) = doubt {
            // If it is full, Redis is about to be looked at.
            let _ = self.doubts.try_send(doubt);
        }
        fault
    }
}

/// The task behind a [`Link`].
struct Keeper {
    address: Address,
    timeouts: Timeouts,
    health: HealthReporter,
    publish: watch::Sender<State>,
    doubted: mpsc::Receiver<Doubt>,
    /// Attempts to connect since the last connection that lasted.
    attempt: u32,
    /// The fault that the log has, and that lasts.
    reported: Option<Fault>,
    /// What is wrong with the URL's file, as the log has it.
    file_problem: Option<String>,
    /// Old connections on which calls wait for an answer.
    retired: JoinSet<Result<(), Elapsed>>,
}

impl Keeper {
    async fn run(mut self) {
        loop {
            let line = self.connect().await;
            let begun = Instant::now();
            self.publish.send_replace(State::Up(line.connection.clone()));
            self.health.set_serving();
            self.reported = None;
            tracing::info!(address = %self.address, "connected to Redis");
            let fault = self.watch(line).await;
            if begun.elapsed() >= backoff::MAX {
                self.attempt = 0;
            }
            self.away(fault);
        }
    }

    /// A connection on which Redis answers, once there is one.
    async fn connect(&mut self) -> Line {
        loop {
            sleep(backoff::delay(self.attempt)).await;
            self.attempt = self.attempt.saturating_add(1);
            match self.open().await {
                Ok(line) => return line,
                Err(fault) => self.away(fault),
            }
        }
    }

    async fn open(&mut self) -> Result<Line, Fault> {
        let connect = self.timeouts.connect;
        let refreshed = self.address.refresh(connect).await;
        self.tell_of_file(refreshed.err().map(|error| error.to_string()));
        timeout(connect, Line::open(&self.address, connect)).await.unwrap_or(Err(Fault::TimedOut(connect)))
    }

    /// Tells the log what is wrong with the URL's file, and that nothing is any more, if that is news.
    fn tell_of_file(&mut self, problem: Option<String>) {
        if problem == self.file_problem {
            return;
        }
        match &problem {
            Some(error) => tracing::warn!(error, "going by the last URL that could be read"),
            None => tracing::info!("the file with the URL can be read again"),
        }
        self.file_problem = problem;
    }

    /// Tells everybody that Redis is away; the log only if it is news.
    fn away(&mut self, fault: Fault) {
        self.health.set_not_serving();
        self.publish.send_replace(State::Away(fault.clone()));
        if self.reported.as_ref() == Some(&fault) {
            tracing::debug!(address = %self.address, %fault, "Redis is still away");
        } else {
            // In the message, as it is all that `pluginctl status` has of a line.
            tracing::warn!(address = %self.address, "{fault}; nothing is cached until that is over");
            self.reported = Some(fault);
        }
    }

    /// Drives the connection until there is a reason to make another.
    async fn watch(&mut self, mut line: Line) -> Fault {
        let mut replaced = None::<Instant>;
        loop {
            let doubt = tokio::select! {
                () = &mut line.driver => return Fault::Lost,
                Some(doubt) = self.doubted.recv() => doubt,
                () = sleep(PROBE_INTERVAL) => Doubt::Away,
            };
            match doubt {
                Doubt::Away => {
                    if let Err(fault) = line.answers(self.timeouts.reply).await {
                        return fault;
                    }
                }
                Doubt::ReadOnly => {
                    if replaced.is_none_or(|at| at.elapsed() >= READ_ONLY_INTERVAL) {
                        replaced = Some(Instant::now());
                        if let Err(fault) = self.replace(&mut line).await {
                            return fault;
                        }
                    }
                }
            }
        }
    }

    /// Connects once more, as the address may meanwhile lead to the server that has taken over. Reads go on: on the old
    /// connection for as long as there is no new one, and what is under way on it then has the time that it always has.
    async fn replace(&mut self, line: &mut Line) -> Result<(), Fault> {
        let opened = tokio::select! {
            () = &mut line.driver => return Err(Fault::Lost),
            opened = self.open() => opened,
        };
        if let Ok(opened) = opened {
            self.publish.send_replace(State::Up(opened.connection.clone()));
            let old = std::mem::replace(line, opened);
            while self.retired.try_join_next().is_some() {}
            // It ends by itself when the last call has its answer.
            self.retired.spawn(timeout(self.timeouts.reply, old.driver));
        }
        Ok(())
    }
}

/// A connection and what makes it work. Dropping it closes the connection, and fails the calls that wait for it.
struct Line {
    connection: MultiplexedConnection,
    /// Reads and writes for as long as the connection lives.
    driver: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Line {
    /// Connects, logs in, and makes sure that Redis works. `limit` is the time that whoever calls it has for that.
    async fn open(address: &Address, limit: Duration) -> Result<Self, Fault> {
        let unreachable = |error| Fault::unreachable(&error);
        match address.info().addr() {
            ConnectionAddr::Tcp(host, port) => {
                let addresses = lookup_host((host.as_str(), *port)).await.map_err(unreachable)?.collect();
                let stream = connect_to_any(addresses, limit).await.map_err(unreachable)?;
                stream.set_nodelay(true).map_err(unreachable)?;
                Self::log_in(stream, address).await
            }
            ConnectionAddr::Unix(path) => {
                Self::log_in(UnixStream::connect(path).await.map_err(unreachable)?, address).await
            }
            other => Err(Fault::Unreachable(format!("no way to {other} is known"))),
        }
    }

    async fn log_in(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        address: &Address,
    ) -> Result<Self, Fault> {
        let stream = greet(stream, address.info().redis_settings()).await?;
        // Timeouts are kept here, where it is known which one it was.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let nothing_more = RedisConnectionInfo::default();
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&nothing_more, stream, config).await?;
        Ok(Self { connection, driver: Box::pin(driver) })
    }

    /// Whether Redis does what it is asked to do.
    async fn answers(&mut self, limit: Duration) -> Result<(), Fault> {
        let ping = redis::cmd("PING");
        let answer = tokio::select! {
            () = &mut self.driver => return Err(Fault::Lost),
            answer = within(limit, self.connection.send_packed_command(&ping)) => answer?,
        };
        match answer {
            Value::ServerError(error) => Fault::from(error).after_ping(),
            _ => Ok(()),
        }
    }
}

/// Connects to the first that answers. None may take the time of all: a name's first address may be that of a machine that is
/// gone.
async fn connect_to_any(addresses: Vec<SocketAddr>, limit: Duration) -> io::Result<TcpStream> {
    let share = limit / u32::try_from(addresses.len() + 1).unwrap_or(u32::MAX);
    let mut why = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => why = error,
            Err(_) => why = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(why)
}

async fn within<T>(limit: Duration, reply: impl Future<Output = RedisResult<T>>) -> Result<T, Fault> {
    match timeout(limit, reply).await {
        Ok(reply) => reply.map_err(Fault::from),
        Err(_) => Err(Fault::TimedOut(limit)),
    }
}

/// How often Redis is asked whether it is there. As often as our hosts ask this plugin by default.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// How often a replica that was taken for the primary is connected to anew.
const READ_ONLY_INTERVAL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    #[tokio::test]
    async fn an_address_that_does_not_answer_is_not_waited_for_at_the_cost_of_the_next() {
        let any = || "127.0.0.1:0".parse().expect("it is one");
        let silent = TcpSocket::new_v4().expect("a socket");
        silent.bind(any()).expect("a port");
        let silent = silent.listen(1).expect("it listens");
        let silent_address = silent.local_addr().expect("it has one");
        // Connections that nobody accepts: the kernel answers no more once its queue is full.
        let filling: Vec<_> = (0..8).map(|_| tokio::spawn(TcpStream::connect(silent_address))).collect();
        while timeout(Duration::from_millis(200), TcpStream::connect(silent_address)).await.is_ok() {}
        let good = TcpListener::bind(any()).await.expect("a port");
        let addresses = vec![silent_address, good.local_addr().expect("it has one")];
        let stream = connect_to_any(addresses, Duration::from_secs(3)).await.expect("the second answers");
        assert_eq!(stream.peer_addr().ok(), good.local_addr().ok());
        drop(filling);
    }
}
