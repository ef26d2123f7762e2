//! A plugin without code: it answers what the test says, and remembers what it was asked.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use plugin_sdk::host::{Contract, Plugin};
use plugin_sdk::plugin::{HealthReporter, PluginBuilder, ServeError};
use plugin_sdk::{AppVersion, InMemory, InMemoryError, MagicCookie};
use prost::{DecodeError, Message};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;

use crate::reply::Reply;
use crate::{service, until};

/// A plugin in this process, for tests of hosts: it serves any method of any service with the [`Reply`]s that it is given,
/// over real gRPC. Health, broker, stdio and reflection are those of every plugin.
///
/// Methods are named as on the wire, `package.Service/Method`. One that has no reply is answered with UNIMPLEMENTED. Each
/// call is answered when all that the host sends has come: a conversation that goes to and fro wants a service
/// of your own, in an [`InMemory`].
///
/// ```
/// use plugin_testkit::{FakePlugin, Reply};
/// use sample_plugin::sample_client::SampleClient; // Any client that tonic generates.
/// use tonic::{Code, Status};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let fake = FakePlugin::start(1).await?;
/// fake.answer("sample.v1.Sample/Who", Reply::message(&"a fake".to_owned()));
/// fake.answer_once("sample.v1.Sample/Who", Reply::status(Status::unavailable("not yet")));
///
/// let mut host = SampleClient::new(fake.plugin().channel());
/// assert_eq!(host.who(()).await.unwrap_err().code(), Code::Unavailable);
/// assert_eq!(host.who(()).await?.into_inner(), "a fake");
/// assert_eq!(fake.calls("sample.v1.Sample/Who").len(), 2);
///
/// fake.crash();
/// assert!(host.who(()).await.is_err());
/// # Ok(())
/// # }
/// ```
///
/// Dropping it ends it.
#[derive(Debug)]
pub struct FakePlugin {
    running: InMemory,
    state: Arc<State>,
    health: HealthReporter,
}

/// One call that a fake plugin has had.
#[derive(Debug, Clone)]
pub struct Call {
    /// What the host sent beside its messages, `grpc-timeout` included.
    pub metadata: MetadataMap,
    /// The messages, encoded; one unless the method takes a stream of them.
    pub messages: Vec<Bytes>,
}

impl Call {
    /// The first message; if there is none, an empty one.
    ///
    /// # Errors
    /// It is of another type and cannot be decoded.
    pub fn message<M: Message + Default>(&self) -> Result<M, DecodeError> {
        M::decode(self.messages.first().cloned().unwrap_or_default())
    }
}

impl FakePlugin {
    /// Starts one that serves this application protocol version, and connects to it.
    ///
    /// # Errors
    /// Those of [`InMemory::start`].
    pub async fn start(app_version: impl Into<AppVersion>) -> Result<Self, InMemoryError> {
        // Nobody sees the cookie of a plugin in memory.
        let cookie = MagicCookie::new("FAKE_PLUGIN", "fake");
        let app_version = app_version.into();
        let (state, health) = (Arc::new(State::default()), Arc::new(OnceLock::new()));
        let (served, reporter) = (Arc::clone(&state), Arc::clone(&health));
        let plugin = PluginBuilder::new(cookie.clone()).version(app_version, move |context| {
            let _only_time = reporter.set(context.health().clone());
            service::routes(served)
        });
        let running = InMemory::start(plugin, &Contract::new(cookie, [app_version])).await?;
        let _only_time = state.crash.set(running.crash_token());
        let health = health.get().cloned().expect("the services of a plugin that runs have been made");
        Ok(Self { running, state, health })
    }

    /// The host's view of it.
    pub fn plugin(&self) -> &Plugin {
        self.running.plugin()
    }

