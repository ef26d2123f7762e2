//! `cargo xtask bench --instructions`: counts the instructions of what happens most often, in callgrind, and compares
//! them with those kept in `tests/instructions/baseline.txt`. A machine that is busy counts the same.
//!
//! Another compiler, target or libc makes other instructions: counts are compared with those of the same ones only. What
//! runs the counting, `gungraun-runner`, has to be of the library's version, and is built into the target folder once.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools::{self, Task};
use crate::{Outcome, cargo, display, run, step, succeed};

/// Growth that is no regression, in percent. What is counted varies by up to 2 % with the seeds of hash maps.
const TOLERANCE: f64 = 5.0;

/// Of so many counts of each, the middle one counts. Odd.
const RUNS: usize = 5;

const BASELINE: &str = "tests/instructions/baseline.txt";

/// Instructions of each subject, by its name.
type Counts = BTreeMap<String, u64>;

/// Counts, and fails if something takes more instructions than the baseline allows.
pub(crate) fn compare(root: &Path) -> Outcome {
    let kept = Baseline::read(&root.join(BASELINE))?;
    let now = Baseline::count(root)?;
    let is_comparable = kept.made_by == now.made_by;
    println!("{:<24} {:>10} {:>10} {:>8}", "instructions", "kept", "now", "change");
    let mut wrong = Vec::new();
    for (name, count) in &now.counts {
        let before = kept.counts.get(name).filter(|_| is_comparable);
        let change = before.map(|before| percent(*before, *count));
        let (before, shown) = match (before, change) {
            (Some(before), Some(change)) => (before.to_string(), format!("{change:+.1} %")),
            _ => ("-".to_owned(), "-".to_owned()),
        };
        println!("{name:<24} {before:>10} {count:>10} {shown:>8}");
        if is_comparable && change.is_none_or(|change| change > TOLERANCE) {
            wrong.push(name.as_str());
        }
    }
    if !is_comparable {
        step(&format!(
            "nothing is compared: what is kept was made by {}, this by {}; `cargo xtask bench --instructions --keep` keeps this",
            kept.made_by, now.made_by
        ));
    }
    wrong.extend(kept.counts.keys().filter(|name| !now.counts.contains_key(*name)).map(String::as_str));
    if wrong.is_empty() {
        return Ok(());
    }
    let wrong = wrong.join(", ");
    Err(format!(
        "more than {TOLERANCE} % above what is kept, or not in one of both: {wrong}; if it is meant to be so, `cargo xtask bench --instructions --keep` keeps it"
    )
    .into())
}

/// Counts, and writes the baseline anew.
pub(crate) fn keep(root: &Path) -> Outcome {
    let now = Baseline::count(root)?;
    fs::write(root.join(BASELINE), now.to_text())?;
    step(&format!("{BASELINE} is written"));
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "counts are far below what a double has room for")]
fn percent(before: u64, now: u64) -> f64 {
    (now as f64 / before as f64 - 1.0) * 100.0
}

/// Counts, and what made the instructions: compiler, target and libc.
struct Baseline {
    made_by: String,
    counts: Counts,
}

impl Baseline {
    /// What is kept: comments, who made it, then a count and a name on each line.
    fn read(file: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(file).map_err(|error| format!("{BASELINE} cannot be read: {error}"))?;
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let made_by = lines.next().unwrap_or_default().to_owned();
        let count = |line: &str| {
            let (count, name) = line.split_once(' ')?;
            Some((name.to_owned(), count.parse().ok()?))
        };
        let counts = lines.map(|line| count(line).ok_or(format!("{BASELINE} has a line {line:?}")));
        Ok(Self { made_by, counts: counts.collect::<Result<_, _>>()? })
    }

    fn to_text(&self) -> String {
        let mut text = format!(
            "# Instructions of each subject of benches/count.rs, as `cargo xtask bench --instructions --keep` wrote them.\n{}\n",
            self.made_by
        );
        for (name, count) in &self.counts {
            let _never_fails = writeln!(text, "{count} {name}");
        }
        text
    }

