//! Signals. The first asks for an orderly end, in which the plugin is stopped; the second does not wait for it.

use std::fmt;
use std::io;

use tokio::signal::unix::{self, SignalKind};
use tokio::sync::watch;

/// A signal that ends this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Interrupt,
    Terminate,
    Hangup,
}

impl Signal {
    /// As a shell shows a process that a signal has ended: 128 and its number.
    pub(crate) fn exit_code(self) -> u8 {
        128 + match self {
            Self::Hangup => 1,
            Self::Interrupt => 2,
            Self::Terminate => 15,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
            Self::Hangup => "SIGHUP",
        })
    }
}

/// The signals as they come.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    /// From now on signals no longer end the process by themselves.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            hangup: unix::signal(SignalKind::hangup())?,
        })
    }

    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.hangup.recv() => Signal::Hangup,
        }
    }
}

/// What the work looks at, to know that it has to end.
#[derive(Debug)]
pub(crate) struct Stop(watch::Receiver<Option<Signal>>);

impl Stop {
    /// A stop, and the sender that tells of the signal.
    pub(crate) fn new() -> (watch::Sender<Option<Signal>>, Self) {
        let (sender, receiver) = watch::channel(None);
        (sender, Self(receiver))
    }

    /// Does `work` unless a signal comes first; then `work` is dropped.
    pub(crate) async fn or<T>(&self, work: impl Future<Output = T>) -> Result<T, Signal> {
        let mut told = self.0.clone();
        let signal = async {
            match told.wait_for(Option::is_some).await.ok().and_then(|signal| *signal) {
                Some(signal) => signal,
                // The sender has gone: no signal will be told of any more.
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            signal = signal => Err(signal),
            done = work => Ok(done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_goes_on_until_a_signal_comes() {
        let (sender, stop) = Stop::new();
        assert_eq!(stop.or(async { 1 }).await, Ok(1));
        sender.send_replace(Some(Signal::Terminate));
        assert_eq!(stop.or(std::future::pending::<()>()).await, Err(Signal::Terminate));
        assert_eq!(Signal::Terminate.exit_code(), 143);
    }
}
