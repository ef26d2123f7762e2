//! Ending processes by what is in their environment: those of a plugin that has left its process group, and those
//! of a host that is dead.
//!
//! A child inherits the environment of its parent, and with it the variable that names the plugin's directory for
//! sockets. The directory is of one plugin alone, so whoever has it in its environment is of that plugin's tree, however
//! it has daemonised itself. A process that is meant to stay takes the variable out of its environment.

use std::path::PathBuf;

/// Sends SIGKILL to every process of this user whose directory for sockets is one of `dirs` or in one of them, and waits
/// until they are gone, for a second at most. Gives how many there were.
///
/// Reads the environment of each process of this user: measured, 1.3 ms for 100 processes and 30 ms for 1,000. Finds
/// nothing without `/proc`.
pub(crate) fn end_marked(dirs: &[PathBuf]) -> usize {
    if dirs.is_empty() {
        return 0;
    }
    #[cfg(target_os = "linux")]
    return linux::end_marked(dirs);
    #[cfg(not(target_os = "linux"))]
    0
}

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::OsStr;
    use std::io::Read;
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;
    use std::path::{Path, PathBuf};
    use std::time::{Duration, Instant};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{
        Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, child_subreaper, geteuid, getpid, pidfd_open,
        pidfd_send_signal, waitid,
    };

    use crate::handshake::UNIX_SOCKET_DIR;

    /// How long killed processes are waited for, all together.
    const LIMIT: Duration = Duration::from_secs(1);

    /// How often the processes are gone through: one that was killed may have forked just before.
    const ROUNDS: usize = 4;

    /// How long to rest between two looks at a process that is becoming another program.
    const REST: Duration = Duration::from_millis(1);

    /// What is read of an environment or of arguments; the kernel's limit for both together is usually 2 MiB.
    const CONTENT_BYTES: u64 = 4 << 20;

    pub(super) fn end_marked(dirs: &[PathBuf]) -> usize {
        let deadline = Instant::now() + LIMIT;
        let mut ended = 0;
        for _ in 0..ROUNDS {
            let killed: Vec<_> = others().filter_map(|pid| kill(pid, dirs, deadline)).collect();
            if killed.is_empty() {
                break;
            }
            ended += killed.len();
            for pidfd in killed {
                await_end(&pidfd, deadline);
            }
        }
        ended
    }

    /// All processes but this one.
    fn others() -> impl Iterator<Item = Pid> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
        pids.filter(|pid| *pid != getpid())
    }

    /// Kills the process if it is marked. Between the two looks its number becomes a descriptor, which never means
    /// another process.
    fn kill(pid: Pid, dirs: &[PathBuf], deadline: Instant) -> Option<OwnedFd> {
        if !is_marked(pid, dirs, deadline) {
            return None;
        }
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let killed = is_marked(pid, dirs, deadline) && pidfd_send_signal(&pidfd, Signal::KILL).is_ok();
        killed.then_some(pidfd)
    }

    fn is_marked(pid: Pid, dirs: &[PathBuf], deadline: Instant) -> bool {
        let process = Path::new("/proc").join(pid.as_raw_nonzero().to_string());
        if !process.metadata().is_ok_and(|metadata| metadata.uid() == geteuid().as_raw()) {
            return false;
        }
        let environment = environment(&process, deadline);
        socket_dir(&environment).is_some_and(|own| dirs.iter().any(|dir| own.starts_with(dir)))
    }

    /// Empty if it cannot be read. What is in the middle of an exec has none yet, and is waited for: it may be marked.
    fn environment(process: &Path, deadline: Instant) -> Vec<u8> {
        loop {
            let environment = read(process, "environ");
            if !environment.is_empty() {
                return environment;
            }
            if !is_in_exec(process) {
                // The exec may have been over just after the first look.
                return read(process, "environ");
            }
            if Instant::now() >= deadline {
                return environment;
            }
            std::thread::sleep(REST);
        }
    }

    /// Whether the process has a program, as zombies and the kernel's threads have not, but not yet its arguments. Those
    /// it gets together with its environment.
    fn is_in_exec(process: &Path) -> bool {
        process.join("exe").read_link().is_ok() && read(process, "cmdline").is_empty()
    }

    fn read(process: &Path, file: &str) -> Vec<u8> {
        let mut content = Vec::new();
        let read = std::fs::File::open(process.join(file))
            .and_then(|file| file.take(CONTENT_BYTES).read_to_end(&mut content));
        if read.is_ok() { content } else { Vec::new() }
    }

    /// The value of the variable, of the first where there are several, as C's `getenv` takes it.
    fn socket_dir(environment: &[u8]) -> Option<&Path> {
        let mut variables = environment.split(|byte| *byte == 0);
        let value = variables
            .find_map(|variable| variable.strip_prefix(UNIX_SOCKET_DIR.as_bytes())?.strip_prefix(b"="))?;
        Some(Path::new(OsStr::from_bytes(value)))
    }

    fn await_end(pidfd: &OwnedFd, deadline: Instant) {
        let rest = deadline.saturating_duration_since(Instant::now());
        let rest = Timespec::try_from(rest).unwrap_or_default();
        // Interrupted or not: what is not gone is found in the next round.
        let _ = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&rest));
        if is_given_orphans() {
            let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }

    /// Whether orphans become children of this process, which then has to reap them: as process 1 of a container, or as a
    /// subreaper.
    fn is_given_orphans() -> bool {
        getpid() == Pid::INIT || child_subreaper().is_ok_and(|pid| pid.is_some())
    }

    #[cfg(test)]
    #[expect(clippy::disallowed_methods, reason = "these are no plugins, but what is left of some")]
    mod tests {
        use std::os::unix::process::ExitStatusExt;
        use std::process::Child;

        use plugin_testkit::process::wait_for_exit;
        use plugin_testkit::wait::wait_until;

        use super::*;

        #[test]
        fn the_variable_is_found_among_others_and_by_its_whole_name() {
            for (environment, dir) in [
                (&b"A=1\0PLUGIN_UNIX_SOCKET_DIR=/run/x\0B=2\0"[..], Some("/run/x")),
                (b"PLUGIN_UNIX_SOCKET_DIR=\0", Some("")),
                (b"MY_PLUGIN_UNIX_SOCKET_DIR=/run/x\0", None),
                (b"PLUGIN_UNIX_SOCKET_DIRECTORY=/run/x\0", None),
                (b"", None),
            ] {
                assert_eq!(socket_dir(environment), dir.map(Path::new));
            }
        }

        #[test]
        fn directories_are_compared_whole() {
            let marked = |dir: &str| {
                let mut child = command(dir).spawn().unwrap();
                let is_marked = is_marked_soon(Pid::from_child(&child), "/run/hosts/1.ab");
                end(&mut child);
                is_marked
            };
            assert!(marked("/run/hosts/1.ab") && marked("/run/hosts/1.ab/p"));
            assert!(!marked("/run/hosts/1.abc") && !marked("/run/hosts"));
        }

        #[test]
        fn what_is_in_the_middle_of_an_exec_is_waited_for() {
            for round in 0..200 {
                // `spawn` comes back as soon as the old environment is gone, before the new one is there.
                let mut child = command("/run/hosts/1.ab").spawn().unwrap();
                let is_marked = is_marked_soon(Pid::from_child(&child), "/run/hosts/1.ab");
                end(&mut child);
                assert!(is_marked, "in round {round}");
            }
        }

        #[test]
        fn whoever_has_no_environment_is_not_waited_for() {
            let mut child = command("").env_clear().spawn().unwrap();
            let mut zombie = command("").spawn().unwrap();
            zombie.kill().unwrap();
            let process = |child: &Child| Path::new("/proc").join(child.id().to_string());
            wait_until("the exec is over", || !read(&process(&child), "cmdline").is_empty());
            wait_until("it is a zombie", || process(&zombie).join("exe").read_link().is_err());
            assert!(!is_in_exec(&process(&child)) && !is_in_exec(&process(&zombie)));
            end(&mut child);
            end(&mut zombie);
        }

        #[test]
        fn whoever_is_marked_is_ended_and_nobody_else() {
            let home = tempfile::tempdir().unwrap();
            let mut theirs = command(home.path().join("p").to_str().unwrap()).spawn().unwrap();
            let mut other = command("/run/another").spawn().unwrap();
            assert_eq!(end_marked(&[home.path().to_path_buf()]), 1);
            assert_eq!(wait_for_exit(&mut theirs, "the end of what is marked").signal(), Some(9));
            assert_eq!(other.try_wait().unwrap(), None);
            end(&mut other);
        }

        fn is_marked_soon(pid: Pid, dir: &str) -> bool {
            is_marked(pid, &[dir.into()], Instant::now() + LIMIT)
        }

        fn end(child: &mut Child) {
            child.kill().unwrap();
            child.wait().unwrap();
        }

        fn command(socket_dir: &str) -> std::process::Command {
            let mut command = std::process::Command::new("sleep");
            command.arg("1000").env(UNIX_SOCKET_DIR, socket_dir);
            command
        }
    }
}
