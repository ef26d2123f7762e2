//! A process that somebody else started: watched, and ended if it has to be.

use std::io;
use std::sync::Arc;

use rustix::process::Pid;
use tokio_util::sync::CancellationToken;

use handle::Handle;

/// A process that runs, or did when this was made.
#[derive(Debug, Clone)]
pub(crate) struct ForeignProcess {
    pid: u32,
    handle: Arc<Handle>,
    gone: CancellationToken,
}

impl ForeignProcess {
    /// The process that has this number now.
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        let handle = Arc::new(Handle::open(raw)?);
        let gone = CancellationToken::new();
        let (watched, tell) = (Arc::clone(&handle), gone.clone());
        std::thread::Builder::new().name("plugin-watch".to_owned()).spawn(move || {
            watched.await_end();
            tell.cancel();
        })?;
        Ok(Self { pid, handle, gone })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether its end has been seen.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.is_cancelled()
    }

    /// Waits for its end.
    pub(crate) async fn gone(&self) {
        self.gone.cancelled().await;
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

    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

    #[derive(Debug)]
    pub(super) struct Handle(OwnedFd);

    impl Handle {
        pub(super) fn open(pid: Pid) -> io::Result<Self> {
            Ok(Self(pidfd_open(pid, PidfdFlags::empty())?))
        }

        /// The descriptor becomes readable when the process ends, also as a zombie.
        pub(super) fn await_end(&self) {
            while matches!(
                poll(&mut [PollFd::new(&self.0, PollFlags::IN)], None),
                Err(rustix::io::Errno::INTR)
            ) {}
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
    use std::time::Duration;

    use rustix::io::Errno;
    use rustix::process::{Pid, Signal, kill_process, test_kill_process};

    const POLL_INTERVAL: Duration = Duration::from_secs(1);

    #[derive(Debug)]
    pub(super) struct Handle(Pid);

    impl Handle {
        pub(super) fn open(pid: Pid) -> io::Result<Self> {
            let handle = Self(pid);
            if handle.is_there() { Ok(handle) } else { Err(Errno::SRCH.into()) }
        }

        pub(super) fn await_end(&self) {
            while self.is_there() {
                std::thread::sleep(POLL_INTERVAL);
            }
        }

        pub(super) fn kill(&self) {
            // It fails only for a process that has ended already, or that is not ours to kill.
            let _ = kill_process(self.0, Signal::KILL);
        }

        /// One that may not be signalled is there, too.
        fn is_there(&self) -> bool {
            test_kill_process(self.0) != Err(Errno::SRCH)
        }
    }
}
