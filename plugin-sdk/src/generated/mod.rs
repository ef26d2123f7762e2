//! go-plugin's messages and gRPC's health service, made from `proto/plugin` and `proto/grpc` by `cargo xtask codegen`.
#![allow(missing_docs, unreachable_pub, dead_code, clippy::all)]

pub(crate) mod plugin {
    include!("plugin.rs");
}

pub(crate) mod health {
    include!("grpc.health.v1.rs");
}
