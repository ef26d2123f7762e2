//! What `fib-server` and its cache plugins agree on, and nothing else: this crate never does I/O.
//!
//! The contract itself is `proto/cache/v1/cache.proto`, written so that an author in any language can implement it;
//! the types here are generated from it. A Rust plugin enables the feature `server` and implements `Cache`, of which
//! `CacheService` makes the service; a host enables `client`.

/// Environment variable by which a plugin knows that a host for this contract has started it.
pub const MAGIC_COOKIE_KEY: &str = "FIB_CACHE_PLUGIN";

/// What the variable [`MAGIC_COOKIE_KEY`] holds. A courtesy to users, not a secret.
pub const MAGIC_COOKIE_VALUE: &str = "7d0d6f2c9b1e4a53a1f8c2e94b7630de";

/// The application protocol version that this crate describes.
pub const APP_VERSION: u32 = 1;

/// Longest key in bytes; the shortest is one byte.
pub const MAX_KEY_BYTES: usize = 250;

/// Largest value in bytes: 1 MiB.
pub const MAX_VALUE_BYTES: usize = 1 << 20;

/// Most keys or entries of one batch.
pub const MAX_BATCH_KEYS: usize = 10_000;

/// Largest message in bytes, in both directions: 4 MiB, which is what gRPC libraries take unless told otherwise.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// The contract as an encoded `google.protobuf.FileDescriptorSet`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptors.bin");

#[cfg(feature = "server")]
mod cache;
#[cfg(feature = "server")]
mod request;
#[cfg(feature = "server")]
mod service;

#[cfg(feature = "server")]
pub use cache::{Cache, Entry, Lookup};
#[cfg(feature = "server")]
pub use service::CacheService;

mod generated {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    include!("generated/cache.v1.rs");
}

pub use generated::*;
