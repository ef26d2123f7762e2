//! A channel that outlives processes: whoever holds it calls the instance that serves at the moment.
//!
//! ```text
//! client ─▶ PluginChannel ─ route? ─ Live ─ breaker ─ gate ─▶ the instance's own channel
//!                             ├─ Asleep, Waking: waits for the instance that it asks for
//!                             ├─ Down, Unwell: fails at once, or waits if it is to
//!                             └─ Off, Gone: fails at once
//! ```

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Frame, SizeHint};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, Sleep};
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::Service;

use super::breaker::{Admission, Breaker, Change};
use super::gate::{Gate, Inside};
use super::state::Off;
use crate::AppVersion;
use crate::services::{Broker, grpc_timeout, grpc_timeout_value};

/// How long a call may take that says nothing of its own. A hung plugin must not hang its callers.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection to a plugin, for any client that tonic generates: `CacheClient::new(plugin.channel())`. Cheap to clone.
///
/// It always leads to the instance that serves, through restarts and swaps. While none does, calls fail at once, unless the
/// plugin only rests (then the call wakes it, and waits) or [`wait_for_ready`](Self::wait_for_ready) was chosen. Calls that are open when their
/// instance ends fail; nothing is ever sent twice. All these failures can be told from the plugin's own by
/// [`CallError::of`].
///
/// Each call has a deadline, streams included: the one that the request brings (tonic's `Request::set_timeout`), or else the
/// channel's [`timeout`](Self::timeout). The plugin is told.
#[derive(Debug, Clone)]
pub struct PluginChannel {
    route: watch::Receiver<Route>,
    wake: Arc<Notify>,
    timeout: Option<Duration>,
    wait_for_ready: bool,
    /// The one version that calls are for.
    version: Option<AppVersion>,
    /// The one instance that calls go to.
    held: Option<Arc<Held>>,
}

/// Why a call was not answered by the plugin. In a [`Status`] it is the source, see [`CallError::of`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// There is no instance at the moment, or no connection to it, or no supervisor any more. Nothing was sent. `UNAVAILABLE`.
    #[error("the plugin is not running")]
    Down,
    /// There is no instance, and none comes by itself: trying again is of no use until somebody has acted. Nothing was sent.
    /// `UNAVAILABLE`.
    #[error(transparent)]
    Off(Off),
    /// There is one, and it is not well. Nothing was sent. `UNAVAILABLE`.
    #[error("the plugin is not well")]
    NotServing,
    /// Several calls in a row were not answered; for the next second none is made. Nothing was sent. `UNAVAILABLE`.
    #[error("calls to the plugin are suspended, as the last ones were not answered")]
    Suspended,
    /// The instance ended, or its connection broke, during the call. It may have been executed. `UNAVAILABLE`.
    #[error("the plugin ended during the call")]
    Interrupted,
    /// The deadline has passed. It may have been executed. `DEADLINE_EXCEEDED`.
    #[error("the plugin did not answer in time")]
    TimedOut,
    /// The instance that serves speaks another version than the one that this channel [is for](PluginChannel::for_version).
    /// Nothing was sent, and trying again is of no use until there is another instance. `FAILED_PRECONDITION`.
    #[error("the plugin speaks version {serves}, this call is for version {wanted}")]
    OtherVersion {
        /// What the channel is for.
        wanted: AppVersion,
        /// What the instance speaks.
        serves: AppVersion,
    },
}

impl CallError {
    /// What became of a call that has ended with this status; `None` if it is the plugin's own answer.
    #[must_use]
    pub fn of(status: &Status) -> Option<Self> {
        std::error::Error::source(status).and_then(|source| source.downcast_ref::<Self>()).copied()
    }
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        let code = match error {
            CallError::TimedOut => Code::DeadlineExceeded,
            CallError::OtherVersion { .. } => Code::FailedPrecondition,
            CallError::Down
            | CallError::Off(_)
            | CallError::NotServing
            | CallError::Suspended
            | CallError::Interrupted => Code::Unavailable,
        };
        let mut status = Status::new(code, error.to_string());
        status.set_source(Arc::new(error));
        status
    }
}

/// Where calls go. Published by the supervisor's task.
#[derive(Debug, Clone)]
pub(super) enum Route {
    Live(Arc<LiveRoute>),
    /// There is an instance, and it is not well.
    Unwell,
    /// There is none; the next comes by itself.
    Down,
    /// There is none, and only an order brings one, or a new file where that is watched.
    Off(Off),
    /// There is none, and a call starts one.
    Asleep,
    /// There will be one soon, since a call has asked for it.
    Waking,
    /// There is no supervisor any more.
    Gone,
}

