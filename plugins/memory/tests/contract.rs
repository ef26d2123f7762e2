//! The plugin's process keeps the contract.

use cache_contract::Plugin;
use cache_proto::PipeRequest;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fib-cache-memory");

async fn start(_test: &str) -> Option<(Plugin, ())> {
    Some((Plugin::start(PROGRAM, ["--max-bytes=1GiB"]).await, ()))
}

async fn start_with_leases(_test: &str) -> Option<(Plugin, ())> {
    Some((Plugin::start(PROGRAM, ["--max-age=1m"]).await, ()))
}

cache_contract::tests!(start);
cache_contract::tests!(start_with_leases: a_lease_is_a_minute_if_asked_for_and_no_longer_than_its_entry);

#[tokio::test]
async fn a_stream_of_batches_that_its_host_keeps_open_does_not_hold_up_the_end() {
    let plugin = Plugin::start(PROGRAM, ["--max-bytes=1GiB"]).await;
    let mut stream = plugin.pipe();
    stream.ask(PipeRequest { batch: 1, ..PipeRequest::default() }).await;
    let (end, ()) = tokio::join!(stream.answer(), plugin.end());
    // A stream that is broken off ends with an error.
    assert_eq!(end.unwrap(), None);
}
