//! `pluginctl` as operators use it, with hosts that run.

mod ending;
mod finding;
mod host;
#[allow(dead_code, reason = "the tests of processes use more of it")]
#[path = "../processes/support.rs"]
mod support;
mod transcript;
