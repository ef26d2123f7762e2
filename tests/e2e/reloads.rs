//! Another instance takes over from the one that serves without a request noticing; one that is not fit leaves the old
//! one where it is, and the operator is told why.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use e2e::file::{copy, executable, foreign, script};
use e2e::load::Load;
use e2e::log::Line;
use e2e::wait::{LIMIT, wait_until};
use e2e::{Server, binary, process, times};

const MEMORY: &str = "--cache-plugin-path=memory";

#[test]
fn reloads_under_load_cost_no_answer_and_leave_nothing() {
    let server = Server::start_for_load([MEMORY, "--plugin-settle=100ms"]);
    // The first takes with it what is made once and stays.
    let first = server.plugin_pid();
    server.order("reload");
    wait_until("the old instance to end", || !process::is_running(first));
    let mut pid = server.plugin_pid();
    let before = Left::behind(&server);
    let load = Load::start(server.address(), 64);
    wait_until("all clients to be at work", || load.answered() > 1_000);
    let reloads = times(10);
    for _ in 0..reloads {
        let said = server.order("reload");
        let next = server.plugin_pid();
        assert_ne!(pid, next, "{said}");
        pid = next;
    }
    let report = load.stop();
    report.is_flawless();
    let hits = report.answers.iter().filter(|answer| answer.hit).count();
    eprintln!("{reloads} reloads, {} answers, {hits} of them from the cache", report.answers.len());
    assert_eq!(server.plugin()["restarts"], 0, "a reload is no restart");
    let mut after = Left::behind(&server);
    // Threads for calculations are kept for a while.
    let stopped = Instant::now();
    while !after.is_within(before) {
        assert!(stopped.elapsed() < LIMIT, "there was {before:?}, there is {after:?}");
        thread::sleep(Duration::from_millis(50));
        after = Left::behind(&server);
    }
}

/// What there is of a server.
#[derive(Debug, Clone, Copy)]
struct Left {
    processes: usize,
    files: usize,
    descriptors: usize,
    threads: usize,
}

impl Left {
    fn behind(server: &Server) -> Self {
        Self {
            processes: server.processes().len(),
            files: server.files().len(),
            descriptors: process::open_descriptors(server.pid()),
            threads: process::threads(server.pid()),
        }
    }

    /// Whether there is not more of anything.
    fn is_within(self, other: Self) -> bool {
        let Self { processes, files, descriptors, threads } = self;
        processes <= other.processes
            && files <= other.files
            && descriptors <= other.descriptors
            && threads <= other.threads
    }
}

#[test]
fn unfit_instances_leave_the_old_one_serving_and_the_operator_is_told_why() {
    let server = Server::start_with_plugin([MEMORY, "--plugin-start-timeout=20s", "--cache-expiration=10m"]);
    let dir = tempfile::tempdir().expect("a directory can be made");
    let dies = format!("(sleep 1; kill -9 $$) >&- 2>&- & exec '{}'", binary("fib-cache-memory").display());
    let (program_of_another_machine, machine) = foreign(dir.path());
    for (program, why) in [
        (program_of_another_machine, machine),
        (dir.path().join("nonesuch"), "no such file"),
        (rogue(dir.path(), "app-version=0"), "version"),
        (rogue(dir.path(), "core-version=2"), "core"),
        (rogue(dir.path(), "exit-before-handshake=3"), "the cache directory is not mounted"),
        // Within the two seconds for which it has to be well before it takes over.
        (script(dir.path(), "dies", &dies), "SIGKILL"),
    ] {
        does_not_take_over(&server, &program, why);
    }
    // The next start is of the executable that has proven itself.
    let pid = server.plugin_pid();
    server.order("restart");
    assert_ne!(server.plugin_pid(), pid);
    assert!(process::command_line(server.plugin_pid()).contains("fib-cache-memory"));
}

#[test]
fn instance_that_is_not_well_in_time_does_not_take_over() {
    let server = Server::start_with_plugin([MEMORY, "--plugin-start-timeout=2s", "--cache-expiration=10m"]);
    let dir = tempfile::tempdir().expect("a directory can be made");
    does_not_take_over(&server, &rogue(dir.path(), "not-serving"), "NOT_SERVING");
    does_not_take_over(&server, &script(dir.path(), "silent", "exec sleep 1000"), "handshake");
}

#[test]
fn instance_that_hangs_before_it_has_proven_itself_does_not_take_over() {
    let server = Server::start_with_plugin([
        MEMORY,
        "--plugin-settle=60s",
        "--plugin-probe-interval=200ms",
        "--plugin-probe-timeout=1s",
        "--cache-expiration=10m",
    ]);
    let dir = tempfile::tempdir().expect("a directory can be made");
    let hangs =
        format!("(sleep 1; kill -STOP $$) >&- 2>&- & exec '{}'", binary("fib-cache-memory").display());
    does_not_take_over(&server, &script(dir.path(), "hangs", &hangs), "1 health check");
    wait_until("all but the old instance to be gone", || server.processes().len() == 2);
}

