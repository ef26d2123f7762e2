//! What an application has to do with each new instance before it can be called, such as to tell it of a host's service.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tonic::transport::Channel;

use super::apart::{NoOutcome, apart};
use crate::host::Plugin;
use crate::{AppVersion, Broker};

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(10);

/// An instance that nobody calls yet.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewInstance {
    /// To this instance alone.
    pub channel: Channel,
    /// For more gRPC servers between it and its host. Ends with the instance.
    pub broker: Broker,
    /// The version that it speaks.
    pub app_version: AppVersion,
}

/// Why an instance that had started was not prepared, see [`Supervisor::prepare`](super::Supervisor::prepare).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// The application says so.
    #[error("it could not be prepared")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
    /// The application's code panicked.
    #[error("what prepares it panicked")]
    Panicked,
    /// The application did not get done with it.
    #[error("it was not prepared within {0:?}")]
    TimedOut(Duration),
}

/// Prepares a new instance.
#[derive(Clone)]
pub(super) struct Prepare(Arc<dyn Fn(NewInstance) -> Preparing + Send + Sync>);

type Preparing = Pin<Box<dyn Future<Output = Result<Kept, PrepareError>> + Send>>;

/// What the application keeps for as long as the instance lives.
pub(super) struct Kept(#[expect(dead_code, reason = "its drop is what counts")] Box<dyn Send>);

impl Prepare {
    pub(super) fn new<F, K, E>(prepare: impl Fn(NewInstance) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<K, E>> + Send + 'static,
        K: Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let prepare = Arc::new(prepare);
        Self(Arc::new(move |instance| {
            let prepare = Arc::clone(&prepare);
            Box::pin(async move {
                let preparing = async move { prepare(instance).await.map_err(Into::into) };
                match apart(LIMIT, preparing).await {
                    Ok(Ok(kept)) => Ok(Kept(Box::new(kept))),
                    Ok(Err(error)) => Err(PrepareError::Failed(error)),
                    Err(NoOutcome::Panicked) => Err(PrepareError::Panicked),
                    Err(NoOutcome::TimedOut) => Err(PrepareError::TimedOut(LIMIT)),
                }
            })
        }))
    }

    pub(super) async fn run(&self, plugin: &Plugin) -> Result<Kept, PrepareError> {
        let (channel, broker) = (plugin.channel(), plugin.broker().clone());
        (self.0)(NewInstance { channel, broker, app_version: plugin.app_version() }).await
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept")
    }
}
