//! A plugin's process, and its cache.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cache_proto::cache_client::CacheClient;
use cache_proto::get_response::Outcome;
use cache_proto::{
    DeleteRequest, FlushRequest, GetManyRequest, GetRequest, SetManyRequest, SetRequest, StatsRequest,
    StatsResponse,
};
use plugin_sdk::MagicCookie;
use plugin_sdk::host::{Contract, HealthError, Launch, LaunchError, Plugin as Process};
use tonic::Status;
use tonic::transport::Channel;

use crate::Pipe;

/// A plugin that runs. Dropping it kills its process.
pub struct Plugin {
    process: Process,
    client: CacheClient<Channel>,
    stderr: Arc<Mutex<Vec<u8>>>,
}

impl Plugin {
    /// Starts a plugin, and waits until it serves.
    ///
    /// # Panics
    /// It does not.
    pub async fn start<A: Into<OsString>>(
        program: impl Into<PathBuf>,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        let started = Self::try_start(program, args, Duration::from_secs(30)).await;
        started.unwrap_or_else(|error| panic!("{}", plugin_sdk::one_line(&error)))
    }

    /// Starts a plugin, and waits until it serves, but not for longer than this.
    ///
    /// # Errors
    /// It does not.
    pub async fn try_start<A: Into<OsString>>(
        program: impl Into<PathBuf>,
        args: impl IntoIterator<Item = A>,
        timeout: Duration,
    ) -> Result<Self, LaunchError> {
        let cookie = MagicCookie::new(cache_proto::MAGIC_COOKIE_KEY, cache_proto::MAGIC_COOKIE_VALUE);
        let contract = Contract::new(cookie, [cache_proto::APP_VERSION]);
        let stderr = Arc::<Mutex<Vec<u8>>>::default();
        let copy = Arc::clone(&stderr);
        let launch = Launch::new(program, contract)
            .args(args)
            .env("RUST_LOG", "trace")
            .start_timeout(timeout)
            .stderr_copy(move |bytes| {
                copy.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            });
        let process = launch.start().await?;
        let client = CacheClient::new(process.channel());
        Ok(Self { process, client, stderr })
    }

    /// What it has logged, at every level.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Whether it says that it is well.
    ///
    /// # Panics
    /// It does not answer.
    pub async fn serves(&self) -> bool {
        match self.process.health().await {
            Ok(()) => true,
            Err(HealthError::NotServing(_)) => false,
            Err(error) => panic!("{}", plugin_sdk::one_line(&error)),
        }
    }

    /// Waits until its health is this.
    pub async fn until_serving(&self, serving: bool) {
        let what = format!("health, serving: {serving}");
        plugin_testkit::until(&what, async || self.serves().await == serving).await;
    }

    /// Ends it in order.
    pub async fn end(self) {
        let exit = self.process.shutdown().await;
        assert!(exit.is_success(), "{exit}");
    }

    /// Looks one key up.
    ///
    /// # Errors
    /// The plugin's.
    pub async fn get(&self, key: &str) -> Result<Outcome, Status> {
        let response = self.client.clone().get(GetRequest { key: key.into() }).await?.into_inner();
        Ok(response.outcome.expect("an outcome is always given"))
    }

    /// Stores one entry.
    ///
    /// # Errors
    /// The plugin's.
    pub async fn set(&self, entry: SetRequest) -> Result<(), Status> {
        self.client.clone().set(entry).await.map(drop)
    }

    /// Looks keys up.
    ///
    /// # Errors
    /// The plugin's.
    pub async fn get_many(&self, keys: Vec<String>) -> Result<Vec<Outcome>, Status> {
        let response = self.client.clone().get_many(GetManyRequest { keys }).await?.into_inner();
        let outcomes = response.results.into_iter().map(|result| result.outcome);
        Ok(outcomes.map(|outcome| outcome.expect("an outcome is always given")).collect())
    }

    /// Stores entries.
    ///
    /// # Errors
    /// The plugin's.
    pub async fn set_many(&self, entries: Vec<SetRequest>) -> Result<(), Status> {
        self.client.clone().set_many(SetManyRequest { entries }).await.map(drop)
    }

    /// Opens a stream of batches.
    #[must_use]
    pub fn pipe(&self) -> Pipe {
        Pipe::open(self.client.clone())
    }

    /// Removes keys.
    ///
    /// # Errors
    /// The plugin's.
    pub async fn delete(&self, keys: Vec<String>) -> Result<u64, Status> {
        Ok(self.client.clone().delete(DeleteRequest { keys }).await?.into_inner().removed)
    }

    /// Removes everything.
    ///
    /// # Errors
    /// The plugin's.
    pub async fn flush(&self) -> Result<(), Status> {
        self.client.clone().flush(FlushRequest {}).await.map(drop)
    }

    /// What it has counted.
    ///
    /// # Errors
    /// The plugin's.
    pub async fn stats(&self) -> Result<StatsResponse, Status> {
        Ok(self.client.clone().stats(StatsRequest {}).await?.into_inner())
    }
}
