//! A process that somebody else started: watched, and ended if it has to be.

use std::io;

use rustix::process::Pid;

use handle::Handle;

/// A process that runs, or did when this was made. Dropping it ends the watch, and leaves the process alone.
#[derive(Debug)]
pub(crate) struct ForeignProcess {
    pid: u32,
    handle: Handle,
}

impl ForeignProcess {
    /// The process that has this number now.
    ///
    /// # Panics
    /// Outside of a tokio run time.
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { pid, handle: Handle::open(raw)? })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it has ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.handle.is_gone()
    }

    /// Waits for its end. Cancel safe.
    pub(crate) async fn gone(&self) {
        self.handle.gone().await;
    }

    /// Sends SIGKILL to it alone: its group may be that of its parent.
    pub(crate) fn kill(&self) {
        if !self.is_gone() {
            self.handle.kill();
        }
    }
}

/// By a pidfd, which never means another process, as a number does that was used again.
#[cfg(target_os = "linux")]
mod handle {
    use std::io;
    use std::os::fd::OwnedFd;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    /// The descriptor becomes readable when the process ends, also as a zombie, and stays so.
    #[derive(Debug)]
    pub(super) struct Handle(AsyncFd<OwnedFd>);

    impl Handle {
        pub(super) fn open(pid: Pid) -> io::Result<Self> {
            let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
            #[expect(unsafe_code, reason = "tokio has no safe way to ask for one interest only")]
            // SAFETY: an `OwnedFd` owns its descriptor, and has this one until it is dropped.
            let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
            Ok(Self(pidfd?))
        }

        pub(super) fn is_gone(&self) -> bool {
            let pidfd = &mut [PollFd::new(&self.0, PollFlags::IN)];
            matches!(poll(pidfd, Some(&Timespec::default())), Ok(1))
        }

        pub(super) async fn gone(&self) {
            if self.0.readable().await.is_err() {
                // The run time is ending, and whoever waits with it.
                std::future::pending().await
            }
        }

        pub(super) fn kill(&self) {
            // It fails only for a process that has ended already, or that is not ours to kill.
            let _ = pidfd_send_signal(&self.0, Signal::KILL);
        }
    }
}

/// By its number, which is asked for once a second: a number that is used again within that time is taken for the plugin, and
/// a zombie counts as running. go-plugin does so everywhere.
#[cfg(not(target_os = "linux"))]
mod handle {
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use rustix::io::Errno;
    use rustix::process::{Pid, Signal, kill_process, test_kill_process};

    const POLL_INTERVAL: Duration = Duration::from_secs(1);

    #[derive(Debug)]
    pub(super) struct Handle {
        pid: Pid,
        /// Its end has been seen: from then on the number may mean another process.
        gone: AtomicBool,
    }

    impl Handle {
        pub(super) fn open(pid: Pid) -> io::Result<Self> {
            let handle = Self { pid, gone: AtomicBool::new(false) };
            if handle.is_gone() { Err(Errno::SRCH.into()) } else { Ok(handle) }
        }

        /// One that may not be signalled is there, too.
        pub(super) fn is_gone(&self) -> bool {
            let gone = || test_kill_process(self.pid) == Err(Errno::SRCH);
            self.gone.load(Ordering::Relaxed)
                || gone() && {
                    self.gone.store(true, Ordering::Relaxed);
                    true
                }
        }

        pub(super) async fn gone(&self) {
            while !self.is_gone() {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        }

        pub(super) fn kill(&self) {
            // It fails only for a process that has ended already, or that is not ours to kill.
            let _ = kill_process(self.pid, Signal::KILL);
        }
    }
}
