//! `GRPCBroker`: more gRPC servers between a host and its plugin, in either direction, each with a number that the
//! application passes on in its own calls.
//!
//! What passes over the wire without multiplexing is in the picture at [`Broker`]. With it there is no address to tell. The one
//! that dials knocks, and the next stream that it opens on the shared connection, once it has the answer, is for `id`:
//!
//! ```text
//! accept_and_serve(id) ◀─ ConnInfo{id, knock} ──────── dial(id)
//!                      ── ConnInfo{id, knock, ack} ──▶ opens the next stream
//! ```
//!
//! All state belongs to one `StartStream` call and ends with it, so that every host of a plugin has a broker of its
//! own. (In go-plugin the second host has none.)

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_stream::{Stream as Inbound, StreamExt};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::server::server;
use crate::PluginAddress;
use crate::generated::plugin::ConnInfo;
use crate::generated::plugin::conn_info::Knock;
use crate::handshake::AddressProblem;
use crate::transport::{
    ConnectionInfo, Dial, Entrance, Incoming, ListenError, Mux, Place, Stream, Tls, Translation, channel,
};

/// How long each side waits for the other: for an announcement, for the answer to a knock, for the stream itself.
/// go-plugin's value for all of them, and for how long it keeps an announcement.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a knock waits for its server. Less than the one who knocked waits for the answer: an answer that comes when he
/// has just given up would have the next stream, which is for another, taken for his.
const KNOCK_LIMIT: Duration = Duration::from_millis(4_000);

/// How long a connection may take to be made, TLS included: longer than the answer to a knock, which is a part of it.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Messages on their way to the peer.
const OUTGOING: usize = 64;

/// Announcements and knocks that are kept at most. The peer's application makes them one at a time, and most are for a moment.
const KEPT: usize = 4096;

/// The longest address that is kept: more than any that can be connected to.
const ADDRESS_BYTES: usize = 4096;

/// Connections that wait for a brokered server.
const BACKLOG: usize = 16;

/// More gRPC servers between a host and its plugin, in either direction: this is one side's end of it. Cheap to clone.
///
/// A host has it from `Plugin::broker`, a plugin's service from [`Broker::of`] a call. Each server has a number, which the
/// application passes on in its own calls:
///
/// ```text
/// one side                                             the other
/// id = next_id(), accept_and_serve(id) ── ConnInfo ──▶ noted
/// an RPC of the application with id in it ───────────▶ dial(id): connects to the address noted
/// ```
///
/// ```
/// use plugin_sdk::{Broker, BrokerError, BrokeredServer};
/// use tonic::service::Routes;
/// use tonic::transport::Channel;
/// use tonic::{Request, Status};
///
/// /// Serves something to the host, until the server is dropped. The answer tells the host its `id()`.
/// async fn lend<T>(request: &Request<T>, routes: Routes) -> Result<BrokeredServer, BrokerError> {
///     let broker = Broker::of(request)?;
///     broker.accept_and_serve(broker.next_id(), routes).await
/// }
///
/// /// Uses what the host serves, and has told the number of.
/// async fn borrow(request: &Request<u32>) -> Result<Channel, Status> {
///     Ok(Broker::of(request)?.dial(*request.get_ref()).await?)
/// }
/// ```
///
/// - First serve, then tell the number. The news of the server and the call that tells its number may overtake one another: a
///   dial waits for the news, 5 s at most.
/// - A number may be dialled at any time and any number of times while it is served, and the channel of a dial connects again by
///   itself. Of more than 4,096 numbers the oldest are forgotten.
/// - go-plugin's hosts and plugins dial a number once and within 5 s, unless the connection is multiplexed. For them, serve a new
///   number for each dial.
/// - All of it belongs to one connection between host and plugin, and ends with it.
#[derive(Debug, Clone)]
pub struct Broker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    next_id: AtomicU32,
    means: Means,
    /// To the peer, while its stream is open.
    outgoing: watch::Sender<Option<mpsc::Sender<ConnInfo>>>,
    /// Locked for a few look-ups at a time, never across a wait.
    ledger: Mutex<Ledger>,
    /// Tells dials that wait that the peer has said something.
    heard: Notify,
    closed: CancellationToken,
}

