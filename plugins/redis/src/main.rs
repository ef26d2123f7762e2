//! `fib-cache-redis`: a cache plugin that keeps entries in Redis, so that they outlive the plugin and several servers
//! can share them. How a plugin is made is told in `plugins/memory`; here is only what Redis adds to it.
//!
//! ```text
//! service  what the contract asks for ─▶ store  commands to Redis ─▶ link  the one connection, kept up ─▶ Redis
//!             statuses ◀── fault ◀───────── its replies ◀───────────┘ └─▶ the plugin's health
//! ```
//!
//! # What is in Redis
//!
//! A string for each entry, under the key prefix and the key, as it came: `redis-cli get fib:30` shows 832040. Nothing
//! else, so that what other programs put there in this form is an entry, and a key of another type is a miss.
//!
//! # While Redis is away
//!
//! Calls fail at once and the plugin's health is `NOT_SERVING`; meanwhile the connection is tried anew, at the latest
//! two seconds after an attempt has failed, which takes no longer than `--connect-timeout`. What is away is the same to a
//! host whether it is gone, hangs, loads its data or refuses the password. Only a read-only replica is not, and a Redis
//! that cannot save: reads go on, and what is to be stored is refused, which the log has once.
//!
//! # What Redis cannot do as the contract has it
//!
//! - It does not tell an entry that has expired from one that never was: both are misses for no stated reason.
//! - It counts a time to live from when it executes a command. One that was stopped after the command had been sent
//!   keeps the entry for so much longer.
//! - A replica that takes over may not have the last entries yet, or older ones in their place.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use cache_proto::CacheService;
use cache_proto::cache_server::CacheServer;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use plugin_sdk::MagicCookie;
use plugin_sdk::plugin::PluginBuilder;
use tonic::service::Routes;

use self::address::{Address, Secret};
use self::link::{Link, Timeouts};
use self::service::RedisCache;
use self::store::{Prefix, Store};

mod address;
mod backoff;
mod fault;
mod greeting;
mod link;
mod service;
mod store;

/// Cache plugin for fib-server that keeps entries in Redis.
#[derive(Debug, Parser)]
#[command(version, after_help = plugin_sdk::plugin::ARGS_HELP)]
struct Args {
    /// Where Redis is: redis://USER:PASSWORD@HOST:PORT/DATABASE, of which only HOST is needed, or unix:///PATH?db=DATABASE.
    /// Others can read the arguments of a process: a password belongs into --url-file [default: redis://127.0.0.1:6379].
    #[arg(long, value_name = "URL", conflicts_with = "url_file")]
    url: Option<Secret>,

    /// A file with the URL in it. Read again for each new connection, so that the password can be changed.
    #[arg(long, value_name = "FILE")]
    url_file: Option<PathBuf>,

    /// What the names of all entries begin with. No other keys are read, changed or removed.
    #[arg(long, value_name = "TEXT", default_value = "fib:", value_parser = Prefix::parse)]
    key_prefix: Prefix,

    /// How long Redis may take to answer.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    timeout: Duration,

    /// How long a new connection may take until Redis answers on it.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    connect_timeout: Duration,

    /// For how long hosts may answer a key that was found from their own memory, without asking again; fib-server keeps to a
    /// minute. What one host stores or removes, others see so much later [default: they ask every time].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    max_age: Option<Duration>,
}

fn main() -> ExitCode {
    let Args { url, url_file, key_prefix, timeout, connect_timeout, max_age } = arguments();
    let (flag, address) = match url_file {
        Some(file) => ("--url-file", Address::in_file(file)),
        None => ("--url", Address::given(&url.unwrap_or(Secret::from(DEFAULT_URL)))),
    };
    let address = address.unwrap_or_else(|error| refuse(format!("{flag}: {error}")));
    let timeouts = Timeouts { reply: timeout, connect: connect_timeout };
    PluginBuilder::new(MagicCookie::new(cache_proto::MAGIC_COOKIE_KEY, cache_proto::MAGIC_COOKIE_VALUE))
        .descriptors(cache_proto::FILE_DESCRIPTOR_SET)
        .version(cache_proto::APP_VERSION, move |context| {
            let closing = context.closing();
            let link = Link::keep(address, timeouts, context.health().clone());
            let cache = RedisCache::new(Store::new(link, key_prefix));
            let service = CacheService::new(cache).max_age(max_age.unwrap_or_default());
            Routes::new(CacheServer::new(service.until(async move { closing.begun().await })))
        })
        .run()
}

/// The arguments, or the end with a usage error. One that is no flag is not repeated if it looks like a URL, which
/// may have a password in it.
fn arguments() -> Args {
    Args::try_parse_from(plugin_sdk::plugin::args()).unwrap_or_else(|error| {
        if error.use_stderr() && error.to_string().contains("://") {
            refuse("there is a URL where none is expected; it comes after --url".to_owned());
        }
        error.exit()
    })
}

fn refuse(problem: String) -> ! {
    Args::command().error(ErrorKind::ValueValidation, problem).exit()
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration.is_zero() { Err("must be more than zero".to_owned()) } else { Ok(duration) }
}

const DEFAULT_URL: &str = "redis://127.0.0.1:6379";
