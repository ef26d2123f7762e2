//! The plugin's process keeps the contract.

use cache_contract::Plugin;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fib-cache-memory");

async fn start(_test: &str) -> Option<(Plugin, ())> {
    Some((Plugin::start(PROGRAM, ["--max-bytes=1GiB"]).await, ()))
}

async fn start_with_leases(_test: &str) -> Option<(Plugin, ())> {
    Some((Plugin::start(PROGRAM, ["--max-age=1m"]).await, ()))
}

cache_contract::tests!(start);
cache_contract::tests!(start_with_leases: a_lease_is_a_minute_if_asked_for_and_no_longer_than_its_entry);
