//! The bench itself, for moments, with programs as they are built for tests: what it says means nothing then, but it says it.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use e2e::process::{self, Signal};
use e2e::wait::wait_until;
use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

#[test]
fn a_report_has_figures_for_each_load_and_all_of_them_are_hits() {
    let bench = Bench::new();
    let report = bench.report(&["--rows=memory", "--connections=1,4", "--keys=hot,random", "--starts=0"]);
    let rows: Vec<_> = report.lines().filter(|line| line.starts_with("| ours, memory |")).collect();
    assert_eq!(rows.len(), 4, "{report}");
    rows.into_iter().for_each(assert_measured);
    // Rate, median, 99 % and processor time, for both choices of keys.
    assert_eq!(bench.plots(), 8);
    bench.assert_nothing_is_left();
}

#[test]
fn a_plugin_without_batches_is_measured_beside_the_one_with_them() {
    let bench = Bench::new();
    let report = bench.report(&[
        "--rows=memory,get-only",
        "--connections=4",
        "--keys=hot",
        "--starts=0",
        "--seconds=0.5",
    ]);
    let rows: Vec<_> = report.lines().filter(|line| line.starts_with("| ours, ")).collect();
    assert_eq!(rows.len(), 2, "{report}");
    assert!(rows[0].starts_with("| ours, memory |") && rows[1].starts_with("| ours, Get only |"), "{report}");
    rows.into_iter().for_each(assert_measured);
    bench.assert_nothing_is_left();
    // And is without them.
    for (way, works) in [("get", true), ("pipe", false)] {
        let mut host = Command::new(e2e::binary("bench-crossing"));
        let output = e2e::run_with(host.arg(way).arg(e2e::binary("bench-get-only")).stdin(Stdio::null()));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), works, "{way}: {said}");
        assert!(works || said.contains("not implemented"), "{said}");
    }
}

#[test]
fn what_happens_once_is_told_and_a_plugin_that_was_killed_is_back() {
    let bench = Bench::new();
    let report = bench.report(&["--rows=memory", "--connections=1", "--keys=hot", "--starts=1"]);
    let once = report.split_once("### Once").expect("there is such a part").1;
    let row = once.lines().find(|line| line.starts_with("| ours, memory |")).expect("there is such a row");
    let cells: Vec<_> = row.split('|').map(str::trim).collect();
    assert_eq!(cells.len(), 10, "{row}");
    assert!(cells[2..9].iter().all(|cell| cell.starts_with(|letter: char| letter.is_ascii_digit())), "{row}");
    // The server and its plugin.
    assert!(cells[4].contains(" + "), "{row}");
    bench.assert_nothing_is_left();
}

#[test]
fn servers_in_go_and_with_redis_are_measured_beside_ours() {
    let test = "servers_in_go_and_with_redis_are_measured_beside_ours";
    for (tool, asked) in [("go", "version"), ("redis-server", "--version")] {
        if !Command::new(tool).arg(asked).output().is_ok_and(|output| output.status.success()) {
            return e2e::skip(test, tool);
        }
    }
    let bench = Bench::new();
    bench.take_those_in_go();
    let report = bench.report(&["--connections=2", "--keys=hot", "--starts=0"]);
    for row in [
        "Go, in-process .so",
        "Go, go-plugin",
        "ours, memory",
        "ours, Get only",
        "ours, memory, leases of 1 s",
        "ours, Go plugin, Get only",
        "Go, Redis, in-process .so",
        "ours, redis",
    ] {
        let row = format!("| {row} |");
        assert_measured(report.lines().find(|line| line.starts_with(&row)).expect(&row));
    }
    bench.assert_nothing_is_left();
}

#[test]
fn what_a_key_costs_is_told_for_each_way() {
    let bench = Bench::new();
    let report =
        bench.report(&["--rows=memory", "--connections=1", "--keys=hot", "--starts=0", "--costs=0.01"]);
    let part = report.split_once("### A crossing").expect("there is such a part").1;
    for keys in [1, 7, 32, 128] {
        for way in ["floor", "Pipe", "Get"] {
            let row = format!("| {keys} | {way} |");
            let row = part.lines().find(|line| line.starts_with(&row)).expect(&row);
            let per_second = row.split('|').nth(3).and_then(|cell| cell.trim().parse::<f64>().ok());
            assert!(per_second.is_some_and(|per_second| per_second > 0.0), "{row}");
        }
    }
    bench.assert_nothing_is_left();
}

#[test]
fn the_readme_shows_figures_and_plots_that_are_there() {
    let bench = Bench::new();
    let readme = bench.directory.path().join("README.md");
    let flags = ["--rows=memory", "--connections=1", "--keys=hot", "--starts=0", "--readme"];
    // First without a place for them.
    fs::write(&readme, "before\n").unwrap();
    assert!(!e2e::run_with(&mut bench.command(&flags)).status.success());
    fs::write(&readme, "before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n").unwrap();
    bench.report(&flags);
    let text = fs::read_to_string(&readme).unwrap();
    assert!(
        text.starts_with("before\n<!-- bench -->\n") && text.ends_with("<!-- /bench -->\nafter\n"),
        "{text}"
    );
    assert!(!text.contains("old") && text.contains("| 1 connection |"), "{text}");
    let links = text.split("](").skip(1).filter_map(|link| link.split(')').next());
    let missing: Vec<_> = links.filter(|link| !bench.directory.path().join(link).is_file()).collect();
    assert!(missing.is_empty(), "{missing:?}");
    bench.assert_nothing_is_left();
}

