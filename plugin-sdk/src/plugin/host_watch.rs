//! Knowing when the host has gone: a plugin whose host was killed is of no use to anybody and has to end.

use std::time::Duration;

use rustix::process::{Pid, getppid};
use tokio::sync::oneshot;

/// How often the parent is looked at where the system cannot tell of its end.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The process that was the parent when this was made.
#[derive(Debug)]
pub(crate) struct HostWatch(Option<Pid>);

impl HostWatch {
    /// Remembers the parent. To be called as early as possible: a host that dies before that is not noticed.
    pub(crate) fn new() -> Self {
        Self(getppid())
    }

    /// Waits for the parent's end; for ever where there is none to watch (in a PID name space of its own).
    ///
    /// A thread does the waiting, once; it ends with the process if nothing happens before.
    pub(crate) async fn gone(self) {
        let (tell, told) = oneshot::channel::<()>();
        if let Some(parent) = self.0 {
            let thread = std::thread::Builder::new().name("host-watch".to_owned());
            let watching = thread.spawn(move || {
                await_exit(parent);
                let _ = tell.send(());
            });
            if watching.is_ok() && told.await.is_ok() {
                return;
            }
        }
        std::future::pending().await
    }
}

fn await_exit(parent: Pid) {
    #[cfg(target_os = "linux")]
    await_pidfd(parent);
    while getppid() == Some(parent) {
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Waits by a pidfd, which becomes readable when the process ends. Returns at once where there are none, or where the
/// parent ended before the descriptor was opened, as its number may belong to another process by now.
#[cfg(target_os = "linux")]
fn await_pidfd(parent: Pid) {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::process::{PidfdFlags, pidfd_open};

    let Ok(pidfd) = pidfd_open(parent, PidfdFlags::empty()) else { return };
    if getppid() == Some(parent) {
        let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None);
    }
}
