//! A child that the kernel kills when its parent ends, by whatever end: `PR_SET_PDEATHSIG`.
//!
//! Two things go wrong with it elsewhere. The signal comes when the *thread* ends that has forked, which in a host with
//! a pool of threads can be at any time: here that thread lives as long as the child, see [`child`](super::child). And
//! a parent that ends between the fork and the call has no end any more that could be signalled: so the child
//! looks afterwards whether its parent is still the host.
//!
//! The price: with something to do between fork and exec, the standard library forks where it could have used
//! `posix_spawn`, and a fork copies the host's page tables: measured, 3 ms more with 100 MiB in use and 55 ms with 1 GiB, on
//! the thread that starts the plugin.

use std::process::Command;

/// Has the kernel send SIGKILL to the child when the thread that starts it ends, and with this process at the latest.
///
/// The kernel forgets it when the child executes a file that is set-user-ID or has capabilities. Nothing is done where
/// the system has no such signal.
pub(crate) fn kill_with_this_process(command: &mut Command) {
    #[cfg(target_os = "linux")]
    before_exec::ask_for_signal(command);
    #[cfg(not(target_os = "linux"))]
    let _ = command;
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the standard library marks what runs between fork and exec as unsafe")]
mod before_exec {
    use std::io;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use rustix::io::Errno;
    use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};

    pub(super) fn ask_for_signal(command: &mut Command) {
        let host = getpid();
        // SAFETY: between fork and exec only what is async-signal-safe may be done, as other threads may have held any
        // lock at the fork. `prepare` makes two system calls and compares numbers; it neither allocates nor locks nor panics,
        // and its error is a bare number.
        unsafe {
            command.pre_exec(move || prepare(host));
        }
    }

    fn prepare(host: Pid) -> io::Result<()> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        match getppid() {
            // Where the child is in another PID name space, its parent has no number there, and cannot be looked at.
            None => Ok(()),
            Some(parent) if parent == host => Ok(()),
            Some(_) => Err(Errno::SRCH.into()),
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_child_whose_parent_is_not_the_host_any_more_does_not_begin() {
            // What a child finds when its host has ended between fork and exec: another parent.
            let stranger = Pid::from_raw(i32::MAX).unwrap();
            assert_eq!(prepare(stranger).unwrap_err().raw_os_error(), Some(Errno::SRCH.raw_os_error()));
            assert!(prepare(getppid().unwrap()).is_ok());
            set_parent_process_death_signal(None).unwrap();
        }
    }
}