#[test]
fn nothing_is_left_of_a_measurement_that_is_stopped() {
    for signal in [Signal::INT, Signal::TERM] {
        let bench = Bench::new();
        let mut command = bench.command(&["--rows=memory", "--seconds=3600", "--starts=0"]);
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = e2e::start(&mut command);
        wait_until("the bench, a server and its plugin to run", || bench.processes().len() == 3);
        // As a terminal does it.
        assert!(process::signal_group(child.id(), signal));
        let status = process::wait_for_exit(&mut child, "the bench to end");
        assert_eq!(status.code(), Some(1), "{signal:?}");
        bench.assert_nothing_is_left();
    }
}

/// What a bench needs, and a directory for all that it leaves.
struct Bench {
    directory: TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self {
            directory: tempfile::Builder::new()
                .prefix("measuring-")
                .tempdir()
                .expect("a directory can be made"),
        };
        for folder in ["programs", "temporary"] {
            fs::create_dir(bench.directory.path().join(folder)).expect("it is new");
        }
        for program in ["fib-cache-memory", "fib-cache-redis", "bench-get-only", "bench-crossing"] {
            symlink(e2e::binary(program), bench.program(program)).expect("it is new");
        }
        // A busy machine must not make it calculate: that is not what is tested here.
        let server = e2e::binary("fib-server");
        let command = format!("exec '{}' --cache-timeout=30s \"$@\"", server.display());
        e2e::file::script(&bench.directory.path().join("programs"), "fib-server", &command);
        bench
    }

    fn program(&self, name: &str) -> PathBuf {
        self.directory.path().join("programs").join(name)
    }

    fn temporary(&self) -> PathBuf {
        self.directory.path().join("temporary")
    }

    fn command(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
        command.args(["--rounds=1", "--herd=26", "--left=26"]).arg("--programs").arg(self.program(""));
        // What comes later wins.
        if !flags.iter().any(|flag| flag.starts_with("--seconds")) {
            command.arg("--seconds=0.1");
        }
        if !flags.iter().any(|flag| flag.starts_with("--costs")) {
            command.arg("--costs=0");
        }
        command.arg("--out").arg(self.directory.path().join("out"));
        command.arg("--repository").arg(self.directory.path()).args(flags);
        command.env("TMPDIR", self.temporary());
        command
    }

    /// Runs it to its end, and gives its report.
    #[track_caller]
    fn report(&self, flags: &[&str]) -> String {
        let output = e2e::run_with(&mut self.command(flags));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        let report = fs::read_to_string(self.directory.path().join("out/report.md"));
        let report = report.expect("there is a report");
        assert_eq!(report, String::from_utf8_lossy(&output.stdout));
        report
    }

    fn plots(&self) -> usize {
        let files = fs::read_dir(self.directory.path().join("out")).expect("there is a folder").flatten();
        files.filter(|file| file.path().extension().is_some_and(|extension| extension == "svg")).count()
    }

    /// It, and what it has started: all have its directory in their environment.
    fn processes(&self) -> Vec<u32> {
        process::marked_with(self.temporary().to_str().expect("names here are text"))
    }

    #[track_caller]
    fn assert_nothing_is_left(&self) {
        wait_until("all processes to end", || self.processes().is_empty());
        let files: Vec<_> = fs::read_dir(self.temporary()).expect("there is a folder").flatten().collect();
        assert!(files.is_empty(), "{files:?}");
    }

    fn take_those_in_go(&self) {
        for program in in_go() {
            let name = program.file_name().expect("it was named");
            symlink(program, self.program("").join(name)).expect("it is new");
        }
    }
}

/// A row that has a rate, and whose answers all came from the cache.
#[track_caller]
fn assert_measured(row: &str) {
    let cells: Vec<_> = row.split('|').map(str::trim).collect();
    assert!(cells[2].parse::<f64>().is_ok_and(|per_second| per_second > 0.0), "{row}");
    assert_eq!(cells[cells.len() - 2], "100.0 (100.0-100.0)", "{row}");
}

/// The programs in Go, built as `cargo xtask bench` does it.
fn in_go() -> &'static [PathBuf] {
    static BUILT: LazyLock<Vec<PathBuf>> = LazyLock::new(|| {
        let target =
            Path::new(env!("CARGO_BIN_EXE_bench")).ancestors().nth(2).expect("it is in target/debug");
        let folder = target.join("bench-go");
        fs::create_dir_all(&folder).expect("the target folder can be written to");
        // Another test process may want the same.
        let lock = File::create(folder.join("lock")).expect("the target folder can be written to");
        flock(&lock, FlockOperation::LockExclusive).expect("a new file can be locked");
        include_str!("../../peers/go/programs.txt").lines().map(|line| build(line, &folder)).collect()
    });
    &BUILT
}

fn build(line: &str, folder: &Path) -> PathBuf {
    let [name, package, mode] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line:?}") };
    let program = folder.join(name);
    let mut go = Command::new("go");
    go.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../peers/go"));
    go.args(["build", "-trimpath", "-buildvcs=false", "-buildmode", mode, "-o"]).arg(&program).arg(package);
    let output = go.output().expect("go was there a moment ago");
    assert!(output.status.success(), "{go:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    program
}
