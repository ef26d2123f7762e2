//! The plugin's process keeps the contract.

use cache_contract::Plugin;

async fn start(_test: &str) -> Option<(Plugin, ())> {
    Some((Plugin::start(env!("CARGO_BIN_EXE_fib-cache-memory"), ["--max-bytes=1GiB"]).await, ()))
}

cache_contract::tests!(start);
