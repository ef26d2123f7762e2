//! The plugin's process keeps the contract.

mod support;

use cache_contract::Plugin;
use support::Redis;

async fn start(test: &str) -> Option<(Plugin, Redis)> {
    let redis = Redis::start(test)?;
    Some((redis.plugin(&[]).await, redis))
}

async fn start_with_leases(test: &str) -> Option<(Plugin, Redis)> {
    let redis = Redis::start(test)?;
    Some((redis.plugin(&["--max-age=1m"]).await, redis))
}

cache_contract::tests!(start);
cache_contract::tests!(start_with_leases: a_lease_is_a_minute_if_asked_for_and_no_longer_than_its_entry);