impl Route {
    fn live(&self) -> Option<&Arc<LiveRoute>> {
        match self {
            Self::Live(route) => Some(route),
            _ => None,
        }
    }

    fn instance(&self) -> Option<u64> {
        self.live().map(|route| route.instance)
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Live(one), Self::Live(other)) => Arc::ptr_eq(one, other),
            (Self::Off(one), Self::Off(other)) => one == other,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

/// The way to one instance.
#[derive(Debug)]
pub(super) struct LiveRoute {
    pub(super) instance: u64,
    pub(super) app_version: AppVersion,
    pub(super) channel: Channel,
    pub(super) broker: Broker,
    pub(super) gate: Gate,
    /// Set before another instance is called in its place, by a swap.
    pub(super) retired: AtomicBool,
    pub(super) breaker: Breaker,
    /// Tells the supervisor of the breaker.
    pub(super) changes: mpsc::UnboundedSender<BreakerChange>,
}

/// An instance that a channel holds on to, as if it were a call.
#[derive(Debug)]
struct Held {
    route: Arc<LiveRoute>,
    inside: Inside,
}

impl Held {
    /// Whether it can be called, where `current` is the way of other channels.
    fn check(&self, current: &Route) -> Result<(), CallError> {
        if self.route.broker.is_closed() {
            return Err(CallError::Down);
        }
        match current {
            _ if self.route.retired.load(Ordering::Acquire) => Ok(()),
            Route::Live(live) if Arc::ptr_eq(live, &self.route) => Ok(()),
            Route::Unwell => Err(CallError::NotServing),
            _ => Err(CallError::Down),
        }
    }
}

/// The breaker of an instance has opened or closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BreakerChange {
    pub(super) instance: u64,
    pub(super) open: bool,
}

impl PluginChannel {
    pub(super) fn new(route: watch::Receiver<Route>, wake: Arc<Notify>) -> Self {
        Self { route, wake, timeout: Some(CALL_TIMEOUT), wait_for_ready: false, version: None, held: None }
    }

