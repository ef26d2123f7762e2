//! The messages, the client and the service of `proto/plugin/control/v1`, made by `cargo xtask codegen`.
#![allow(missing_docs, unreachable_pub, clippy::all)]

include!("plugin.control.v1.rs");
