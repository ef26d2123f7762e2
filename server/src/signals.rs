//! The signals that stop the server: the first one gently, a second one at once.
//!
//! SIGHUP comes when the terminal is closed, often twice, from the shell and from the kernel; so it never means "at
//! once". Under `nohup` it is left ignored.

use std::{fs, future, io};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals, heard from when this is made.
pub(crate) struct Signals {
    /// `None` if whoever started us wants it ignored.
    hangup: Option<Signal>,
    interrupt: Signal,
    terminate: Signal,
}

/// A signal that ends the server without waiting for anything.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AtOnce {
    Interrupt,
    Terminate,
}

impl AtOnce {
    /// As a shell shows a process that a signal has ended: 128 and its number.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        let hangup = if is_hangup_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { hangup, interrupt, terminate })
    }

    /// Waits for any of them.
    pub(crate) async fn stop(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(signal) => signal.recv().await,
                None => future::pending().await,
            }
        };
        tokio::select! {
            _ = hangup => (),
            _ = self.interrupt.recv() => (),
            _ = self.terminate.recv() => (),
        }
    }

    /// Waits for one of those that somebody has sent on purpose.
    pub(crate) async fn stop_at_once(&mut self) -> AtOnce {
        tokio::select! {
            _ = self.interrupt.recv() => AtOnce::Interrupt,
            _ = self.terminate.recv() => AtOnce::Terminate,
        }
    }
}

/// Where `/proc` does not say, it is taken for not ignored.
fn is_hangup_ignored() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores_hangup(&status))
}

/// Whether the mask of ignored signals in a `/proc/PID/status` has signal 1, which is its lowest bit.
fn ignores_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        for (status, expected) in [
            ("Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001000\n", false),
            ("Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000000\n", true),
            ("SigIgn:\tzz\n", false),
            ("", false),
        ] {
            assert_eq!(ignores_hangup(status), expected, "{status:?}");
        }
    }
}