    /// The deadline for calls that do not bring their own, from the call to the end of its answer. `None` for none, as
    /// for streams that stay open. Default: 30 s.
    #[must_use]
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into();
        self
    }

    /// Whether calls wait, up to their deadline, for an instance that serves, in place of failing at once with
    /// [`CallError::Down`] or [`CallError::NotServing`]. gRPC's word for it. They do not wait for an instance that nobody
    /// starts: [`CallError::Off`]. Default: no.
    #[must_use]
    pub fn wait_for_ready(mut self, wait: bool) -> Self {
        self.wait_for_ready = wait;
        self
    }

    /// Has calls fail with [`CallError::OtherVersion`], and not be sent, while the instance that serves speaks another
    /// version of the contract than this one. For hosts that know several: a client is made for one of them, and a restart or
    /// a swap may bring another. Default: calls go to whatever serves.
    #[must_use]
    pub fn for_version(mut self, version: impl Into<AppVersion>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Holds on to the instance that a call would go to now: gives a channel to it alone, and its [`Broker`]. For calls
    /// that carry one of the broker's ids, which is nothing to any other instance.
    ///
    /// It is an open call until the channel and its clones are dropped: the plugin is not idle, and an instance that another
    /// takes over from goes on to answer it, for [`Swap::drain`](super::Swap::drain) at most. When the instance has ended,
    /// calls fail with [`CallError::Down`]: hold on to the next one then.
    ///
    /// ```no_run
    /// # use plugin_sdk::host::{CallError, PluginChannel};
    /// # use tonic::{Request, service::Routes};
    /// # async fn example(plugin: PluginChannel, routes: Routes) -> Result<(), Box<dyn std::error::Error>> {
    /// let (channel, broker) = plugin.hold().await?;
    /// let server = broker.accept_and_serve(broker.next_id(), routes).await?;
    /// // A call on `channel`, with `server.id()` in it, then.
    /// # drop((channel, server));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of a call that is not sent: it wakes a plugin that rests, and waits, within the channel's
    /// [`timeout`](Self::timeout), as calls do.
    pub async fn hold(&self) -> Result<(Self, Broker), CallError> {
        let mut channel = self.clone();
        let mut deadline = self.timeout.map(|timeout| Box::pin(tokio::time::sleep(timeout)));
        let (route, inside) = tokio::select! {
            biased;
            entered = channel.enter() => entered?,
            () = passed(&mut deadline) => return Err(CallError::TimedOut),
        };
        let broker = route.broker.clone();
        channel.held = Some(Arc::new(Held { route, inside }));
        Ok((channel, broker))
    }

    /// The number of the instance that calls go to, and `None` while there is none.
    #[must_use]
    pub fn instance(&self) -> Option<u64> {
        self.of_live(|route| route.instance)
    }

    /// The version that this instance speaks, and `None` while there is none.
    #[must_use]
    pub fn app_version(&self) -> Option<AppVersion> {
        self.of_live(|route| route.app_version)
    }

    fn of_live<T>(&self, part: impl FnOnce(&LiveRoute) -> T) -> Option<T> {
        let current = self.route.borrow();
        match &self.held {
            Some(held) => held.check(&current).ok().map(|()| part(&held.route)),
            None => current.live().map(|route| part(route)),
        }
    }

    /// Waits until calls go to another instance than `known`, or to none if it was one. For those who keep a stream open, which
    /// has to be opened anew then: after a swap the old instance is given some time to end its streams. Cancel safe.
    ///
    /// On a channel that [holds on](Self::hold) to an instance it tells of the one that other channels call: one more reason to
    /// let go. Waits for ever once the supervisor is gone.
    pub async fn instance_changed(&mut self, known: Option<u64>) -> Option<u64> {
        // Its guard must not be held over an await: whoever spawns this needs it to be `Send`.
        let changed =
            self.route.wait_for(|route| route.instance() != known).await.map(|route| route.instance());
        match changed {
            Ok(instance) => instance,
            Err(_) => std::future::pending().await,
        }
    }

    /// Has a plugin that rests started.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Finds the instance to call, and enters.
    async fn enter(&mut self) -> Result<(Arc<LiveRoute>, Inside), CallError> {
        if let Some(held) = &self.held {
            held.check(&self.route.borrow())?;
            self.check_version(held.route.app_version)?;
            return Ok((Arc::clone(&held.route), held.inside.another()));
        }
        loop {
            let route = self.route.borrow_and_update().clone();
            match route {
                Route::Live(route) => {
                    self.check_version(route.app_version)?;
                    // A closed gate has another route behind it, or will have.
                    if let Some(inside) = route.gate.enter() {
                        return Ok((route, inside));
                    }
                }
                Route::Asleep => self.wake(),
                Route::Unwell if !self.wait_for_ready => return Err(CallError::NotServing),
                Route::Down if !self.wait_for_ready => return Err(CallError::Down),
                Route::Off(off) => return Err(CallError::Off(off)),
                Route::Gone => return Err(CallError::Down),
                Route::Waking | Route::Unwell | Route::Down => {}
            }
            if self.route.changed().await.is_err() {
                return Err(CallError::Down);
            }
        }
    }

    fn check_version(&self, serves: AppVersion) -> Result<(), CallError> {
        match self.version {
            Some(wanted) if wanted != serves => Err(CallError::OtherVersion { wanted, serves }),
            _ => Ok(()),
        }
    }

    /// Enters, unless calls are suspended.
    async fn begin(&mut self) -> Result<Call, CallError> {
        let (route, inside) = self.enter().await?;
        let admission = route.breaker.admit(Instant::now()).ok_or(CallError::Suspended)?;
        Ok(Call { trial: Trial { route, admission, judged: false }, _inside: inside })
    }
}

impl Service<Request<Body>> for PluginChannel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let timeout = limit(request.headers_mut(), self.timeout);
        let mut channel = self.clone();
        Box::pin(async move {
            let mut deadline = timeout.map(|timeout| Box::pin(tokio::time::sleep(timeout)));
            let call = tokio::select! {
                biased;
                begun = channel.begin() => begun?,
                () = passed(&mut deadline) => return Err(CallError::TimedOut.into()),
            };
            let sent = tokio::select! {
                biased;
                sent = send(call.trial.route.channel.clone(), request) => sent,
                () = passed(&mut deadline) => Err(CallError::TimedOut),
            };
            match sent {
                Ok(response) => {
                    let call = call.answered();
                    Ok(response
                        .map(|body| Body::new(Answer { body: Some(body), call: Some(call), deadline })))
                }
                // It was not made, and so says nothing of how the plugin answers.
                Err(error @ CallError::Down) => Err(error.into()),
                Err(error) => Err(call.failed(error)),
            }
        })
    }
}

