//! A cache plugin that misbehaves on request.
//!
//! The first argument is the mode, `name` or `name=value`: those of [`Fault`] are about the cache, and in it
//! `pipe=FAULT` those of [`pipe::PipeFault`] about its stream; all others are [`plugin_rogue`]'s. Neither shares code with `plugin-sdk`.

mod cache;
mod pipe;

use std::process::ExitCode;

use cache::{Cache, Fault};
use plugin_rogue::Rogue;

fn main() -> ExitCode {
    let argument = plugin_rogue::argument();
    let fault = Fault::parse(&argument);
    // A faulty cache in a plugin that is fine otherwise, or the other way round.
    let of_the_plugin = if fault.is_some() { "ok" } else { argument.as_str() };
    Rogue::new(Cache::new(fault)).app_version(cache_proto::APP_VERSION).run(of_the_plugin)
}