/// A reload to `program` fails, the operator and the log are told why, and the plugin has all that it had.
#[track_caller]
fn does_not_take_over(server: &Server, program: &Path, why: &str) {
    let pid = server.plugin_pid();
    server.wait_for_hit(20);
    let (said, code) = server.pluginctl(&format!("reload --path={}", program.display()));
    assert_eq!(code, Some(1), "{}: {said}", program.display());
    assert!(said.contains(why), "{}: {why:?} is missing in: {said}", program.display());
    assert_eq!(server.plugin_pid(), pid);
    let found = server.fib(20);
    assert!(found.cache_status().starts_with("fib; hit"), "{}", found.cache_status());
    wait_until("the event with the reason", || {
        let tells = |line: &Line| line.event() == "swap-failed" && line.message().contains(why);
        server.log().find(tells).is_some()
    });
}

/// The rogue plugin in this mode, without an argument.
fn rogue(dir: &Path, mode: &str) -> PathBuf {
    script(dir, mode, &format!("exec '{}' {mode}", binary("rogue-plugin").display()))
}

#[test]
fn file_with_another_checksum_does_not_take_over() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let plugin = dir.path().join("plugin");
    copy(&binary("fib-cache-memory"), &plugin);
    let sum = e2e::run("sha256sum", [&plugin]).stdout;
    let sum = String::from_utf8_lossy(&sum).split(' ').next().unwrap_or_default().to_owned();
    let server = Server::start_with_plugin([
        format!("--cache-plugin-path={}", plugin.display()),
        format!("--cache-plugin-checksum=sha256:{sum}"),
    ]);
    let pid = server.plugin_pid();
    let mut other = fs::read(&plugin).expect("it can be read");
    other.push(0);
    replace(&plugin, &executable(dir.path(), "other", &other));
    let (said, code) = server.pluginctl("reload");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("checksum"), "{said}");
    assert_eq!(server.plugin_pid(), pid);
    server.wait_for_hit(12);
}

#[test]
fn watched_file_takes_over_when_it_is_replaced() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let good = format!("exec '{}'", binary("fib-cache-memory").display());
    let plugin = script(dir.path(), "plugin", &good);
    let server = Server::start_with_plugin([
        format!("--cache-plugin-path={}", plugin.display()),
        "--plugin-watch".to_owned(),
        "--plugin-settle=100ms".to_owned(),
        // Health checks are no reason not to look at the file.
        "--plugin-probe-interval=100ms".to_owned(),
    ]);
    let first = server.plugin_pid();
    // A broken one first: the old instance goes on.
    replace(&plugin, &script(dir.path(), "broken", "echo oh no >&2; exit 3"));
    wait_until("the broken file to be refused", || server.log().events("swap-failed") == 1);
    assert_eq!(server.plugin_pid(), first);
    let status = server.order("status");
    assert!(status.contains("failed reload") && status.contains("oh no"), "{status}");
    server.wait_for_hit(9);
    replace(&plugin, &script(dir.path(), "mended", &good));
    server.wait_for_plugin_after(first);
    assert!(!server.order("status").contains("failed reload"));
    server.wait_for_hit(9);
    assert_eq!(server.log().events("ended"), 0, "nobody has died");
}

#[test]
fn operators_who_restart_at_once_get_one_restart() {
    let server = Server::start_with_plugin([MEMORY]);
    let first = server.plugin_pid();
    // Stopped, it takes some seconds to be ended, in which the second order comes.
    process::signal(first, process::Signal::STOP);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| server.order("restart"));
        }
    });
    assert_ne!(server.plugin_pid(), first);
    server.wait_for_hit(18);
    wait_until("both orders to be logged", || server.log().events("ordered") == 2);
    wait_until("the last start to be logged", || server.log().events("serving") == 2);
    assert_eq!(server.log().events("starting"), 2, "the first start and one more");
}

#[test]
fn server_without_control_serves_all_the_same_and_is_not_found() {
    let server = Server::start_with_plugin([MEMORY, "--control=off"]);
    server.wait_for_hit(18);
    let (said, code) = server.pluginctl("list");
    assert_eq!(code, Some(4), "{said}");
}

/// Puts `new` in the place of `file`, as an installer does.
fn replace(file: &Path, new: &Path) {
    fs::rename(new, file).expect("a file can be renamed");
}