/// Calls one instance, up to the head of its answer.
async fn send(mut channel: Channel, request: Request<Body>) -> Result<Response<Body>, CallError> {
    let answer = match std::future::poll_fn(|cx| channel.poll_ready(cx)).await {
        Ok(()) => channel.call(request).await,
        Err(error) => Err(error),
    };
    answer.map_err(|error| match () {
        // tonic's own clock may be faster than ours.
        () if is_caused_by::<tonic::TimeoutExpired>(&error) => CallError::TimedOut,
        // The connection is gone, and there is no other: news of the instance's end, or of its return, are on their way.
        () if is_caused_by::<tonic::ConnectError>(&error) => CallError::Down,
        () => CallError::Interrupted,
    })
}

/// The deadline of a call, which its headers have afterwards.
fn limit(headers: &mut HeaderMap, default: Option<Duration>) -> Option<Duration> {
    if let Some(own) = grpc_timeout(headers) {
        return Some(own);
    }
    let value = default.and_then(|timeout| HeaderValue::try_from(grpc_timeout_value(timeout)).ok());
    if let Some(value) = value {
        headers.insert("grpc-timeout", value);
    }
    default
}

async fn passed(deadline: &mut Option<Pin<Box<Sleep>>>) {
    match deadline {
        Some(deadline) => deadline.as_mut().await,
        None => std::future::pending().await,
    }
}

fn is_caused_by<E: std::error::Error + 'static>(error: &tonic::transport::Error) -> bool {
    let first: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(first), |error| error.source()).any(|error| error.is::<E>())
}

/// A call that has reached its instance.
#[derive(Debug)]
struct Call {
    trial: Trial,
    _inside: Inside,
}

impl Call {
    /// The head of an answer is here.
    fn answered(mut self) -> Self {
        self.trial.judged = true;
        self.trial.tell(self.trial.route.breaker.answered(self.trial.admission));
        self
    }

    fn failed(mut self, error: CallError) -> Status {
        self.trial.judged = true;
        self.trial.tell(self.trial.route.breaker.failed(self.trial.admission, Instant::now()));
        error.into()
    }
}

/// A call before the breaker.
#[derive(Debug)]
struct Trial {
    route: Arc<LiveRoute>,
    admission: Admission,
    judged: bool,
}

impl Trial {
    fn tell(&self, change: Change) {
        let open = match change {
            Change::None => return,
            Change::Opened => true,
            Change::Closed => false,
        };
        let _supervisor_is_gone =
            self.route.changes.send(BreakerChange { instance: self.route.instance, open });
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if !self.judged {
            self.route.breaker.given_up(self.admission, Instant::now());
        }
    }
}

/// The body of an answer: keeps the call inside, and the deadline, until it has ended.
struct Answer {
    /// `None` once it has failed.
    body: Option<Body>,
    call: Option<Call>,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Answer {
    fn fail(&mut self, error: CallError) -> Status {
        self.body = None;
        match self.call.take() {
            Some(call) => call.failed(error),
            None => error.into(),
        }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        match Pin::new(body).poll_frame(cx) {
            // The connection broke: what the plugin itself says comes in trailers.
            Poll::Ready(Some(Err(_))) => Poll::Ready(Some(Err(self.fail(CallError::Interrupted)))),
            // The call is over, though its reader may keep the answer for long.
            Poll::Ready(None) => {
                self.call = None;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(frame))) => {
                if frame.is_trailers() {
                    self.call = None;
                } else if self.deadline.as_ref().is_some_and(|deadline| deadline.deadline() <= Instant::now())
                {
                    // A stream that always has one more does not get to wait.
                    return Poll::Ready(Some(Err(self.fail(CallError::TimedOut))));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Pending => {
                let passed =
                    self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready());
                if passed { Poll::Ready(Some(Err(self.fail(CallError::TimedOut)))) } else { Poll::Pending }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, http_body::Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use http_body::Body as _;

    use super::*;

    /// Always has one more message.
    struct Endless;

    impl http_body::Body for Endless {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_never_rests_ends_at_its_deadline() {
        let deadline = Some(Box::pin(tokio::time::sleep(Duration::from_secs(1))));
        let mut answer = pin!(Answer { body: Some(Body::new(Endless)), call: None, deadline });
        let mut next = async || poll_fn(|cx| answer.as_mut().poll_frame(cx)).await;
        assert!(next().await.unwrap().unwrap().is_data());
        tokio::time::advance(Duration::from_secs(1)).await;
        let status = next().await.expect("it says why it ends").unwrap_err();
        assert_eq!(CallError::of(&status), Some(CallError::TimedOut));
        assert!(next().await.is_none());
    }
}