    /// A connection for any client that tonic generates.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.plugin().channel()
    }

    /// Answers all calls of `method` with `reply`, from now on.
    pub fn answer(&self, method: &str, reply: Reply) {
        self.answer_by(method, move |_| reply.clone());
    }

    /// Answers all calls of `method` with what `reply` makes of each, from now on. It must not block.
    pub fn answer_by(&self, method: &str, reply: impl Fn(&Call) -> Reply + Send + Sync + 'static) {
        self.state.lock().entry(key(method)).or_default().always = Some(Arc::new(reply));
    }

    /// Answers the next call of `method` with `reply`, before whatever else it is answered with. Several are given in
    /// order, one to a call.
    pub fn answer_once(&self, method: &str, reply: Reply) {
        self.state.lock().entry(key(method)).or_default().first.push_back(reply);
    }

    /// The calls of `method` so far, answered or not, in the order in which they were complete.
    #[must_use]
    pub fn calls(&self, method: &str) -> Vec<Call> {
        self.state.lock().get(&key(method)).map(|method| method.calls.clone()).unwrap_or_default()
    }

    /// How many calls there have been so far, of any method.
    #[must_use]
    pub fn call_count(&self) -> usize {
        self.state.lock().values().map(|method| method.calls.len()).sum()
    }

    /// Waits until `method` has been called so many times, and gives all its calls.
    ///
    /// # Panics
    /// It is not within [`LIMIT`](crate::wait::LIMIT).
    pub async fn wait_for_calls(&self, method: &str, count: usize) -> Vec<Call> {
        let mut calls = Vec::new();
        until(&format!("{count} calls of {method}"), async || {
            calls = self.calls(method);
            calls.len() >= count
        })
        .await;
        calls
    }

    /// From now on, its health is `SERVING`, as it is at first.
    pub fn set_serving(&self) {
        self.health.set_serving();
    }

    /// From now on, its health is `NOT_SERVING`. It still takes calls.
    pub fn set_not_serving(&self) {
        self.health.set_not_serving();
    }

    /// Lets it die at once: see [`InMemory::crash`].
    pub fn crash(&self) {
        self.running.crash();
    }

    /// Ends it, after the calls that are running; they have a second.
    ///
    /// # Errors
    /// Those of [`InMemory::stop`].
    pub async fn stop(self) -> Result<(), ServeError> {
        self.running.stop().await
    }
}

/// What the plugin knows, shared with its services.
#[derive(Debug, Default)]
pub(crate) struct State {
    methods: Mutex<HashMap<String, Method>>,
    /// Set once the plugin runs.
    crash: OnceLock<CancellationToken>,
}

type Always = Arc<dyn Fn(&Call) -> Reply + Send + Sync>;

/// One method: what comes next, and what there has been.
#[derive(Default)]
struct Method {
    first: VecDeque<Reply>,
    always: Option<Always>,
    calls: Vec<Call>,
}

impl State {
    /// Takes note of a call, and gives what to do about it.
    pub(crate) fn reply(&self, method: &str, call: Call) -> Reply {
        let always = {
            let mut methods = self.lock();
            let method = methods.entry(key(method)).or_default();
            method.calls.push(call.clone());
            if let Some(reply) = method.first.pop_front() {
                return reply;
            }
            method.always.clone()
        };
        // Not under the lock: it is the test's code, and may ask for the calls so far.
        always.map_or_else(
            || Reply::status(Status::unimplemented(format!("the fake plugin has no reply for {method}"))),
            |always| always(&call),
        )
    }

    /// Whether a call of `method` would be answered with more than that there is no such method.
    pub(crate) fn has_reply(&self, method: &str) -> bool {
        self.lock()
            .get(&key(method))
            .is_some_and(|method| method.always.is_some() || !method.first.is_empty())
    }

    pub(crate) fn crash(&self) {
        if let Some(crash) = self.crash.get() {
            crash.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Method>> {
        self.methods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Method")
            .field("first", &self.first)
            .field("calls", &self.calls)
            .finish_non_exhaustive()
    }
}

/// `/a.B/C` and `a.B/C` are the same.
fn key(method: &str) -> String {
    method.trim_start_matches('/').to_owned()
}
