//! The cache of the plugin `memory` behind Get and Set and nothing else: every other method is `UNIMPLEMENTED`, so that a host
//! calls for each key. What batches are good for is the difference to `memory` itself. `cargo xtask bench` measures both.

use std::process::ExitCode;

use axum::Router;
use cache_proto::CacheService;
use cache_proto::cache_server::CacheServer;
use fib_cache_memory::{Limits, MemoryCache};
use plugin_sdk::MagicCookie;
use plugin_sdk::plugin::PluginBuilder;
use tonic::service::Routes;

/// Those of `memory`, if it is given none.
const LIMITS: Limits = Limits { max_entries: 100_000, max_bytes: 64 << 20 };

fn main() -> ExitCode {
    PluginBuilder::new(MagicCookie::new(cache_proto::MAGIC_COOKIE_KEY, cache_proto::MAGIC_COOKIE_VALUE))
        .version(cache_proto::APP_VERSION, |_| {
            let cache = CacheServer::new(CacheService::new(MemoryCache::new(LIMITS)));
            let methods = Router::new()
                .route_service("/cache.v1.Cache/Get", cache.clone())
                .route_service("/cache.v1.Cache/Set", cache);
            // It has the answer to all others.
            Routes::from(Routes::default().into_axum_router().merge(methods))
        })
        .run()
}
