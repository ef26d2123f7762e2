//! `cargo xtask bench`: builds all that is compared, as released, then becomes the program that compares it.
//!
//! The programs are gathered in one folder, `target/bench/programs`: fib-server is in it twice, once with a cache in its
//! own process. Those in Go are left out where Go is not installed.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::tools::{self, Task};
use crate::{Outcome, cargo, run, step, succeed};

/// What there is in Go: for each program its name, its package and for what `-buildmode`.
const GO: &str = include_str!("../../tests/peers/go/programs.txt");

/// Measures, with `flags` for the program that does. Returns only if something fails before that.
pub(crate) fn run(root: &Path, flags: &[&str]) -> Outcome {
    let target = run::target()?;
    let (release, folder) = (target.join("release"), target.join("bench"));
    let programs = folder.join("programs");
    fs::create_dir_all(&programs)?;

    // The first one is overwritten by the second: both have the same name.
    for (features, program, name) in [
        (&["--features", "in-process"][..], "fib-server", "fib-server-in-process"),
        (&[], "fib-server", "fib-server"),
        (&[], "fib-cache-memory", "fib-cache-memory"),
        (&[], "fib-cache-redis", "fib-cache-redis"),
        (&[], "bench-get-only", "bench-get-only"),
        (&[], "bench-crossing", "bench-crossing"),
        (&[], "bench", "bench"),
    ] {
        step(&format!("building {name}, as released"));
        let mut build = cargo(root);
        build.args(["build", "--release", "--package", program]).args(features);
        succeed(build)?;
        replace(&release.join(program), &programs.join(name))?;
    }

    let missing: Vec<_> = tools::missing(Task::Bench).collect();
    if missing.is_empty() {
        step("building the programs in Go");
        let go = root.join("tests/peers/go");
        for line in GO.lines() {
            let mut words = line.split(' ');
            let (Some(name), Some(package), Some(mode)) = (words.next(), words.next(), words.next()) else {
                return Err(format!("{line:?} is not a name, a package and how to build it").into());
            };
            let mut build = Command::new("go");
            build.current_dir(&go).args(["build", "-trimpath", "-buildvcs=false", "-buildmode", mode, "-o"]);
            build.arg(programs.join(name)).arg(package);
            succeed(build)?;
        }
    }
    for tool in missing {
        step(&format!("skipped, as {} is not installed: {}", tool.name, tool.used_for));
    }

    step("measuring; Ctrl-C stops it");
    let mut bench = Command::new(programs.join("bench"));
    bench.args(flags).arg("--programs").arg(&programs).arg("--out").arg(&folder);
    bench.arg("--repository").arg(root);
    let error = bench.exec();
    Err(format!("{} does not start: {error}", bench.get_program().display()).into())
}

/// Puts a copy in place of a file that may be running.
fn replace(from: &Path, to: &Path) -> Outcome {
    let new = to.with_extension("new");
    fs::copy(from, &new)?;
    fs::rename(&new, to)?;
    Ok(())
}
