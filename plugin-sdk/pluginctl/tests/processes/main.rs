//! `pluginctl` as a process, with plugins good and bad.

mod go_examples;
mod metadata;
mod rogue;
mod sample;
mod support;
mod usage;
