//! Processes seen from outside, through Linux's `/proc`.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

pub use rustix::process::Signal;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, kill_process, kill_process_group, setrlimit};

use crate::wait::wait_for;

/// Sends `signal` to one process, and says whether there is such a one. That it is gone already is no error.
pub fn signal(pid: u32, signal: Signal) -> bool {
    kill_process(as_pid(pid), signal).is_ok()
}

/// Sends `signal` to a process group, as a terminal does, and says whether there is such a one.
pub fn signal_group(leader: u32, signal: Signal) -> bool {
    kill_process_group(as_pid(leader), signal).is_ok()
}

/// Waits until `child` has ended. `what` completes "waited in vain for ...".
///
/// # Panics
/// It does not within [`LIMIT`](crate::wait::LIMIT).
#[track_caller]
pub fn wait_for_exit(child: &mut Child, what: &str) -> ExitStatus {
    wait_for(what, || child.try_wait().expect("a child can be waited for"))
}

/// Running processes with `marker` in their environment. Zombies have none, so they are not among them.
pub fn marked_with(marker: &str) -> Vec<u32> {
    all().into_iter().filter(|pid| read(*pid, "environ").contains(marker)).collect()
}

/// Children of `parent`, zombies among them.
pub fn children_of(parent: u32) -> Vec<u32> {
    all().into_iter().filter(|pid| number(*pid, PARENT) == Some(u64::from(parent))).collect()
}

/// The command line, its arguments separated by spaces; empty if there is no such process.
pub fn command_line(pid: u32) -> String {
    read(pid, "cmdline").replace('\0', " ")
}

/// Whether there is such a process and it has not ended.
pub fn is_running(pid: u32) -> bool {
    // Not by the command line, which is empty for a moment while the process becomes another program.
    stat(pid, STATE).is_some_and(|state| !matches!(state.as_str(), "Z" | "X"))
}

/// Whether it ignores `signal`.
pub fn ignores(pid: u32, signal: Signal) -> bool {
    let status = read(pid, "status");
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("status has this field");
    let mask = u64::from_str_radix(mask.trim(), 16).expect("the mask is hexadecimal");
    mask >> (signal.as_raw() - 1) & 1 == 1
}

/// How many file descriptors it has open.
pub fn open_descriptors(pid: u32) -> usize {
    fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")).map_or(0, Iterator::count)
}

/// Its sockets, each with the number that no other socket of the machine has had: unlike
/// [`open_descriptors`], a new one shows though an old one has just been closed.
pub fn sockets(pid: u32) -> BTreeSet<PathBuf> {
    let descriptors = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd"));
    let targets = descriptors.into_iter().flatten().flatten().flat_map(|entry| fs::read_link(entry.path()));
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).collect()
}

/// How many threads it has.
pub fn threads(pid: u32) -> usize {
    fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task")).map_or(0, Iterator::count)
}

/// Processor time used so far by all threads, in ticks of 10 ms; `None` if there is no such process.
pub fn cpu_ticks(pid: u32) -> Option<u64> {
    Some(number(pid, USER_TIME)? + number(pid, SYSTEM_TIME)?)
}

/// Runs a test again in a process of its own, for what it does to that, and says whether this is it. `module` is that of the test,
/// from `module_path!()`, and `test` its name.
///
/// # Panics
/// The test has failed there.
#[track_caller]
pub fn is_of_its_own(module: &str, test: &str) -> bool {
    const MARK: &str = "PLUGIN_TESTKIT_OWN_PROCESS";
    if env::var_os(MARK).is_some_and(|of| of == test) {
        return true;
    }
    let name = module.split_once("::").map_or(test.to_owned(), |(_, inner)| format!("{inner}::{test}"));
    let program = env::current_exe().expect("the system knows this process's program");
    let output = Command::new(program).args(["--exact", &name, "--nocapture"]).env(MARK, test).output();
    let output = output.expect("the test's own program can be run");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    false
}

/// Lets this process open nothing more, for good. For tests that [are of their own](is_of_its_own).
pub fn take_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), maximum }).expect("less is always allowed");
}

/// Fields of `/proc/PID/stat`, counted from the one after the name in parentheses.
const STATE: usize = 0;
const PARENT: usize = 1;
const USER_TIME: usize = 11;
const SYSTEM_TIME: usize = 12;

fn number(pid: u32, field: usize) -> Option<u64> {
    stat(pid, field)?.parse().ok()
}

fn stat(pid: u32, field: usize) -> Option<String> {
    // A program may put any character into its name, so the last parenthesis is the one that ends it.
    Some(read(pid, "stat").rsplit_once(')')?.1.split_whitespace().nth(field)?.to_owned())
}

fn all() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// A process may end at any moment, so that what cannot be read is empty.
fn read(pid: u32, file: &str) -> String {
    let bytes = fs::read(Path::new("/proc").join(pid.to_string()).join(file)).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn as_pid(pid: u32) -> Pid {
    i32::try_from(pid).ok().and_then(Pid::from_raw).expect("process ids are positive")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "this is no plugin")]
    fn a_process_runs_from_its_spawn_on_until_it_has_ended() {
        for _ in 0..200 {
            // `spawn` comes back in the middle of the exec.
            let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
            let ran = is_running(child.id());
            child.kill().unwrap();
            wait_for("the zombie", || stat(child.id(), STATE).filter(|state| state == "Z"));
            let runs = is_running(child.id());
            child.wait().unwrap();
            assert!(ran && !runs && !is_running(child.id()));
        }
    }
}