    fn count(root: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        if let Some(tool) = tools::missing(Task::Instructions).next() {
            return Err(format!("{} is not installed; it is needed for {}", tool.name, tool.used_for).into());
        }
        let runner = runner(root)?;
        step("building what is counted, as released");
        let mut build = bench(root, &runner);
        build.arg("--no-run");
        succeed(build)?;
        step("counting");
        let mut runs = BTreeMap::<String, Vec<u64>>::new();
        for _ in 0..RUNS {
            for (name, count) in counted(&output(bench(root, &runner))?) {
                runs.entry(name).or_default().push(count);
            }
        }
        let counts: Counts =
            runs.into_iter().filter_map(|(name, counts)| Some((name, middle(counts)?))).collect();
        // Another form of the output would otherwise pass for ever.
        if counts.is_empty() {
            return Err("gungraun has printed no count that is understood here".into());
        }
        Ok(Self { made_by: made_by()?, counts })
    }
}

/// The counting itself, once.
fn bench(root: &Path, runner: &Path) -> Command {
    let mut bench = cargo(root);
    bench.env("GUNGRAUN_RUNNER", runner).env("GUNGRAUN_COLOR", "never");
    bench.args([
        "bench",
        "--quiet",
        "--package",
        "instructions",
        "--features",
        "measure",
        "--bench",
        "count",
    ]);
    bench
}

/// Builds what runs the counting, unless it is there.
fn runner(root: &Path) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let lock = fs::read_to_string(root.join("Cargo.lock"))?;
    let version = lock
        .split_once("name = \"gungraun-runner\"\nversion = \"")
        .and_then(|(_, rest)| rest.split('"').next())
        .ok_or("Cargo.lock has no version of gungraun-runner")?;
    let home = run::target()?.join("gungraun").join(version);
    let runner = home.join("bin/gungraun-runner");
    if !runner.exists() {
        step(&format!("building gungraun-runner {version} (a few minutes, once)"));
        let mut install = cargo(root);
        install.args(["install", "--quiet", "--locked", "gungraun-runner", "--version", version, "--root"]);
        install.arg(&home).arg("--target-dir").arg(home.join("build"));
        succeed(install)?;
        fs::remove_dir_all(home.join("build"))?;
    }
    Ok(runner)
}

/// Reads what gungraun prints: a line with a subject's path and id, then its counts.
///
/// ```text
/// count::all::batch of_1:(Round :: of(1))
///   Instructions:                        2363|2363                 (No change)
/// ```
fn counted(text: &str) -> Vec<(String, u64)> {
    let mut counts = Vec::new();
    let mut name = None;
    for line in text.lines() {
        if let Some(subject) = line.strip_prefix("count::all::") {
            name = subject.split_once(':').map(|(name, _)| name.replace(' ', "."));
        } else if let Some(count) = line.trim_start().strip_prefix("Instructions:") {
            let count = count.split('|').next().and_then(|count| count.trim().parse().ok());
            counts.extend(name.take().zip(count));
        }
    }
    counts
}

fn middle(mut counts: Vec<u64>) -> Option<u64> {
    counts.sort_unstable();
    counts.get(counts.len() / 2).copied()
}

/// Compiler, target and libc, in a line.
fn made_by() -> Result<String, String> {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.arg("-vV");
    let version = output(rustc)?;
    let field = |name| version.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("unknown");
    let mut getconf = Command::new("getconf");
    getconf.arg("GNU_LIBC_VERSION");
    let libc = output(getconf).unwrap_or_else(|_| "another libc".to_owned());
    Ok(format!("rustc {}, {}, {}", field("release: "), field("host: "), libc.trim()))
}

/// What `command` prints on stdout, if it succeeds.
fn output(mut command: Command) -> Result<String, String> {
    let line = display(&command);
    let output = command.output().map_err(|error| format!("`{line}` does not start: {error}"))?;
    if !output.status.success() {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        return Err(format!("`{line}` failed: {}\n{out}{err}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
