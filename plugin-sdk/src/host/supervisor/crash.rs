//! Reports of crashes: what is known of an instance that ended without having been asked to.
//!
//! The latest are kept in memory, and in files if there is a directory for them: one JSON object each,
//! `<plugin>-<seconds since 1970>-<process id of the host>-<instance>.json`, readable by the host's user alone, as they hold what the
//! plugin said. Several hosts may share a directory. Where a name is taken, as by a host in another container, a number is added.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use thiserror::Error;

use super::Failure;
use crate::host::journal::{Limit, Weigh};
use crate::host::{ExitKind, StopStep};

/// What is kept of reports in memory.
pub(super) const CRASHES: Limit = Limit { entries: 20, bytes: 4 << 20 };

/// Files that are kept for each plugin, whichever host has written them.
const FILES: usize = 20;

/// Names that are tried for one file.
const NAMES: u32 = 100;

/// A directory in which no crash report can be written. The operator has to mend it.
#[derive(Debug, Error)]
#[error("no file can be made in {}", dir.display())]
pub struct CrashDirError {
    /// The directory.
    pub dir: PathBuf,
    /// The system's reason.
    #[source]
    pub source: io::Error,
}

/// Looks whether reports can be written there, by making a file without a name. Blocks for a moment.
pub(super) fn check_dir(dir: &Path) -> Result<(), CrashDirError> {
    let made = tempfile::tempfile_in(dir);
    made.map(drop).map_err(|source| CrashDirError { dir: dir.to_path_buf(), source })
}

/// What is known of an instance that ended without having been asked to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CrashReport {
    /// What the plugin is called.
    pub plugin: Arc<str>,
    /// Its number among the instances of this plugin.
    pub instance: u64,
    /// The process that it was.
    pub pid: Option<u32>,
    /// The executable.
    pub program: Option<PathBuf>,
    /// When its end was seen.
    pub at: SystemTime,
    /// What happened.
    pub failure: Failure,
    /// Whether the system has killed a process of the host's control group for want of memory while the instance ran; together with
    /// SIGKILL that nobody sent, it was this one.
    pub out_of_memory: bool,
    /// From its start to its end.
    pub uptime: Option<Duration>,
    /// Calls that were open.
    pub open_calls: usize,
    /// The last lines of its stderr, at most 200.
    pub stderr: Vec<String>,
}

impl CrashReport {
    /// The report as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        let exit = self.failure.exit();
        let (code, signal, core_dumped) = match exit.map(|exit| exit.status) {
            Some(ExitKind::Code(code)) => (Some(code), None, None),
            Some(ExitKind::Signal { number, core_dumped }) => (None, Some(number), Some(core_dumped)),
            _ => (None, None, None),
        };
        let report: Value = json!({
            "plugin": &*self.plugin,
            "instance": self.instance,
            "pid": self.pid,
            "program": self.program.as_ref().map(|program| program.display().to_string()),
            "at_unix_seconds": unix_seconds(self.at),
            "failure": self.failure.to_string(),
            "exit_code": code,
            "signal": signal,
            "core_dumped": core_dumped,
            "out_of_memory": self.out_of_memory,
            "uptime_seconds": self.uptime.map(|uptime| uptime.as_secs_f64()),
            "open_calls": self.open_calls,
            "stderr": self.stderr,
        });
        report.to_string()
    }

    /// Writes the report to a new file in `dir` and removes the oldest ones of this plugin. If it cannot be written as a whole,
    /// there is no file of it, and no other has gone. Blocks for a moment.
    pub(super) fn write(&self, dir: &Path) -> io::Result<PathBuf> {
        let plugin = file_name(&self.plugin);
        let (seconds, host) = (unix_seconds(self.at), std::process::id());
        let name = format!("{plugin}-{seconds}-{host}-{}", self.instance);
        let path = new_file(dir, &name, |file| file.write_all(self.to_json().as_bytes()))?;
        remove_oldest(dir, &plugin, &path)?;
        Ok(path)
    }
}

impl Weigh for CrashReport {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.stderr.bytes() + self.failure.text_bytes()
    }
}

