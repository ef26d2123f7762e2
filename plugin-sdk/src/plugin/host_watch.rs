//! Knowing when the host has gone: a plugin whose host was killed is of no use to anybody and has to end.
//!
//! Two signs, of which the first that comes counts. The parent process ends: seen by a pidfd, or by looking once a
//! second. Or, if the host has said that stdin is its lifeline, nobody holds the other end of that pipe any more: this works
//! across PID name spaces, and where something stands between host and plugin.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::process::{Pid, getppid};
use tokio::sync::oneshot;

use crate::handshake::Lifeline;

/// How often the parent is looked at where the system cannot tell of its end.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// What was the parent, and the lifeline, when this was made.
#[derive(Debug)]
pub(crate) struct HostWatch {
    parent: Option<Pid>,
    lifeline: Option<OwnedFd>,
}

impl HostWatch {
    /// Remembers the parent. To be called as early as possible: a host that dies before that is not noticed.
    pub(crate) fn new() -> Self {
        Self { parent: getppid(), lifeline: None }
    }

    /// Watches the lifeline as well, if there is one. It is not read, so whoever reads stdin is not disturbed.
    pub(crate) fn with_lifeline(self, lifeline: Lifeline) -> Self {
        let lifeline = match lifeline {
            Lifeline::No => None,
            Lifeline::Stdin => open_lifeline().ok(),
        };
        Self { lifeline, ..self }
    }

    /// Waits for the end of the host; for ever where there is nothing to watch.
    ///
    /// A thread does the waiting, once; it ends with the process if nothing happens before.
    pub(crate) async fn gone(self) {
        let (tell, told) = oneshot::channel::<()>();
        if self.parent.is_some() || self.lifeline.is_some() {
            let thread = std::thread::Builder::new().name("host-watch".to_owned());
            let watching = thread.spawn(move || {
                if self.await_end() {
                    let _ = tell.send(());
                }
            });
            if watching.is_ok() && told.await.is_ok() {
                return;
            }
        }
        std::future::pending().await
    }

    /// Blocks until the host has gone; false if there is nothing left to tell it.
    fn await_end(mut self) -> bool {
        let process = self.parent.and_then(open_process);
        loop {
            if self.parent.is_some() && getppid() != self.parent {
                return true;
            }
            let interval = match (&self.parent, &process, &self.lifeline) {
                (None, _, None) => return false,
                (Some(_), None, _) => Timespec::try_from(POLL_INTERVAL).ok(),
                _ => None,
            };
            let on_exit = process.as_ref().map(|pidfd| PollFd::new(pidfd, PollFlags::IN));
            // No more than its end is asked for: what is in the pipe is not of interest.
            let on_hangup = self.lifeline.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::empty()));
            let mut both: Vec<_> = on_exit.into_iter().chain(on_hangup).collect();
            match poll(&mut both, interval.as_ref()) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(_) => {
                    std::thread::sleep(POLL_INTERVAL);
                    continue;
                }
            }
            let mut seen = both.iter().map(PollFd::revents);
            let exit = process.as_ref().and_then(|_| seen.next()).unwrap_or(PollFlags::empty());
            let pipe = self.lifeline.as_ref().and_then(|_| seen.next()).unwrap_or(PollFlags::empty());
            if !exit.is_empty() || pipe.contains(PollFlags::HUP) {
                return true;
            }
            if !pipe.is_empty() {
                // It has failed, which says nothing of the host.
                self.lifeline = None;
            }
        }
    }
}

/// A descriptor of our own for stdin, which the plugin may close or put something else in its place. Anything but a pipe was
/// put there by somebody else than the host.
fn open_lifeline() -> io::Result<OwnedFd> {
    let stdin = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    match FileType::from_raw_mode(fstat(&stdin)?.st_mode) {
        FileType::Fifo => Ok(stdin),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// A descriptor that becomes readable when the process ends. If the process had ended before and its number was another's by
/// now, the parent is not this one any more, which is looked at next.
fn open_process(_process: Pid) -> Option<OwnedFd> {
    #[cfg(target_os = "linux")]
    return rustix::process::pidfd_open(_process, rustix::process::PidfdFlags::empty()).ok();
    #[cfg(not(target_os = "linux"))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_lifeline_is_the_end_of_the_host_and_data_in_it_is_not() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&writer, b"for whoever reads stdin").unwrap();
        let watch = HostWatch { parent: None, lifeline: Some(reader.try_clone().unwrap()) };
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || tell.send(watch.await_end()));
        assert!(told.recv_timeout(Duration::from_millis(50)).is_err());
        drop(writer);
        assert!(told.recv().unwrap());
        let mut text = [0; 3];
        rustix::io::read(&reader, &mut text).unwrap();
        assert_eq!(&text, b"for");
    }

    #[test]
    fn a_parent_that_has_gone_before_is_noticed_and_nothing_to_watch_is_no_end() {
        let stranger = Pid::from_raw(i32::MAX);
        assert!(HostWatch { parent: stranger, lifeline: None }.await_end());
        assert!(!HostWatch { parent: None, lifeline: None }.await_end());
    }
}
