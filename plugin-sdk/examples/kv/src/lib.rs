//! The contract: what the host and its plugins have to agree on.

use plugin_sdk::MagicCookie;

tonic::include_proto!("kv.v1");

/// The services, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("kv");

/// The version of the contract. A change that old plugins or hosts cannot follow gets the next number.
pub const VERSION: u32 = 1;

/// Lets a plugin tell its host from a person who has started it by hand. It is no secret.
pub const COOKIE: MagicCookie = MagicCookie::from_static("KV_PLUGIN", "4fb1a5c0");
