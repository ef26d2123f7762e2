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
pub mod file;
pub mod http;
pub mod load;
pub mod log;
mod server;
mod skip;

use std::time::Duration;

pub use authority::Authority;
pub use binary::{run, run_with, start};
pub use plugin_testkit::{process, program as binary, wait};
pub use server::{Server, rogue};
pub use skip::{skip, skip_as};

/// How long a test that takes long goes on: so many seconds, or `E2E_SECONDS`.
pub fn seconds(default: u64) -> Duration {
    Duration::from_secs(number("E2E_SECONDS", default))
}

/// How often a test does what it does often: so many times, or `E2E_TIMES`.
pub fn times(default: u64) -> u64 {
    number("E2E_TIMES", default)
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |text| text.parse().expect("the variable is a number"))
}
