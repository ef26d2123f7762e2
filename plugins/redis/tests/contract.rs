//! The plugin's process keeps the contract.

mod support;

use cache_contract::Plugin;
use support::Redis;

async fn start(test: &str) -> Option<(Plugin, Redis)> {
    let redis = Redis::start(test)?;
    Some((redis.plugin(&[]).await, redis))
}

cache_contract::tests!(start);
