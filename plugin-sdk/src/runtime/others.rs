//! The hosts of this user, seen by their directories: who lives, and what the dead have left.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};

use super::{NAME_FILE, base, socket_dir};
use crate::process::end_marked;

/// What is read of the file with a host's name.
const NAME_BYTES: u64 = 256;

/// A host of this user that has plugins, or had when it was killed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostEntry {
    /// Its process. Of a dead host the number may be another process's by now.
    pub pid: u32,
    /// The name of its program's file; empty if it is not known.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// Whether it runs. A dead host is listed until its directory has been [swept](sweep).
    pub alive: bool,
}

/// Every host of this user whose directory is where this process would have its own: the environment of both has to
/// agree on `XDG_RUNTIME_DIR` and `TMPDIR`. Ordered by process id.
///
/// # Errors
/// A directory that is this user's and cannot be read.
pub fn hosts() -> io::Result<Vec<HostEntry>> {
    let mut hosts = Vec::new();
    for base in base::existing() {
        hosts.extend(hosts_in(&base)?);
    }
    hosts.sort_by(|one, other| (one.pid, &one.dir).cmp(&(other.pid, &other.dir)));
    Ok(hosts)
}

pub(crate) fn hosts_in(base: &Path) -> io::Result<Vec<HostEntry>> {
    let dirs = dirs_of_hosts(base)?;
    Ok(dirs.into_iter().filter_map(|(pid, dir)| HostEntry::read(pid, dir)).collect())
}

impl HostEntry {
    /// `None` if it is gone in the meantime, or is not what it seems.
    fn read(pid: u32, dir: PathBuf) -> Option<Self> {
        let opened = base::verified(&dir).ok()?;
        // A shared lock, given up at once: it keeps nobody else from finding the same.
        let alive = flock(&opened, FlockOperation::NonBlockingLockShared).is_err();
        Some(Self { pid, name: name(&dir).unwrap_or_default(), dir, alive })
    }
}

fn name(dir: &Path) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(open(dir.join(NAME_FILE), flags, Mode::empty())?);
    let mut name = Vec::new();
    file.take(NAME_BYTES).read_to_end(&mut name)?;
    Ok(String::from_utf8_lossy(&name).into_owned())
}

/// Ends what dead hosts of this user have left: their plugins, with everything that those have started, and then their
/// directories. Gives how many dead hosts there were. Live hosts are not touched, and any number of processes may sweep at once.
///
/// A host does it by itself, in the background, when it starts its first plugin. Blocks the thread: for some
/// milliseconds, for seconds at the most if a process cannot be killed.
pub fn sweep() -> usize {
    base::existing().iter().map(|base| sweep_base(base)).sum()
}

fn sweep_base(base: &Path) -> usize {
    let dirs = dirs_of_hosts(base).unwrap_or_default();
    // The locks are kept to the end, so that nobody else begins with the same.
    let dead: Vec<(PathBuf, OwnedFd)> =
        dirs.into_iter().filter_map(|(_, dir)| Some((dir.clone(), base::lock(&dir).ok()??))).collect();
    if dead.is_empty() {
        return 0;
    }
    let elsewhere: Vec<_> = dead.iter().flat_map(|(dir, _)| socket_dir::registered_in(dir)).collect();
    let all: Vec<_> = dead.iter().map(|(dir, _)| dir.clone()).chain(elsewhere.iter().cloned()).collect();
    let ended = end_marked(&all);
    for dir in &elsewhere {
        socket_dir::remove_flat(dir);
    }
    for (dir, _) in &dead {
        match remove(dir) {
            Ok(()) => tracing::info!(dir = %dir.display(), "what a dead host has left is removed"),
            Err(error) => tracing::warn!(dir = %dir.display(), %error, "what a dead host has left stays"),
        }
    }
    if ended > 0 {
        tracing::warn!(ended, "processes that dead hosts had left were killed");
    }
    dead.len()
}

/// Removes a host's directory if it is there, never following a symbolic link, and the base if that was the last.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    // Unlike the other it needs no descriptor.
    match std::fs::remove_dir(dir).or_else(|_| std::fs::remove_dir_all(dir)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if let Some(base) = dir.parent() {
        // It fails as long as there are others.
        let _ = std::fs::remove_dir(base);
    }
    Ok(())
}

