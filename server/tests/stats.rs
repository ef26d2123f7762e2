//! What a plugin has counted, and whoever asks for it.

#![allow(clippy::unwrap_used)]

use std::{future, time::Duration};

use cache_proto::{CacheService, Entry, StatsResponse, cache_server::CacheServer};
use fib_server::{
    cache::{Cache, Lookup, RemoteCache, StatsAnswer, Unavailable},
    config::{CacheConfig, FirstStart},
    fib::FibIndex,
};
use plugin_sdk::{
    MagicCookie,
    host::{Attach, Contract, Supervisor},
};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Status, transport::Server};

/// Has every number, and takes for ever to count.
struct Counting;

impl cache_proto::Cache for Counting {
    async fn get(&self, _: &str) -> Result<cache_proto::Lookup, Status> {
        Ok(cache_proto::Lookup::Hit { value: "55".into(), remaining: None })
    }

    async fn set(&self, _: Entry) -> Result<(), Status> {
        Ok(())
    }

    async fn stats(&self) -> Result<StatsResponse, Status> {
        future::pending().await
    }
}

#[tokio::test]
async fn who_asks_for_what_takes_long_takes_nothing_from_lookups() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let connections = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
    let service = CacheServer::new(CacheService::new(Counting));
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(connections));
    let cookie = MagicCookie::new(cache_proto::MAGIC_COOKIE_KEY, cache_proto::MAGIC_COOKIE_VALUE);
    let address = format!("unix:{}", socket.display()).parse().unwrap();
    let attach = Attach::to(address, Contract::new(cookie, [cache_proto::APP_VERSION]));
    let supervisor = Supervisor::attach(attach);
    let plugin = supervisor.clone().start();
    plugin.ready().await.unwrap();
    let config = CacheConfig {
        supervisor,
        expiration: Duration::from_secs(60),
        timeout: Duration::from_millis(20),
        first_start: FirstStart::WithServer,
        idle_after: None,
    };
    let asked = RemoteCache::new(plugin.channel(), &config);
    for _ in 0..10 {
        assert_eq!(asked.stats().await, StatsAnswer::Unavailable(Unavailable::TimedOut));
    }
    let config = CacheConfig { timeout: Duration::from_secs(30), ..config };
    let cache = Cache::Remote(RemoteCache::new(plugin.channel(), &config).into());
    let found = cache.get(FibIndex::new(10, 93).unwrap()).await;
    assert!(matches!(found, Lookup::Hit { value: 55, .. }), "{found:?}");
}
