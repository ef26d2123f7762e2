//! `fib-cache-memory`: a cache plugin that keeps entries in its own memory. It is also the example to write other
//! plugins by, so this page goes through it from the outside in.
//!
//! # What a plugin is
//!
//! An executable that a host starts as a child process. Started, it says on one line of stdout where it listens,
//! and the host then calls it over gRPC, for as long as both live:
//!
//! ```text
//! fib-server                                               fib-cache-memory
//!     │  starts it, FIB_CACHE_PLUGIN=7d0d... in its environment   │
//!     ├──────────────────────────────────────────────────────────▶│ binds a Unix socket
//!     │  1|1|unix|/run/user/1000/.../plugin84|grpc|               │
//!     │◀──────────────────────────────────────────────────────────┤ prints the handshake line
//!     │  Get, Set, ...                                            │
//!     ├──────────────────────────────────────────────────────────▶│ answers
//! ```
//!
//! All of that but the last step is the same for every plugin, and `plugin-sdk` does it. What is left to write:
//!
//! 1. **The contract**: which service the host calls and what its methods promise. For a cache it is written down in
//!    `proto/cache/v1/cache.proto`, and the crate `cache-proto` has it in Rust: the trait [`Cache`](cache_proto::Cache)
//!    for authors, the service that [`CacheService`] makes of it, magic cookie, version.
//!    What breaks a limit never reaches the trait, and batches and streams are taken apart before it.
//! 2. **The cache**: a type that implements the trait. Here it is [`MemoryCache`], in `service.rs`, in front of `cache.rs`,
//!    which stores.
//! 3. **`main`**: cookie, descriptors (for gRPC reflection), version, service, `run`. It is at the end of this file.
//!
//! # What to know when writing one
//!
//! - **Arguments** come from the host's command line (`--cache-plugin-arg=--max-entries=500`). Read them first: then
//!   `--help` works for a person, too. Read them from [`args`](plugin_sdk::plugin::args), and the plugin can also run
//!   as a service of its own: `fib-cache-memory --listen unix:/run/cache.sock`. `run` tells whoever starts the plugin without its host what it is.
//! - **Stdout** belongs to the handshake line. Print nothing to it before `run`.
//! - **Logs** go to stderr; `run` sets `tracing` up so that the host shows each event at its level.
//! - **Leases**: with [`CacheService::max_age`] hosts may give a hit again without asking. It suits a cache whose users do not
//!   mind to see late what others have changed, so it is for the operator to want, by a flag.
//! - **Errors** are faults of the plugin, and the host works on as if there was no cache. A miss is not an error, and
//!   neither is a full cache.
//! - **The end** comes with the host's `Shutdown` or with SIGTERM, or when the host is gone; `run` then returns. A
//!   plugin can also be killed at any moment, so do not count on a last word.
//! - **Threads**: `run` uses one. Work that takes long belongs on `tokio::task::spawn_blocking`.
//!
//! # Testing one
//!
//! The cache is an ordinary type: the tests beside it call its service's methods with no process and no socket. To
//! see the whole, run `cargo xtask run -- --cache-plugin-path <your binary>`.

use std::process::ExitCode;
use std::time::Duration;

use cache_proto::CacheService;
use cache_proto::cache_server::CacheServer;
use clap::Parser;
use fib_cache_memory::{Limits, MemoryCache};
use plugin_sdk::MagicCookie;
use plugin_sdk::plugin::PluginBuilder;
use tonic::service::Routes;

mod size;

/// Cache plugin for fib-server that keeps entries in memory.
#[derive(Debug, Parser)]
#[command(version, after_help = plugin_sdk::plugin::ARGS_HELP)]
struct Args {
    /// The most entries to keep.
    #[arg(long, value_name = "NUMBER", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    max_entries: u64,

    /// The most memory to keep them in: bytes, or a number with KiB, MiB or GiB.
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = size::parse)]
    max_bytes: u64,

    /// For how long hosts may answer a key that was found from their own memory, without asking again; fib-server keeps to a
    /// minute. What one host stores or removes, others see so much later [default: they ask every time].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    max_age: Option<Duration>,
}

fn main() -> ExitCode {
    let Args { max_entries, max_bytes, max_age } = Args::parse_from(plugin_sdk::plugin::args());
    PluginBuilder::new(MagicCookie::new(cache_proto::MAGIC_COOKIE_KEY, cache_proto::MAGIC_COOKIE_VALUE))
        .descriptors(cache_proto::FILE_DESCRIPTOR_SET)
        .version(cache_proto::APP_VERSION, move |context| {
            let closing = context.closing();
            let cache = MemoryCache::new(Limits { max_entries, max_bytes });
            let service = CacheService::new(cache).max_age(max_age.unwrap_or_default());
            Routes::new(CacheServer::new(service.until(async move { closing.begun().await })))
        })
        .run()
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration.is_zero() { Err("must be more than zero".to_owned()) } else { Ok(duration) }
}
