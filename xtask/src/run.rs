//! `cargo xtask run`: builds the server and the plugin `memory` as released, then becomes the server.
//!
//! Becomes, not starts: with `exec`, signals and the exit status are the server's own, and there is no process in
//! between that would have to pass them on. The line that says what to curl comes from a second process; see
//! [`ready`].

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Outcome, cargo, ready, step, succeed};

/// Builds, then starts the server with `flags`. Returns only if something fails before that.
pub(crate) fn run(root: &Path, flags: &[&str]) -> Outcome {
    step("building fib-server and fib-cache-memory, as released (some minutes the first time)");
    let mut build = cargo(root);
    build.args(["build", "--release", "--package", "fib-server", "--package", "fib-cache-memory"]);
    succeed(build)?;

    step("starting fib-server; Ctrl-C stops it");
    let release = target()?.join("release");
    let mut server = Command::new(release.join("fib-server"));
    if value_of("cache-plugin-path", flags).is_none() {
        server.args(["--cache-plugin-path", "memory"]);
    }
    server.args(flags);
    let port_file = match value_of("port-file", flags) {
        Some(path) => PathBuf::from(path),
        None => {
            let path = release.join(format!("fib-server-{}.port", std::process::id()));
            server.env(variable("port-file"), &path);
            path
        }
    };
    ready::announce(&port_file)?;
    let error = server.exec();
    Err(format!("{} does not start: {error}", server.get_program().display()).into())
}

/// Cargo's target folder, wherever it was told to be: this program is in `<target>/debug`.
pub(crate) fn target() -> Result<PathBuf, String> {
    let program =
        std::env::current_exe().map_err(|error| format!("this program cannot be found: {error}"))?;
    let target = program.parent().and_then(Path::parent).map(Path::to_path_buf);
    target.ok_or_else(|| format!("{} is not in a target folder", program.display()))
}

/// The value that the server will take for a flag: from the command line, written as `--name=x`, `--name x`, or with
/// one dash as the old server had it, or else from the environment.
fn value_of(name: &str, flags: &[&str]) -> Option<String> {
    let mut flags = flags.iter();
    while let Some(flag) = flags.next() {
        let rest = flag.strip_prefix("--").or_else(|| flag.strip_prefix('-')).unwrap_or_default();
        match rest.strip_prefix(name) {
            Some("") => return flags.next().map(|value| (*value).to_owned()),
            Some(rest) if rest.starts_with('=') => return Some(rest[1..].to_owned()),
            _ => {}
        }
    }
    std::env::var(variable(name)).ok().filter(|value| !value.is_empty())
}

fn variable(flag: &str) -> String {
    format!("FIB_{}", flag.replace('-', "_").to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_found_however_it_is_written() {
        for (flags, expected) in [
            (&["--port-file=a"][..], Some("a")),
            (&["--port-file", "a"], Some("a")),
            (&["-port-file=a"], Some("a")),
            (&["-port-file", "a", "--host", "::1"], Some("a")),
            (&["--port-file="], Some("")),
            (&["--port-files=a", "--port", "1"], None),
            (&["port-file=a"], None),
            (&[], None),
        ] {
            assert_eq!(value_of("port-file", flags).as_deref(), expected, "{flags:?}");
        }
    }

    #[test]
    fn variables_are_named_after_flags() {
        assert_eq!(variable("cache-plugin-path"), "FIB_CACHE_PLUGIN_PATH");
    }
}
