//! The harness for tests of whole processes.
//!
//! A test starts a [`Server`], talks to it with [`http`], looks at it from outside with [`process`] and waits for
//! conditions with [`wait`], both of the testkit. Nothing here sleeps for a fixed time and hopes; nothing is shared between two tests, so
//! that they can run at the same time. Each server has a directory of its own for temporary files and leaves
//! nothing behind, even if the test fails.
//!
//! Binaries are taken from beside the tests: `cargo xtask test` builds them first.

mod authority;
mod binary;
pub mod http;
pub mod load;
pub mod log;
mod server;
mod skip;

pub use authority::Authority;
pub use binary::{run, run_with, start};
pub use plugin_testkit::{process, program as binary, wait};
pub use server::{Server, rogue};
pub use skip::skip;
