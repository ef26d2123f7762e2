//! The news that the plugin is to end, for services whose calls do not end by themselves.

use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;

use crate::services::Until;

/// Tells services that the plugin is to end: a host has asked for it or has gone, or there was a signal. Cheap to clone; from
/// [`Context::closing`](super::Context::closing).
///
/// From then on the plugin takes no new calls and waits for those that are running, until its
/// [limit](super::PluginBuilder::drain_limit). The SDK ends its own streams. Those of the application are the application's:
/// one that stays open until its host closes it holds the end up until the limit, and is then broken off.
///
/// ```
/// use plugin_sdk::plugin::{Closing, Context};
/// use tokio::sync::mpsc;
/// use tokio_stream::{Stream, wrappers::ReceiverStream};
///
/// struct News {
///     closing: Closing,
/// }
///
/// impl News {
///     fn new(context: &Context) -> Self {
///         Self { closing: context.closing() }
///     }
///
///     /// What a streaming method answers.
///     fn answers(&self, news: mpsc::Receiver<String>) -> impl Stream<Item = String> + use<> {
///         self.closing.ends(ReceiverStream::new(news))
///     }
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Closing(CancellationToken);

impl Closing {
    pub(super) fn new(stop: &CancellationToken) -> Self {
        Self(stop.clone())
    }

    /// Waits until the plugin is to end. Returns at once from then on.
    pub async fn begun(&self) {
        self.0.cancelled().await;
    }

    /// Whether the plugin is to end.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.0.is_cancelled()
    }

    /// The same stream, but it ends when the plugin is to end, without an error. For the answers of a call, or for its
    /// requests: then those that have come are still answered.
    pub fn ends<S: Stream>(&self, stream: S) -> impl Stream<Item = S::Item> + Unpin + use<S> {
        Until::new(&self.0, stream)
    }
}
