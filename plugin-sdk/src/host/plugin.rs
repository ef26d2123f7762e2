//! A running plugin: its channel, its health, its end.

use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Code;
use tonic::transport::Channel;

use super::error::Waiting;
use super::launch::{Instance, REAP_LIMIT};
use super::{Exit, HealthError, LaunchError, Security};
use crate::generated::health::HealthCheckRequest;
use crate::generated::health::health_check_response::ServingStatus;
use crate::generated::health::health_client::HealthClient;
use crate::generated::plugin::Empty;
use crate::generated::plugin::grpc_controller_client::GrpcControllerClient;
use crate::services::{HEALTH_SERVICE_NAME, Means, receive_stdio, run_at_host};
use crate::transport::{Dial, Mux, Stream, Tls, channel, connect as connect_raw};
use crate::{AppVersion, Broker, BrokerError, HandshakeLine, PluginAddress};

/// How long a health check may take. go-plugin's `Ping` has no limit and hangs on a stopped plugin.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// A plugin that can be called. Dropping it kills its process group; [`shutdown`](Self::shutdown) is the polite way.
#[derive(Debug)]
pub struct Plugin {
    instance: Instance,
    line: HandshakeLine,
    channel: Channel,
    broker: Broker,
    /// Ends the broker, and with it all that was made through it.
    _end: DropGuard,
}

impl Plugin {
    /// The name given to its launch.
    #[must_use]
    pub fn name(&self) -> &str {
        self.instance.launch.plugin_name()
    }

    /// A connection for any client that tonic generates. Cheap to clone. Calls on it fail once this plugin has ended;
    /// they never reach another process.
    ///
    /// Messages from the plugin are limited to 4 MiB unless the client's `max_decoding_message_size` is raised.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// More gRPC servers, in either direction, between this plugin and its host.
    #[must_use]
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Process id, which is also the id of its process group.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.instance.process.pid()
    }

    /// The application protocol version that was agreed on.
    #[must_use]
    pub fn app_version(&self) -> AppVersion {
        self.line.app_version
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &PluginAddress {
        &self.line.address
    }

    /// Waits until the process is gone. May be called any number of times, and dropped.
    pub async fn exited(&self) -> Exit {
        self.instance.process.exited().await
    }

    /// The last lines of its stderr.
    #[must_use]
    pub fn stderr_tail(&self) -> super::StderrTail {
        self.instance.output.tail()
    }

    /// Asks the plugin whether it is able to work. go-plugin's `Ping`, with a time limit of 5 s, and with a look at
    /// the answer.
    ///
    /// # Errors
    /// It is not, or does not answer.
    pub async fn health(&self) -> Result<(), HealthError> {
        check(self.channel()).await
    }

    /// Ends the plugin: asks it with `GRPCController.Shutdown`, sends SIGTERM after the grace time, SIGKILL to the
    /// process group after the grace time again. Returns when it is gone, and its socket directory with it, at the latest 5 s
    /// after SIGKILL.
    pub async fn shutdown(mut self) -> Exit {
        self.broker.close();
        let grace = self.instance.launch.shutdown_grace;
        let process = &self.instance.process;
        let graceful = async {
            process.note_shutdown_asked();
            let asked = GrpcControllerClient::new(self.channel.clone()).shutdown(Empty {}).await;
            match asked {
                // A plugin without the service will not end by itself.
                Err(status) if status.code() == Code::Unimplemented => std::future::ready(None).await,
                // Any other answer, and none, is followed by the exit: go-plugin's server breaks off the call.
                _ => Some(process.exited().await),
            }
        };
        let mut exit = tokio::time::timeout(grace, async {
            tokio::select! {
                exit = process.exited() => Some(exit),
                exit = graceful => exit,
            }
        })
        .await
        .ok()
        .flatten();
        if exit.is_none() {
            process.terminate();
            exit = tokio::time::timeout(grace, process.exited()).await.ok();
        }
        if exit.is_none() {
            process.kill();
            exit = tokio::time::timeout(REAP_LIMIT, process.exited()).await.ok();
        }
        let exit = exit.unwrap_or_else(|| process.unreaped());
        self.instance.output.finish().await;
        exit
    }
}

