//! What `fib-server` and its cache plugins agree on, and nothing else: this crate never does I/O.
//!
//! The contract itself is `proto/cache/v1/cache.proto`, written so that an author in any language can implement it;
//! the types here are generated from it. A Rust plugin enables the feature `server` and implements `Cache` of
//! `cache_server`; a host enables `client`.

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

/// The contract as an encoded `google.protobuf.FileDescriptorSet`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptors.bin");

mod generated {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    include!("generated/cache.v1.rs");
}

pub use generated::*;
