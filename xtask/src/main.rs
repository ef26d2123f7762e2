//! The tasks of this repository. `cargo xtask` lists them; each is a file here.
//!
//! Nothing but the standard library is used, so that a task starts as soon as this little program is compiled.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a task talks to a person or to a CI log")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

mod bench;
mod check;
mod codegen;
mod conformance;
mod instructions;
mod layering;
mod ready;
mod run;
mod test;
mod tools;

type Outcome = Result<(), Box<dyn Error>>;

const USAGE: &str = "\
usage: cargo xtask <task>

  run [-- flags]     build, then start fib-server with the cache plugin `memory`; flags go to the server
  test [filter]      build everything, then run all tests, or those whose name contains the filter
  bench [-- flags]   build as released, then measure fib-server beside servers in Go; `-- --help` lists the flags
  bench --instructions [--keep]
                     count instructions in valgrind and compare them with those kept; --keep keeps these instead
  check              formatting, lints, documentation, features, layering, generated code, licences
  codegen [--check]  make the Rust code from the .proto files anew; --check only compares
  conformance [--check]
                     make the manual's table of behaviours and their tests anew; --check only compares";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = root();
    let outcome = match arguments.as_slice() {
        ["run", "--", flags @ ..] | ["run", flags @ ..] => run::run(&root, flags),
        ["test"] => test::run(&root, None),
        ["test", filter] if !filter.starts_with('-') => test::run(&root, Some(filter)),
        ["bench", "--instructions"] => instructions::compare(&root),
        ["bench", "--instructions", "--keep"] => instructions::keep(&root),
        ["bench", "--", flags @ ..] | ["bench", flags @ ..] => bench::run(&root, flags),
        ["check"] => check::run(&root),
        ["codegen"] => codegen::run(&root, false),
        ["codegen", "--check"] => codegen::run(&root, true),
        ["conformance"] => conformance::run(&root, false),
        ["conformance", "--check"] => conformance::run(&root, true),
        [ready::TASK, arguments @ ..] => ready::run(arguments),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the repository").to_path_buf()
}

/// The cargo that runs this, in the repository.
fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// Says which step begins, and how long after the first.
fn step(name: &str) {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let elapsed = FIRST.get_or_init(Instant::now).elapsed().as_secs_f32();
    eprintln!("[{number} {elapsed:.1}s] {name}");
}

/// Runs `command` to its end, its output passed through; an error unless it succeeds.
fn succeed(mut command: Command) -> Outcome {
    let line = display(&command);
    let status = command.status().map_err(|error| format!("`{line}` does not start: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("`{line}` failed: {status}").into()) }
}

/// The command as a person would type it, without its folder.
fn display(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
