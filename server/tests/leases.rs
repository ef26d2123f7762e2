//! A plugin that grants leases, and what the server's own stores do to them. It is played here, over a real socket, so that
//! an answer can be held back while a store overtakes it.

// The lint knows test functions only, and all of this is called by them.
#![allow(clippy::unwrap_used)]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cache_proto::{CacheService, Entry, cache_server::CacheServer};
use fib_server::{
    cache::{Cache, Lookup, RemoteCache, Source},
    config::{CacheConfig, FirstStart},
    fib::FibIndex,
};
use plugin_sdk::{
    MagicCookie,
    host::{Attach, Contract, Supervised, Supervisor},
};
use tempfile::TempDir;
use tokio::{net::UnixListener, sync::Semaphore, time};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Status, transport::Server};

/// Longer than anything here should take, so that a test that hangs says so.
const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn who_asks_after_a_store_was_answered_gets_what_was_stored() {
    let setup = Setup::start(Some(LIMIT)).await;
    for value in 1..20 {
        setup.cache.set(n(), value).await;
        assert_eq!(setup.get().await, (value, Source::Asked));
        for _ in 0..3 {
            assert_eq!(setup.get().await, (value, Source::Leased));
        }
    }
}

#[tokio::test]
async fn an_answer_that_a_store_has_overtaken_is_not_given_again() {
    let setup = Arc::new(Setup::start(Some(LIMIT)).await);
    setup.cache.set(n(), 1).await;
    setup.plugin.holds_back.store(true, Ordering::SeqCst);
    let overtaken = tokio::spawn({
        let setup = Arc::clone(&setup);
        async move { setup.get().await }
    });
    let _looked_up = time::timeout(LIMIT, setup.plugin.looked_up.acquire()).await.unwrap().unwrap();
    setup.cache.set(n(), 2).await;
    setup.plugin.holds_back.store(false, Ordering::SeqCst);
    setup.plugin.let_go.add_permits(1);
    assert_eq!(overtaken.await.unwrap(), (1, Source::Asked));
    assert_eq!(setup.get().await, (2, Source::Asked));
    assert_eq!(setup.get().await, (2, Source::Leased));
}

#[tokio::test]
async fn a_lease_counts_for_nothing_while_a_store_has_no_answer() {
    let setup = Arc::new(Setup::start(Some(LIMIT)).await);
    setup.cache.set(n(), 1).await;
    assert_eq!((setup.get().await, setup.get().await), ((1, Source::Asked), (1, Source::Leased)));
    setup.plugin.holds_stores_back.store(true, Ordering::SeqCst);
    let storing = tokio::spawn({
        let setup = Arc::clone(&setup);
        async move { setup.cache.set(n(), 2).await }
    });
    let _stored = time::timeout(LIMIT, setup.plugin.stored.acquire()).await.unwrap().unwrap();
    for _ in 0..3 {
        assert_eq!(setup.get().await, (2, Source::Asked));
    }
    setup.plugin.let_go.add_permits(1);
    storing.await.unwrap();
    assert_eq!((setup.get().await, setup.get().await), ((2, Source::Asked), (2, Source::Leased)));
}

#[tokio::test]
async fn plugin_that_grants_no_leases_is_asked_every_time() {
    let setup = Setup::start(None).await;
    setup.cache.set(n(), 1).await;
    for _ in 0..5 {
        assert_eq!(setup.get().await, (1, Source::Asked));
    }
}

fn n() -> FibIndex {
    FibIndex::new(10, 93).unwrap()
}

/// A cache whose plugin holds one value.
struct Setup {
    cache: Cache,
    plugin: Arc<Plugin>,
    _supervised: Supervised,
    _directory: TempDir,
}

#[derive(Debug)]
struct Plugin {
    entry: Mutex<Option<Entry>>,
    /// Answers to lookups wait until they are let go.
    holds_back: AtomicBool,
    looked_up: Semaphore,
    /// Answers to stores wait, too, once they have been done.
    holds_stores_back: AtomicBool,
    stored: Semaphore,
    let_go: Semaphore,
}

impl Setup {
    async fn start(max_age: Option<Duration>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let plugin = Arc::new(Plugin {
            entry: Mutex::default(),
            holds_back: AtomicBool::new(false),
            looked_up: Semaphore::new(0),
            holds_stores_back: AtomicBool::new(false),
            stored: Semaphore::new(0),
            let_go: Semaphore::new(0),
        });
        let service = CacheService::new(Served(Arc::clone(&plugin))).max_age(max_age.unwrap_or_default());
        let connections = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
        // Ends with the test's run time.
        tokio::spawn(
            Server::builder().add_service(CacheServer::new(service)).serve_with_incoming(connections),
        );

        let cookie = MagicCookie::new(cache_proto::MAGIC_COOKIE_KEY, cache_proto::MAGIC_COOKIE_VALUE);
        let address = format!("unix:{}", socket.display()).parse().unwrap();
        let attach = Attach::to(address, Contract::new(cookie, [cache_proto::APP_VERSION]));
        let supervisor = Supervisor::attach(attach);
        let supervised = supervisor.clone().start();
        let mut channel = supervised.channel();
        time::timeout(LIMIT, channel.instance_changed(None)).await.unwrap();
        let config = CacheConfig {
            supervisor,
            expiration: 10 * LIMIT,
            timeout: LIMIT,
            first_start: FirstStart::WithServer,
            idle_after: None,
        };
        let cache = Cache::Remote(Arc::new(RemoteCache::new(channel, &config)));
        Self { cache, plugin, _supervised: supervised, _directory: directory }
    }

    /// Looks the number up, which must be there.
    async fn get(&self) -> (u64, Source) {
        match self.cache.get(n()).await {
            Lookup::Hit { value, source, .. } => (value, source),
            Lookup::Miss(why) => panic!("a miss: {why:?}"),
        }
    }
}

struct Served(Arc<Plugin>);

impl cache_proto::Cache for Served {
    async fn get(&self, _key: &str) -> Result<cache_proto::Lookup, Status> {
        let found = self.0.entry.lock().unwrap().clone();
        if self.0.holds_back.load(Ordering::SeqCst) {
            self.0.looked_up.add_permits(1);
            self.0.let_go.acquire().await.unwrap().forget();
        }
        let hit = |Entry { value, ttl, .. }| cache_proto::Lookup::Hit { value, remaining: ttl };
        Ok(found.map_or(cache_proto::Lookup::NOT_FOUND, hit))
    }

    async fn set(&self, entry: Entry) -> Result<(), Status> {
        *self.0.entry.lock().unwrap() = Some(entry);
        if self.0.holds_stores_back.load(Ordering::SeqCst) {
            self.0.stored.add_permits(1);
            self.0.let_go.acquire().await.unwrap().forget();
        }
        Ok(())
    }
}