/// The last step of a start.
pub(super) async fn connect(mut instance: Instance, line: HandshakeLine) -> Result<Plugin, LaunchError> {
    let address = line.address.clone();
    let tls = match (&instance.launch.security, &instance.identity, &line.server_cert) {
        (Security::Tls(config), ..) => Some(config.tls()),
        (_, Some(own), Some(peer)) => Some(Tls::pinned(own, peer.clone())?),
        _ => None,
    };
    let end = CancellationToken::new();
    let multiplexing = instance.launch.multiplexing;
    let means = Means { place: instance.place.clone(), tls, mux: None };
    let outcome = instance
        .in_time(async {
            tokio::select! {
                // First, so that a plugin that printed its line and crashed is told by its exit.
                biased;
                exit = instance.process.exited() => Outcome::Exited(exit),
                outcome = reach(&address, means, multiplexing, &end) => outcome,
            }
        })
        .await;
    let (channel, broker) = match outcome {
        Some(Outcome::Ready(channel, broker)) => (channel, broker),
        None => return Err(instance.timed_out(Waiting::Health).await),
        Some(Outcome::Exited(exit)) => {
            return Err(instance.fail(|stderr_tail| LaunchError::Exited { exit, stderr_tail }).await);
        }
        Some(Outcome::Refused(source)) => {
            let error = |stderr_tail| LaunchError::Connect { address, source, stderr_tail };
            return Err(instance.fail_unless_exited(error).await);
        }
        Some(Outcome::Unwell(source)) => {
            let error = |stderr_tail| LaunchError::Unhealthy { source, stderr_tail };
            return Err(instance.fail_unless_exited(error).await);
        }
    };
    instance.output.spawn(run_at_host(broker.clone(), channel.clone()));
    let stdio = receive_stdio(
        channel.clone(),
        instance.output.log_sink("stdout"),
        instance.output.log_sink("stderr"),
    );
    instance.output.spawn(async move {
        if let Err(status) = stdio.await {
            tracing::warn!(%status, "the plugin's output stream failed");
        }
    });
    Ok(Plugin { instance, line, channel, broker, _end: end.drop_guard() })
}

/// How an attempt to reach a plugin ended.
enum Outcome {
    Ready(Channel, Broker),
    Exited(Exit),
    Refused(BrokerError),
    Unwell(HealthError),
}

async fn reach(
    address: &PluginAddress,
    means: Means,
    multiplexing: bool,
    end: &CancellationToken,
) -> Outcome {
    let tls = means.tls.clone();
    let connected = if multiplexing {
        multiplex(address, means, end).await
    } else {
        let channel = channel(address.clone(), tls).await.map_err(BrokerError::Connect);
        channel.map(|channel| (channel, Broker::new(means, end)))
    };
    let (channel, broker) = match connected {
        Ok(connected) => connected,
        Err(error) => return Outcome::Refused(error),
    };
    match check(channel.clone()).await {
        Ok(()) => Outcome::Ready(channel, broker),
        Err(HealthError::Check(status)) if status.code() == Code::Unimplemented => {
            tracing::warn!("the plugin has no health service");
            Outcome::Ready(channel, broker)
        }
        Err(error) => Outcome::Unwell(error),
    }
}

/// Makes the one connection of a plugin that multiplexes.
async fn multiplex(
    address: &PluginAddress,
    means: Means,
    end: &CancellationToken,
) -> Result<(Channel, Broker), BrokerError> {
    let tls = means.tls.clone();
    let (mux, mut streams) = Mux::client(connect_raw(address).await?);
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

/// The host's own connection to a plugin that multiplexes: a stream without a knock.
#[derive(Debug, Clone)]
struct MainStream(Mux);

impl Dial for MainStream {
    async fn dial(&self) -> Result<Stream, BrokerError> {
        self.0.dial(std::future::ready(Ok(()))).await
    }
}

async fn check(channel: Channel) -> Result<(), HealthError> {
    let request = HealthCheckRequest { service: HEALTH_SERVICE_NAME.to_owned() };
    let mut client = HealthClient::new(channel);
    let answer = tokio::time::timeout(HEALTH_TIMEOUT, client.check(request))
        .await
        .map_err(|_| HealthError::TimedOut(HEALTH_TIMEOUT))??;
    match answer.get_ref().status() {
        ServingStatus::Serving => Ok(()),
        other => Err(HealthError::NotServing(other.as_str_name())),
    }
}
