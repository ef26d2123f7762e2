//! The connections between a host and one plugin, whoever has started it: channel, broker, stdio.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Code;
use tonic::transport::Channel;

use super::output::Output;
use super::{Exit, HealthError};
use crate::PluginAddress;
use crate::generated::health::HealthCheckRequest;
use crate::generated::health::health_check_response::ServingStatus;
use crate::generated::health::health_client::HealthClient;
use crate::services::{
    Broker, BrokerError, HEALTH_SERVICE_NAME, Means, StreamEnd, receive_stdio, run_at_host,
};
use crate::transport::{Dial, Mux, Peer, Stream, channel, connect};

/// How often a plugin that is not well yet is asked again while it starts, after a while.
const HEALTH_INTERVAL: Duration = Duration::from_millis(50);

/// How soon it is asked again at first; then after twice as long each time. What a plugin waits for, a connection of its
/// own mostly, is often there a moment later.
const FIRST_HEALTH_INTERVAL: Duration = Duration::from_millis(1);

/// How long a stream of the SDK rests before it is opened again, to a plugin that may come back.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);

/// What to connect to.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) address: PluginAddress,
    /// Who has to listen there.
    pub(super) peer: Peer,
    /// The plugin's process; after its end nothing is dialled, as something else may listen there.
    pub(super) exit: Option<watch::Receiver<Option<Exit>>>,
    /// For one whose process nobody knows: it is dialled once, as another may listen there by the next time.
    pub(super) once: Option<Once>,
}

/// Lets one connection be made, and takes an attempt at a second for a sign that the first was lost.
#[derive(Debug, Clone, Default)]
pub(super) struct Once {
    is_over: Arc<AtomicBool>,
    lost: CancellationToken,
}

/// A plugin that answers.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) channel: Channel,
    pub(super) broker: Broker,
    health: HealthService,
    /// Cancelled when the connection has broken, as far as the broker's stream or [`Once`] tells.
    pub(super) lost: CancellationToken,
    /// Ends the broker, and with it all that was made through it.
    _end: DropGuard,
}

/// Whether a plugin can say how it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HealthService {
    Present,
    Missing,
}

/// Why a plugin does not answer.
#[derive(Debug)]
pub(super) enum Unreachable {
    Refused(BrokerError),
    Unwell(HealthError),
}

/// Whether streams that end are opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reopen {
    /// The plugin may come back, at the same address.
    Yes,
    /// They end with their process.
    No,
}

impl Target {
    /// Connects, and waits until the plugin is well, but not beyond `deadline` if it says that it is not. A plugin
    /// without the health service is taken to be well once it answers.
    pub(super) async fn reach(
        self,
        means: Means,
        multiplexing: bool,
        deadline: Instant,
    ) -> Result<Link, Unreachable> {
        let lost = self.once.as_ref().map(|once| once.lost.clone()).unwrap_or_default();
        if !multiplexing {
            return Link::over(self, means, lost, deadline).await;
        }
        let end = CancellationToken::new();
        let (channel, broker) = self.multiplex(means, &end).await.map_err(Unreachable::Refused)?;
        Link::once_well(channel, broker, end, lost, deadline).await
    }

    /// Makes the one connection of a plugin that multiplexes.
    async fn multiplex(
        self,
        means: Means,
        end: &CancellationToken,
    ) -> Result<(Channel, Broker), BrokerError> {
        let tls = means.tls.clone();
        let (mux, mut streams) = Mux::client(self.dial().await?);
        let broker = Broker::new(Means { mux: Some(mux.clone()), ..means }, end);
        let router = broker.clone();
        tokio::spawn(end.clone().run_until_cancelled_owned(async move {
            while let Some(stream) = streams.recv().await {
                if router.route(stream).is_some() {
                    tracing::warn!("the plugin opened a stream that it had not knocked for");
                }
            }
        }));
        let channel = channel(MainStream(mux), tls).await.map_err(BrokerError::Connect)?;
        Ok((channel, broker))
    }
}

impl Dial for Target {
    async fn dial(&self) -> Result<Stream, BrokerError> {
        if self.exit.as_ref().is_some_and(|exit| exit.borrow().is_some()) {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the plugin has ended").into());
        }
        if self.once.as_ref().is_some_and(|once| !once.is_first()) {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the connection was lost").into());
        }
        let stream = connect(&self.address).await?;
        if let Stream::Unix(stream) = &stream {
            self.peer.check(stream)?;
        }
        Ok(stream)
    }
}