/// The entries of a base that are named `<pid>.<random>`.
fn dirs_of_hosts(base: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let entries = match std::fs::read_dir(base) {
        // With its last host.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let hosts = entries.flatten().filter_map(|entry| Some((pid(&entry.file_name())?, entry.path())));
    Ok(hosts.collect())
}

fn pid(name: &std::ffi::OsStr) -> Option<u32> {
    let name = std::str::from_utf8(name.as_bytes()).ok()?;
    let (pid, random) = name.split_once('.')?;
    let is_ours = !random.is_empty() && random.bytes().all(|byte| byte.is_ascii_alphanumeric());
    pid.parse().ok().filter(|_| is_ours)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};

    use super::*;
    use crate::runtime::RuntimeDir;
    use crate::runtime::base::Base;

    /// A base with a live host in it, and the directory of a dead one.
    fn base() -> (tempfile::TempDir, RuntimeDir, PathBuf) {
        let private = std::fs::Permissions::from_mode(0o700);
        let home = tempfile::Builder::new().permissions(private).tempdir().unwrap();
        let live = RuntimeDir::create(&[Base::new(home.path().to_path_buf())]).unwrap();
        let dead = home.path().join("4194304.AAAAAA");
        std::fs::create_dir(&dead).unwrap();
        std::fs::set_permissions(&dead, std::fs::Permissions::from_mode(0o700)).unwrap();
        (home, live, dead)
    }

    #[test]
    fn the_living_and_the_dead_are_told_apart_by_the_lock() {
        let (home, live, dead) = base();
        std::fs::write(dead.join(NAME_FILE), "fib-server").unwrap();
        let found = hosts_in(home.path()).unwrap();
        let of = |dir: &Path| found.iter().find(|host| host.dir == dir).unwrap();
        assert!(of(live.path()).alive);
        assert_eq!(of(live.path()).pid, std::process::id());
        assert_eq!(
            *of(&dead),
            HostEntry { pid: 4_194_304, name: "fib-server".into(), dir: dead.clone(), alive: false }
        );
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "this is no plugin, but what is left of one")]
    fn a_sweep_takes_the_dead_and_leaves_the_living() {
        let (home, live, dead) = base();
        let plugin = dead.join("pAAAAA");
        std::fs::create_dir_all(plugin.join("made/by/the/plugin")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(plugin.join("plugin1")).unwrap());
        let mut left = std::process::Command::new("sleep");
        let mut left = left.arg("1000").env("PLUGIN_UNIX_SOCKET_DIR", &plugin).spawn().unwrap();
        assert_eq!(sweep_base(home.path()), 1);
        let exit = plugin_testkit::process::wait_for_exit(&mut left, "the end of what a dead host has left");
        assert!(!exit.success());
        assert!(!dead.exists() && live.path().join(NAME_FILE).exists());
        assert_eq!(sweep_base(home.path()), 0);
    }

    #[test]
    fn a_sweep_follows_no_link() {
        let (home, _live, dead) = base();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("precious"), "").unwrap();
        for name in ["pAAAAA", "host", "plugin-AAAAAAAA"] {
            symlink(outside.path(), dead.join(name)).unwrap();
        }
        symlink(outside.path(), home.path().join("7.AAAAAA")).unwrap();
        assert_eq!(sweep_base(home.path()), 1);
        assert!(outside.path().join("precious").exists() && !dead.exists());
    }

    #[test]
    fn sweeps_at_once_and_hosts_that_begin_meanwhile_do_no_harm() {
        let home = tempfile::tempdir().unwrap();
        let base = home.path().join("plugin-hosts");
        std::thread::scope(|scope| {
            let base = &base;
            for thread in 0..4 {
                scope.spawn(move || {
                    for round in 0..100 {
                        let host = RuntimeDir::create(&[Base::new(base.clone())]).unwrap();
                        let dead = base.join(format!("4194304.{thread}x{round}"));
                        std::fs::DirBuilder::new().mode(0o700).create(&dead).unwrap();
                        sweep_base(base);
                        assert!(host.path().join(NAME_FILE).exists());
                    }
                });
            }
        });
        assert!(!base.exists());
    }

    #[test]
    fn only_directories_of_hosts_are_looked_at() {
        for (name, found) in [("1.a", Some(1)), ("1.", None), (".a", None), ("1.a/b", None), ("x.a", None)] {
            assert_eq!(pid(name.as_ref()), found, "{name}");
        }
    }
}
