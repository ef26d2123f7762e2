//! The cache of the plugin `fib-cache-memory`, for its program and for whoever measures it. What a plugin is and how one
//! is written is said there, in `main.rs`.

/// Compiles what the README shows of a plugin.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

mod cache;
mod service;

pub use cache::Limits;
pub use service::MemoryCache;