impl Once {
    fn is_first(&self) -> bool {
        let is_first = !self.is_over.swap(true, Ordering::Relaxed);
        if !is_first {
            self.lost.cancel();
        }
        is_first
    }
}

/// The host's own connection to a plugin that multiplexes: a stream without a knock.
#[derive(Debug, Clone)]
struct MainStream(Mux);

impl Dial for MainStream {
    async fn dial(&self) -> Result<Stream, BrokerError> {
        self.0.dial(std::future::ready(Ok(()))).await
    }
}

impl Link {
    /// Connects by `dial`, and waits as [`Target::reach`] does.
    pub(super) async fn over(
        dial: impl Dial,
        means: Means,
        lost: CancellationToken,
        deadline: Instant,
    ) -> Result<Self, Unreachable> {
        let end = CancellationToken::new();
        let channel = channel(dial, means.tls.clone()).await;
        let channel = channel.map_err(|error| Unreachable::Refused(BrokerError::Connect(error)))?;
        let broker = Broker::new(means, &end);
        Self::once_well(channel, broker, end, lost, deadline).await
    }

    async fn once_well(
        channel: Channel,
        broker: Broker,
        end: CancellationToken,
        lost: CancellationToken,
        deadline: Instant,
    ) -> Result<Self, Unreachable> {
        // What it has said is of more use than that it did not say it again in time.
        let last_look = deadline.checked_sub(HEALTH_INTERVAL).unwrap_or(deadline);
        let (mut said, mut interval) = (None, FIRST_HEALTH_INTERVAL);
        let health = loop {
            let check = check(channel.clone());
            let answer = match said {
                None => check.await,
                Some(status) => {
                    timeout_at(last_look, check).await.unwrap_or(Err(HealthError::NotServing(status)))
                }
            };
            match answer {
                Ok(()) => break HealthService::Present,
                Err(HealthError::Check(status)) if status.code() == Code::Unimplemented => {
                    break HealthService::Missing;
                }
                Err(HealthError::NotServing(status)) if Instant::now() < last_look => {
                    said = Some(status);
                    tokio::time::sleep_until(last_look.min(Instant::now() + interval)).await;
                    interval = HEALTH_INTERVAL.min(2 * interval);
                }
                Err(error) => return Err(Unreachable::Unwell(error)),
            }
        };
        Ok(Link { channel, broker, health, lost, _end: end.drop_guard() })
    }

    /// Opens the SDK's own streams, as part of the plugin's output.
    pub(super) fn open_streams(&self, output: &mut Output, reopen: Reopen) {
        let plugin = output.name().to_owned();
        if self.health == HealthService::Missing {
            // As it was made, and so at each start.
            tracing::info!(
                plugin,
                "the plugin has no health service: it is taken to be well while it answers"
            );
        }
        let (channel, broker, lost) = (self.channel.clone(), self.broker.clone(), self.lost.clone());
        output.spawn(async move {
            let end = loop {
                let end = run_at_host(&broker, channel.clone()).await;
                if !reopen.after(end) {
                    break end;
                }
                tokio::time::sleep(REOPEN_INTERVAL).await;
            };
            broker.close();
            if end == StreamEnd::Broken {
                lost.cancel();
            }
        });
        let (mut stdout, mut stderr) = (output.log_sink("stdout"), output.log_sink("stderr"));
        let channel = self.channel.clone();
        output.spawn(async move {
            while reopen.after(receive_stdio(&plugin, channel.clone(), &mut stdout, &mut stderr).await) {
                tokio::time::sleep(REOPEN_INTERVAL).await;
            }
        });
    }
}

impl Reopen {
    fn after(self, end: StreamEnd) -> bool {
        self == Self::Yes && end == StreamEnd::Broken
    }
}

/// Asks the plugin whether it is well. Without a time limit.
pub(super) async fn check(channel: Channel) -> Result<(), HealthError> {
    let request = HealthCheckRequest { service: HEALTH_SERVICE_NAME.to_owned() };
    let answer = HealthClient::new(channel).check(request).await?;
    match answer.get_ref().status() {
        ServingStatus::Serving => Ok(()),
        other => Err(HealthError::NotServing(other.as_str_name())),
    }
}
