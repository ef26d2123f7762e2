//! The HTTP server for Fibonacci numbers whose cache is a plugin process. The binary is a thin shell around
//! [`Service`].
//!
//! ```text
//! request ──▶ http ──▶ fib::FibIndex ──▶ cache ──hit──────────────────────▶ response
//!                                          └─miss──▶ compute ──▶ fib::naive ──┘
//!                                                       └──▶ cache (store)
//! ```
//!
//! A plugin that fails changes how long an answer takes, never the answer. A number that it gives in good form is
//! believed.

pub mod cache;
pub mod compute;
pub mod config;
pub mod descriptors;
pub mod fib;
pub mod http;
pub mod logging;
mod port_file;
mod service;
mod text;

pub use config::Config;
pub use service::{BindError, Service};