/// Makes a file that this user alone can read, under the first name that is free. If it cannot be filled, it goes again.
fn new_file(
    dir: &Path,
    name: &str,
    fill: impl FnOnce(&mut fs::File) -> io::Result<()>,
) -> io::Result<PathBuf> {
    let further = (2..=NAMES).map(|number| format!("{name}-{number}"));
    for name in std::iter::once(name.to_owned()).chain(further) {
        let path = dir.join(name + ".json");
        let mut file = match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            opened => opened?,
        };
        fill(&mut file).inspect_err(|_| _ = fs::remove_file(&path))?;
        return Ok(path);
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A name that stays in its directory.
fn file_name(name: &str) -> String {
    let harmless = |character: char| character.is_ascii_alphanumeric() || "._".contains(character);
    let name: String =
        name.chars().take(64).map(|character| if harmless(character) { character } else { '_' }).collect();
    name.trim_start_matches('.').to_owned()
}

/// Leaves so many files that there are [`FILES`] with `newest`.
fn remove_oldest(dir: &Path, plugin: &str, newest: &Path) -> io::Result<()> {
    // Names of one plugin sort by time as long as seconds have ten digits, which is until the year 2286.
    let of_plugin = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let rest = name.strip_prefix(plugin).and_then(|rest| rest.strip_prefix('-'));
        rest.and_then(|rest| rest.strip_suffix(".json")).is_some_and(|rest| {
            rest.split('-').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
        })
    };
    let paths = fs::read_dir(dir)?.flatten().map(|entry| entry.path());
    let mut others: Vec<_> = paths.filter(of_plugin).filter(|path| path != newest).collect();
    others.sort();
    for file in &others[..others.len().saturating_sub(FILES - 1)] {
        match fs::remove_file(file) {
            // Another host has removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    Ok(())
}

/// How often the system has killed for want of memory in the host's control group, in which its plugins are too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OomKills(Option<u64>);

impl OomKills {
    /// As it is now. Not known everywhere.
    pub(super) fn now() -> Self {
        Self(read_oom_kills())
    }

    /// Whether it has happened since, to an instance that ended like this.
    pub(super) fn explain(self, failure: &Failure) -> bool {
        let killed = failure.exit().is_some_and(|exit| {
            matches!(exit.status, ExitKind::Signal { number: 9, .. }) && exit.after == StopStep::Nothing
        });
        killed && matches!((self.0, read_oom_kills()), (Some(before), Some(now)) if now > before)
    }
}

fn read_oom_kills() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let file = Path::new("/sys/fs/cgroup").join(group.trim_start_matches('/')).join("memory.events");
    oom_kills(&fs::read_to_string(file).ok()?)
}

/// From the text of cgroup v2's `memory.events`.
fn oom_kills(events: &str) -> Option<u64> {
    events.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|count| count.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Exit;

    fn report(plugin: &str, instance: u64) -> CrashReport {
        let status = ExitKind::Signal { number: 6, core_dumped: false };
        let exit = Exit { status, after: StopStep::Nothing, uptime: Duration::from_millis(1_500) };
        CrashReport {
            plugin: plugin.into(),
            instance,
            pid: Some(7),
            program: Some("/x/plugin".into()),
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + instance),
            failure: Failure::Ended(exit),
            out_of_memory: false,
            uptime: Some(Duration::from_millis(1_500)),
            open_calls: 3,
            stderr: vec!["first".into(), "la\"st".into()],
        }
    }

    #[test]
    fn a_report_is_one_json_object() {
        let value: Value = serde_json::from_str(&report("cache", 2).to_json()).unwrap();
        let expected = json!({
            "plugin": "cache", "instance": 2, "pid": 7, "program": "/x/plugin", "at_unix_seconds": 1_700_000_002_u64,
            "failure": "exited: signal 6 (SIGABRT)", "exit_code": null, "signal": 6, "core_dumped": false,
            "out_of_memory": false, "uptime_seconds": 1.5, "open_calls": 3, "stderr": ["first", "la\"st"],
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn only_the_latest_files_of_a_plugin_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cache-of-mine.json"), "").unwrap();
        report("cache-2", 1).write(dir.path()).unwrap();
        for instance in 1..=FILES as u64 + 3 {
            report("cache", instance).write(dir.path()).unwrap();
        }
        let (names, host) = (names(dir.path()), std::process::id());
        assert_eq!(names.len(), FILES + 2);
        assert!(names.contains(&format!("cache-1700000023-{host}-23.json")));
        assert!(!names.contains(&format!("cache-1700000003-{host}-3.json")));
        assert!(names.contains(&format!("cache_2-1700000001-{host}-1.json")));
        assert!(names.contains(&"cache-of-mine.json".to_owned()));
    }

    #[test]
    fn a_report_of_another_host_is_not_written_over() {
        let dir = tempfile::tempdir().unwrap();
        for written in 1..=FILES + 5 {
            // As hosts do that are process 1 of their containers, at the same moment.
            let path = report("cache", 1).write(dir.path()).unwrap();
            assert_eq!((path.exists(), names(dir.path()).len()), (true, written.min(FILES)));
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        fs::read_dir(dir).unwrap().map(name).collect()
    }

    #[test]
    fn a_directory_that_takes_no_file_is_found_out_and_one_that_does_is_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        check_dir(dir.path()).unwrap();
        assert!(names(dir.path()).is_empty());
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        for (dir, why) in
            [(dir.path().join("missing"), io::ErrorKind::NotFound), (file, io::ErrorKind::NotADirectory)]
        {
            assert_eq!(check_dir(&dir).unwrap_err().source.kind(), why, "{}", dir.display());
        }
        assert!(check_dir(Path::new("/proc/self")).is_err(), "not even root makes files there");
    }

    #[test]
    fn a_file_that_cannot_be_filled_is_not_left_there() {
        let dir = tempfile::tempdir().unwrap();
        let is_full = new_file(dir.path(), "cache-1-1", |file| {
            file.write_all(b"{")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(is_full.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn a_plugins_name_cannot_leave_the_directory() {
        assert_eq!(file_name("../../etc/x y"), "_.._etc_x_y");
    }

    #[test]
    fn kills_for_want_of_memory_are_counted() {
        assert_eq!(oom_kills("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n"), Some(2));
        assert_eq!(oom_kills("low 0\n"), None);
    }
}
