//! The rogue for any contract, as a program of its own: see the crate's documentation for its arguments.

use std::process::ExitCode;

fn main() -> ExitCode {
    plugin_rogue::main()
}
