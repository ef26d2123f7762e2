//! A process that somebody else started: watched and ended through a pidfd, which never means another process, as a
//! number does that was used again.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio_util::sync::CancellationToken;

/// A process that runs, or did when this was made.
#[derive(Debug, Clone)]
pub(crate) struct ForeignProcess {
    pid: u32,
    pidfd: Arc<OwnedFd>,
    gone: CancellationToken,
}

impl ForeignProcess {
    /// The process that has this number now.
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        let pidfd = Arc::new(pidfd_open(raw, PidfdFlags::empty())?);
        let gone = CancellationToken::new();
        let (watched, tell) = (Arc::clone(&pidfd), gone.clone());
        std::thread::Builder::new().name("plugin-watch".to_owned()).spawn(move || {
            // The descriptor becomes readable when the process ends, also as a zombie.
            while matches!(
                poll(&mut [PollFd::new(&*watched, PollFlags::IN)], None),
                Err(rustix::io::Errno::INTR)
            ) {}
            tell.cancel();
        })?;
        Ok(Self { pid, pidfd, gone })
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
        // It fails only for a process that has ended already, or that is not ours to kill.
        let _ = pidfd_send_signal(&*self.pidfd, Signal::KILL);
    }
}
