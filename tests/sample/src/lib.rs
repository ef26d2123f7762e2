//! The sample service, as generated code, and the contract that its hosts and plugins share.

use plugin_sdk::MagicCookie;

mod greeter;
mod service;
mod generated {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    // tonic's generator takes the wrapper of u32 for a type of this module.
    use std::primitive::u32;
    include!("generated/sample.v1.rs");
}

pub use generated::*;
pub use greeter::Greeter;
pub use service::Service;

/// The service as an encoded `google.protobuf.FileDescriptorSet`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptors.bin");

/// The cookie of all sample plugins, in every language.
#[must_use]
pub fn cookie() -> MagicCookie {
    MagicCookie::new("SAMPLE_PLUGIN", "a-sample-plugin-for-tests")
}