/// How this side makes connections.
#[derive(Debug)]
pub(crate) struct Means {
    pub(crate) place: Place,
    pub(crate) tls: Option<Tls>,
    pub(crate) mux: Option<Mux>,
    /// Of addresses that are told and heard.
    pub(crate) translation: Translation,
}

/// Why there is no brokered connection.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The plugin is being stopped, its host has gone, or it has no broker service.
    #[error("the broker is closed")]
    Closed,
    /// The call did not come over a connection with a broker.
    #[error("this call came over a connection without a broker")]
    NoBroker,
    /// The peer does not serve the id: not yet, no longer, or it is one of this side's own numbers.
    #[error(
        "the other side offered nothing under id {id} within {after:?}: it does not serve it, or no longer"
    )]
    TimedOut {
        /// What was dialled.
        id: u32,
        /// How long it was waited for.
        after: Duration,
    },
    /// The peer has not opened the broker's stream, or does not read it.
    #[error("the other side has not listened to news of id {id} for {after:?}")]
    Unheard {
        /// What was served or dialled.
        id: u32,
        /// How long it was waited for.
        after: Duration,
    },
    /// The peer answered the knock with an error.
    #[error("the peer refused id {id}: {message}")]
    Refused {
        /// What was dialled.
        id: u32,
        /// The peer's words.
        message: String,
    },
    /// Another server is there under this id.
    #[error("id {0} is being served already")]
    InUse(u32),
    /// No socket to listen on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The peer's address makes no sense.
    #[error("the peer offered an address that cannot be used")]
    Address(#[from] AddressProblem),
    /// The plugin lives in another name space, and its runner cannot translate the address.
    #[error("the address {address} cannot be translated between host and plugin")]
    Translation {
        /// As the side that listens there calls it.
        address: PluginAddress,
        /// The runner's reason.
        #[source]
        source: io::Error,
    },
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// The connection failed.
    #[error("cannot connect to what was offered")]
    Connect(#[source] tonic::transport::Error),
}

/// For services whose answer depends on a brokered connection. `UNAVAILABLE` where another try may help.
impl From<BrokerError> for Status {
    fn from(error: BrokerError) -> Self {
        let text = crate::one_line(&error).to_string();
        match error {
            BrokerError::Closed
            | BrokerError::TimedOut { .. }
            | BrokerError::Unheard { .. }
            | BrokerError::Io(_)
            | BrokerError::Connect(_) => Self::unavailable(text),
            BrokerError::NoBroker | BrokerError::Refused { .. } | BrokerError::InUse(_) => {
                Self::failed_precondition(text)
            }
            BrokerError::Listen(_) | BrokerError::Address(_) | BrokerError::Translation { .. } => {
                Self::internal(text)
            }
        }
    }
}

/// A brokered server. It ends, after the calls that are running, when this is dropped or the broker closes.
#[derive(Debug)]
#[must_use = "dropping it ends the server; keep it for as long as the other side is to call it"]
pub struct BrokeredServer {
    id: u32,
    _stop: DropGuard,
}

impl BrokeredServer {
    /// The number that the peer has to dial.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }
}

impl Broker {
    /// A broker that closes when `end` is cancelled, if not before.
    pub(crate) fn new(means: Means, end: &CancellationToken) -> Self {
        Self(Arc::new(Shared {
            next_id: AtomicU32::new(1),
            means,
            outgoing: watch::Sender::new(None),
            ledger: Mutex::default(),
            heard: Notify::new(),
            closed: end.child_token(),
        }))
    }

    /// The broker of the connection that a request came over, for services of a plugin.
    ///
    /// # Errors
    /// [`BrokerError::NoBroker`] for calls to a brokered server, which has none of its own.
    pub fn of<T>(request: &Request<T>) -> Result<Self, BrokerError> {
        let info = request.extensions().get::<ConnectionInfo>();
        info.and_then(|info| info.broker.clone()).ok_or(BrokerError::NoBroker)
    }

    /// A number that this side has not used. Both sides count for themselves, from 1: the host's 1 and the plugin's 1
    /// are different servers.
    #[must_use]
    pub fn next_id(&self) -> u32 {
        self.0.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Serves `routes` to whoever dials `id` at the other side, until the server is dropped. The peer can dial from when
    /// this returns: any number of times, but for [one that is made with go-plugin](Self).
    ///
    /// # Errors
    /// No socket, an id that is in use, or a closed broker.
    pub async fn accept_and_serve(&self, id: u32, routes: Routes) -> Result<BrokeredServer, BrokerError> {
        self.check_open()?;
        let stop = self.0.closed.child_token();
        let incoming = self.accept(id, &stop).await?;
        let server = server()
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
        tokio::spawn(async move {
            if let Err(error) = server.await {
                tracing::warn!(id, error = %crate::one_line(&error), "a brokered server failed");
            }
        });
        Ok(BrokeredServer { id, _stop: stop.drop_guard() })
    }

    /// Connects to what the peer serves under `id`. Waits for it for 5 s if it is not there, or has gone.
    ///
    /// # Errors
    /// The peer does not serve it, or no longer; the connection fails; the broker is closed.
    pub async fn dial(&self, id: u32) -> Result<Channel, BrokerError> {
        self.check_open()?;
        if self.0.means.mux.is_some() {
            return self.connect(Knocker { broker: self.clone(), id }).await;
        }
        let found = self.announced(id).await?;
        match self.connect(self.own(&found)?).await {
            Err(error) if !found.is_fresh(Instant::now()) => self.dial_anew(id, &found, error).await,
            connected => connected,
        }
    }

    /// Dials once more where an address is of no use any more: the peer may serve the id again, at another one.
    async fn dial_anew(&self, id: u32, gone: &Announced, error: BrokerError) -> Result<Channel, BrokerError> {
        self.ledger().forget(id, gone);
        match self.announced(id).await {
            Ok(found) => self.connect(self.own(&found)?).await,
            Err(BrokerError::TimedOut { .. }) => Err(error),
            Err(closed) => Err(closed),
        }
    }

    async fn connect(&self, dial: impl Dial) -> Result<Channel, BrokerError> {
        let tls = self.0.means.tls.clone();
        let connected = async { channel(dial, tls).await.map_err(BrokerError::Connect) };
        let late = || io::Error::new(io::ErrorKind::TimedOut, "the peer takes it and does not answer").into();
        self.within(CONNECT_LIMIT, connected, late).await
    }

    /// Serves one `StartStream` call: what comes in is worked on until it ends, what goes out is in the receiver.
    pub(crate) fn attach(&self) -> (mpsc::Receiver<ConnInfo>, Attached) {
        let (outgoing, receiver) = mpsc::channel(OUTGOING);
        self.0.outgoing.send_replace(Some(outgoing.clone()));
        (receiver, Attached { broker: self.clone(), outgoing })
    }

    /// Ends all that was made through this broker.
    pub(crate) fn close(&self) {
        self.0.closed.cancel();
        self.0.outgoing.send_replace(None);
    }

    /// Gives a stream that the peer opened to the server that it knocked for. Gives it back if nobody knocked.
    pub(crate) fn route(&self, stream: Stream) -> Option<Stream> {
        let Some(server) = self.ledger().claim(Instant::now()) else { return Some(stream) };
        // A server that has gone, or is flooded: dropping the stream resets it.
        let _ = server.try_send(stream);
        None
    }

    #[cfg(feature = "host")]
    pub(crate) fn is_closed(&self) -> bool {
        self.0.closed.is_cancelled()
    }

    fn check_open(&self) -> Result<(), BrokerError> {
        if self.0.closed.is_cancelled() { Err(BrokerError::Closed) } else { Ok(()) }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Every change of the ledger is a single call on one of its collections.
        self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn accept(&self, id: u32, stop: &CancellationToken) -> Result<Incoming, BrokerError> {
        let (entrance, incoming) = Entrance::new(self.0.means.tls.clone(), self.0.means.place.access());
        if self.0.means.mux.is_some() {
            let (server, mut streams) = mpsc::channel(BACKLOG);
            let early = self.ledger().register(id, server, Instant::now())?;
            let registered = Registered { broker: self.clone(), id };
            if early {
                self.send(acknowledgement(id)).await?;
            }
            let stop = stop.clone();
            tokio::spawn(stop.run_until_cancelled_owned(async move {
                let _registered = registered;
                while let Some(stream) = streams.recv().await {
                    entrance.admit(stream, None);
                }
            }));
        } else {
            let listener = self.0.means.place.bind().await?;
            let address = self.0.means.translation.to_peers(listener.address())?;
            entrance.accept_from(listener, stop.clone(), || None);
            let network = address.network().to_owned();
            let info = ConnInfo { service_id: id, network, address: address.to_string(), knock: None };
            self.send(info).await?;
        }
        Ok(incoming)
    }

    /// Waits for the address of a server.
    async fn announced(&self, id: u32) -> Result<Announced, BrokerError> {
        let found = async {
            loop {
                // Before the look: what comes after it is not missed.
                let heard = self.0.heard.notified();
                if let Some(found) = self.ledger().look_up(id) {
                    return Ok(found);
                }
                heard.await;
            }
        };
        self.patiently(id, found).await
    }

    /// An address of the peer, as this side calls it.
    fn own(&self, announced: &Announced) -> Result<PluginAddress, BrokerError> {
        let (network, address) = &announced.address;
        self.0.means.translation.to_own(PluginAddress::parse(network, address)?)
    }

    /// Asks for the next stream to be that of a server.
    async fn knock(&self, id: u32) -> Result<(), BrokerError> {
        let told = self.ledger().await_acknowledgement(id);
        let knock = Knock { knock: true, ..Knock::default() };
        self.send(ConnInfo { service_id: id, knock: Some(knock), ..ConnInfo::default() }).await?;
        match self.patiently(id, async { told.await.map_err(|_| BrokerError::Closed) }).await? {
            message if message.is_empty() => Ok(()),
            message => Err(BrokerError::Refused { id, message }),
        }
    }

    async fn patiently<T>(
        &self,
        id: u32,
        told: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<T, BrokerError> {
        self.within(PATIENCE, told, || BrokerError::TimedOut { id, after: PATIENCE }).await
    }

    /// Waits for the peer: for so long at most, and no longer than the broker is open.
    async fn within<T>(
        &self,
        limit: Duration,
        done: impl Future<Output = Result<T, BrokerError>>,
        late: impl FnOnce() -> BrokerError,
    ) -> Result<T, BrokerError> {
        tokio::select! {
            done = tokio::time::timeout(limit, done) => done.unwrap_or_else(|_| Err(late())),
            () = self.0.closed.cancelled() => Err(BrokerError::Closed),
        }
    }

    async fn send(&self, info: ConnInfo) -> Result<(), BrokerError> {
        let id = info.service_id;
        let mut outgoing = self.0.outgoing.subscribe();
        let sent = async {
            let open = outgoing.wait_for(Option::is_some).await.ok().and_then(|open| open.clone());
            match open {
                Some(open) => open.send(info).await.map_err(|_| BrokerError::Closed),
                None => Err(BrokerError::Closed),
            }
        };
        self.within(PATIENCE, sent, || BrokerError::Unheard { id, after: PATIENCE }).await
    }
}

/// A broker with its stream to the peer.
#[derive(Debug)]
pub(crate) struct Attached {
    broker: Broker,
    outgoing: mpsc::Sender<ConnInfo>,
}

impl Attached {
    /// Works on the peer's messages until its stream ends.
    pub(crate) async fn run(self, mut inbound: impl Inbound<Item = Result<ConnInfo, Status>> + Unpin) {
        let closed = self.broker.0.closed.clone();
        while let Some(Some(Ok(info))) = closed.run_until_cancelled(inbound.next()).await {
            let answer = self.broker.ledger().receive(info, Instant::now());
            self.broker.0.heard.notify_waiters();
            if let Some(answer) = answer {
                // A peer that does not read its answers does not get them.
                let _ = self.outgoing.try_send(answer);
            }
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // Unless another stream has taken its place, what the peer said here is void.
        let ended = self.broker.0.outgoing.send_if_modified(|current| {
            let own = current.as_ref().is_some_and(|current| current.same_channel(&self.outgoing));
            if own {
                *current = None;
            }
            own
        });
        if ended {
            self.broker.ledger().forget_peer();
        }
    }
}

/// The service, on the plugin's side. The broker is that of the connection.
#[cfg(feature = "plugin")]
#[derive(Debug)]
pub(crate) struct BrokerService;

#[cfg(feature = "plugin")]
#[tonic::async_trait]
impl crate::generated::plugin::grpc_broker_server::GrpcBroker for BrokerService {
    type StartStreamStream = std::pin::Pin<Box<dyn Inbound<Item = Result<ConnInfo, Status>> + Send>>;

    async fn start_stream(
        &self,
        request: Request<tonic::Streaming<ConnInfo>>,
    ) -> Result<tonic::Response<Self::StartStreamStream>, Status> {
        let broker = Broker::of(&request)?;
        let (outgoing, attached) = broker.attach();
        let ending = broker.clone();
        tokio::spawn(async move {
            attached.run(request.into_inner()).await;
            // The host has gone, and with it whoever was to use what was served for it.
            ending.close();
        });
        // Ends when the stream to the broker is closed, so that a drain does not wait for the host to do it.
        let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing).map(Ok);
        Ok(tonic::Response::new(Box::pin(super::Until::new(&broker.0.closed, outgoing))))
    }
}

/// Keeps a host's broker going over one `StartStream` call.
#[cfg(feature = "host")]
pub(crate) async fn run_at_host(broker: &Broker, connection: Channel) -> super::StreamEnd {
    let (outgoing, attached) = broker.attach();
    let mut client = crate::generated::plugin::grpc_broker_client::GrpcBrokerClient::new(connection);
    // go-plugin answers with its first message, which may be never.
    match client.start_stream(tokio_stream::wrappers::ReceiverStream::new(outgoing)).await {
        Ok(response) => attached.run(response.into_inner()).await,
        Err(status) if status.code() == tonic::Code::Unimplemented => return super::StreamEnd::Unsupported,
        Err(_) => {}
    }
    super::StreamEnd::Broken
}

/// Dials one id on the shared connection: one knock for each connection, reconnects included.
#[derive(Debug, Clone)]
struct Knocker {
    broker: Broker,
    id: u32,
}

impl Dial for Knocker {
    async fn dial(&self) -> Result<Stream, BrokerError> {
        match &self.broker.0.means.mux {
            Some(mux) => {
                let Self { broker, id } = self.clone();
                mux.dial(async move { broker.knock(id).await }).await
            }
            None => Err(BrokerError::Closed),
        }
    }
}

/// The entry of a multiplexed server in the ledger, as long as it serves.
#[derive(Debug)]
struct Registered {
    broker: Broker,
    id: u32,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.broker.ledger().servers.remove(&self.id);
    }
}

fn acknowledgement(id: u32) -> ConnInfo {
    let knock = Knock { knock: true, ack: true, error: String::new() };
    ConnInfo { service_id: id, knock: Some(knock), ..ConnInfo::default() }
}

/// An address that the peer has announced: network and address, as they came.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Announced {
    address: (String, String),
    since: Instant,
    dialled: bool,
}

impl Announced {
    /// Whether it was meant for a dial of this moment. In go-plugin it is good for no other: a peer that is made with it may
    /// announce an id anew for each.
    fn is_fresh(&self, now: Instant) -> bool {
        !self.dialled && now - self.since < PATIENCE
    }
}

/// What is known of the peer's servers and of its wishes. Time is an argument.
#[derive(Debug, Default)]
struct Ledger {
    /// Where the peer serves, by what it has said last.
    announced: HashMap<u32, Announced>,
    /// Own dials that wait for the answer to their knock: its error text, empty for none.
    awaiting_acknowledgement: HashMap<u32, oneshot::Sender<String>>,
    /// Own servers on the shared connection.
    servers: HashMap<u32, mpsc::Sender<Stream>>,
    /// Knocks for which there is no server yet.
    early: HashMap<u32, Instant>,
    /// Knocks that were answered and whose stream has not come yet, in the order of the answers.
    acknowledged: VecDeque<(Instant, u32)>,
}

impl Ledger {
    /// Drops all that the peer has said; own servers stay for its next stream.
    fn forget_peer(&mut self) {
        let servers = std::mem::take(&mut self.servers);
        *self = Self { servers, ..Self::default() };
    }

    /// Takes a message of the peer, and gives an answer to it if there has to be one.
    fn receive(&mut self, info: ConnInfo, now: Instant) -> Option<ConnInfo> {
        let id = info.service_id;
        match info.knock {
            Some(Knock { knock: true, ack: false, .. }) => return self.receive_knock(id, now),
            Some(Knock { ack: true, error, .. }) => {
                if let Some(waiting) = self.awaiting_acknowledgement.remove(&id) {
                    let _ = waiting.send(error);
                }
            }
            _ => self.receive_announcement(id, (info.network, info.address), now),
        }
        None
    }

    fn receive_announcement(&mut self, id: u32, address: (String, String), now: Instant) {
        let bytes = address.0.len() + address.1.len();
        if bytes > ADDRESS_BYTES {
            return tracing::warn!(id, bytes, "an address that nobody can connect to is not taken note of");
        }
        // An address that is another server's by now leads to the wrong one.
        self.announced.retain(|_, kept| kept.address != address || kept.is_fresh(now));
        if self.announced.len() >= KEPT && !self.announced.contains_key(&id) {
            let oldest = self.announced.iter().min_by_key(|(_, kept)| kept.since).map(|(id, _)| *id);
            oldest.and_then(|oldest| self.announced.remove(&oldest));
        }
        self.announced.insert(id, Announced { address, since: now, dialled: false });
    }

    fn receive_knock(&mut self, id: u32, now: Instant) -> Option<ConnInfo> {
        if self.servers.contains_key(&id) {
            self.acknowledged.push_back((now, id));
            return Some(acknowledgement(id));
        }
        self.early.retain(|_, since| now - *since < KNOCK_LIMIT);
        if self.early.len() < KEPT {
            self.early.insert(id, now);
        }
        None
    }

    /// Looks an announcement up for a dial, as it is before it.
    fn look_up(&mut self, id: u32) -> Option<Announced> {
        let kept = self.announced.get_mut(&id)?;
        let found = kept.clone();
        kept.dialled = true;
        Some(found)
    }

    /// Forgets an announcement that has led nowhere, unless there is a newer one.
    fn forget(&mut self, id: u32, failed: &Announced) {
        if self
            .announced
            .get(&id)
            .is_some_and(|kept| kept.since == failed.since && kept.address == failed.address)
        {
            self.announced.remove(&id);
        }
    }

    fn await_acknowledgement(&mut self, id: u32) -> oneshot::Receiver<String> {
        let (tell, told) = oneshot::channel();
        self.awaiting_acknowledgement.insert(id, tell);
        told
    }

    /// Adds a server, and tells whether somebody has knocked for it already.
    fn register(&mut self, id: u32, server: mpsc::Sender<Stream>, now: Instant) -> Result<bool, BrokerError> {
        if self.servers.contains_key(&id) {
            return Err(BrokerError::InUse(id));
        }
        self.servers.insert(id, server);
        let early = self.early.remove(&id).is_some_and(|since| now - since < KNOCK_LIMIT);
        if early {
            self.acknowledged.push_back((now, id));
        }
        Ok(early)
    }

    /// The server for the next stream that the peer opens; `None` if no knock is waiting for its stream.
    fn claim(&mut self, now: Instant) -> Option<mpsc::Sender<Stream>> {
        while let Some((since, id)) = self.acknowledged.pop_front() {
            if now - since < PATIENCE {
                // For an id that has gone meanwhile, a sender without receiver: the stream is dropped.
                return Some(self.servers.get(&id).cloned().unwrap_or_else(|| mpsc::channel(1).0));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn an_error_becomes_a_status_with_its_whole_cause() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let status = Status::from(BrokerError::Io(refused));
        assert_eq!(
            (status.code(), status.message()),
            (Code::Unavailable, "the connection failed: connection refused")
        );
        assert_eq!(Status::from(BrokerError::NoBroker).code(), Code::FailedPrecondition);
    }

    fn announcement(id: u32) -> ConnInfo {
        let (network, address) = ("unix".to_owned(), format!("/{id}"));
        ConnInfo { service_id: id, network, address, knock: None }
    }

    fn knock(id: u32) -> ConnInfo {
        let knock = Knock { knock: true, ..Knock::default() };
        ConnInfo { service_id: id, knock: Some(knock), ..ConnInfo::default() }
    }

    #[cfg(feature = "host")]
    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_the_connection_and_says_nothing_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("silent");
        let _silent = tokio::net::UnixListener::bind(&path).unwrap();
        let own = crate::transport::Identity::generate().unwrap();
        let tls = Tls::pinned(&own, own.certificate().clone()).unwrap();
        let place = Place::Tcp { ports: None };
        let means = Means { place, tls: Some(tls), mux: None, translation: Translation::default() };
        let broker = Broker::new(means, &CancellationToken::new());
        let address = path.display().to_string();
        let announced = |id| ConnInfo { address: address.clone(), ..announcement(id) };
        broker.ledger().receive(announced(1), Instant::now());
        let dialled = tokio::time::timeout(2 * CONNECT_LIMIT, broker.dial(1)).await.expect("it ends in time");
        let Err(BrokerError::Io(error)) = dialled else { panic!("{dialled:?}") };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        broker.ledger().receive(announced(2), Instant::now());
        let close = async {
            tokio::task::yield_now().await;
            broker.close();
        };
        let (dialled, ()) = tokio::join!(broker.dial(2), close);
        assert!(matches!(dialled, Err(BrokerError::Closed)), "{dialled:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_listen_is_not_one_that_offers_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::Unix { dir: dir.path().to_owned(), group: None };
        let means = Means { place, tls: None, mux: None, translation: Translation::default() };
        let broker = Broker::new(means, &CancellationToken::new());
        let served = broker.accept_and_serve(1, Routes::default()).await;
        assert!(matches!(served, Err(BrokerError::Unheard { id: 1, .. })), "{served:?}");
        let sockets = || std::fs::read_dir(dir.path()).unwrap().count();
        let gone = async {
            while sockets() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("its socket goes with it");
        assert!(matches!(broker.dial(2).await, Err(BrokerError::TimedOut { id: 2, .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn an_announcement_is_good_for_any_dial_and_fresh_for_the_first_within_five_seconds() {
        let mut ledger = Ledger::default();
        let now = Instant::now();
        ledger.receive(announcement(1), now);
        let first = ledger.look_up(1).unwrap();
        assert_eq!(first.address.1, "/1");
        assert!(first.is_fresh(now + PATIENCE / 2) && !first.is_fresh(now + PATIENCE));
        let second = ledger.look_up(1).unwrap();
        assert!(second.address == first.address && !second.is_fresh(now));
        assert_eq!(ledger.look_up(2), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_latest_announcement_counts_and_an_address_that_is_anothers_by_now_does_not() {
        let at = |id, address: &str| ConnInfo { address: address.to_owned(), ..announcement(id) };
        let mut ledger = Ledger::default();
        let now = Instant::now();
        ledger.receive(at(1, "/old"), now);
        let old = ledger.look_up(1).unwrap();
        ledger.receive(at(1, "/new"), now);
        ledger.forget(1, &old);
        let new = ledger.look_up(1).unwrap();
        assert_eq!(new.address.1, "/new");
        // One server for two numbers, until one of them was dialled: it may be another server by then.
        ledger.receive(at(2, "/shared"), now);
        ledger.receive(at(3, "/shared"), now);
        assert!(ledger.look_up(2).is_some() && ledger.look_up(3).is_some());
        ledger.receive(at(4, "/shared"), now);
        assert_eq!((ledger.look_up(2), ledger.look_up(3)), (None, None));
        ledger.forget(1, &new);
        assert_eq!(ledger.look_up(1), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_dials_is_not_kept_for_ever() {
        let mut ledger = Ledger::default();
        let now = Instant::now();
        let kept = u32::try_from(KEPT).unwrap();
        for id in 0..2 * kept {
            ledger.receive(announcement(id), now + Duration::from_micros(id.into()));
            ledger.receive(knock(id), now);
        }
        assert_eq!((ledger.announced.len(), ledger.early.len()), (KEPT, KEPT));
        assert!(ledger.look_up(kept - 1).is_none() && ledger.look_up(kept).is_some(), "the oldest go first");
        ledger.receive(knock(0), now + PATIENCE);
        assert_eq!(ledger.early.len(), 1);
        let address = "x".repeat(ADDRESS_BYTES);
        ledger.receive(ConnInfo { address, ..announcement(0) }, now);
        assert_eq!(ledger.look_up(0), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_knock_waits_for_its_server_and_is_forgotten_with_its_dialler() {
        let mut ledger = Ledger::default();
        let now = Instant::now();
        let (server, _streams) = mpsc::channel(1);
        assert_eq!(ledger.receive(knock(1), now), None);
        assert!(ledger.register(1, server.clone(), now + PATIENCE / 2).unwrap());
        assert!(ledger.claim(now + PATIENCE / 2).is_some());
        assert!(ledger.claim(now + PATIENCE / 2).is_none());

        assert_eq!(ledger.receive(knock(2), now), None);
        assert!(!ledger.register(2, server.clone(), now + KNOCK_LIMIT).unwrap());
        assert!(ledger.claim(now + KNOCK_LIMIT).is_none(), "a late accept must not wait for a stream");
        assert_eq!(ledger.receive(knock(2), now + PATIENCE), Some(acknowledgement(2)));
        assert!(matches!(ledger.register(2, server, now), Err(BrokerError::InUse(2))));
    }

    #[tokio::test(start_paused = true)]
    async fn streams_are_claimed_in_the_order_of_the_answers() {
        let mut ledger = Ledger::default();
        let now = Instant::now();
        let (one, _first) = mpsc::channel(1);
        let (two, _second) = mpsc::channel(1);
        ledger.register(1, one.clone(), now).unwrap();
        ledger.register(2, two.clone(), now).unwrap();
        ledger.receive(knock(2), now);
        ledger.receive(knock(1), now);
        assert!(ledger.claim(now).unwrap().same_channel(&two));
        ledger.servers.remove(&1);
        assert!(ledger.claim(now).unwrap().is_closed(), "a stream for a server that has gone is for nobody");
        ledger.receive(knock(2), now);
        assert!(ledger.claim(now + PATIENCE).is_none(), "its dialler has given up");
    }
}
