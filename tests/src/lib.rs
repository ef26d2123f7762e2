//! The harness for tests of whole processes.
//!
//! A test starts a [`Server`], talks to it with [`http`], looks at it from outside with [`process`] and waits for
//! conditions with [`wait`]. Nothing here sleeps for a fixed time and hopes; nothing is shared between two tests, so
//! that they can run at the same time. Each server has a directory of its own for temporary files and leaves
//! nothing behind, even if the test fails.
//!
//! Binaries are taken from beside the tests: `cargo xtask test` builds them first.

mod binary;
pub mod http;
pub mod load;
pub mod log;
pub mod process;
mod server;
pub mod wait;

pub use binary::{binary, run, run_with, start};
pub use server::{Server, rogue};
