//! How a plugin that this host has started runs: what a start needs to know of it, and no more.

use std::io;
use std::process::Command;
use std::time::Duration;

use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::Exit;
use super::guest::Guest;
use super::pipe::Pipe;
use super::plugin::Owner;
use super::runner::{PluginCommand, Runner};
use crate::process::Process;
use crate::transport::{Peer, Translation};

/// A plugin that has just been started, with what it writes.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) run: Run,
    pub(super) stdout: Pipe,
    pub(super) stderr: Pipe,
}

impl Begun {
    /// Starts a child. `needed` is dropped when it has started, `kept` when it has ended.
    pub(super) async fn child(
        command: Command,
        needed: impl Send + 'static,
        kept: impl Send + 'static,
    ) -> io::Result<Self> {
        let started = Process::start(command, needed, kept).await?;
        Ok(Self {
            stdout: Pipe::new(pipe::Receiver::from_owned_fd(started.stdout)?),
            stderr: Pipe::new(pipe::Receiver::from_owned_fd(started.stderr)?),
            run: Run::Child(started.process),
        })
    }

    /// Has a runner start it. `kept` is dropped when it has ended.
    pub(super) async fn guest(
        runner: &dyn Runner,
        command: PluginCommand,
        kept: impl Send + 'static,
    ) -> io::Result<Self> {
        let started = runner.start(command).await?;
        let run = Run::Guest(Guest::launched(started.running, kept));
        Ok(Self { run, stdout: started.stdout, stderr: started.stderr })
    }
}

/// How a plugin runs. Dropping it kills the plugin.
#[derive(Debug)]
pub(super) enum Run {
    /// As a child of this host.
    Child(Process),
    /// By a runner of the application's.
    Guest(Guest),
}

impl Run {
    pub(super) fn pid(&self) -> Option<u32> {
        match self {
            Self::Child(process) => Some(process.pid()),
            Self::Guest(_) => None,
        }
    }

    pub(super) async fn exited(&self) -> Exit {
        match self {
            Self::Child(process) => process.exited().await,
            Self::Guest(guest) => guest.exited().await,
        }
    }

    pub(super) fn exit(&self) -> watch::Receiver<Option<Exit>> {
        match self {
            Self::Child(process) => process.exit(),
            Self::Guest(guest) => guest.exit(),
        }
    }

    pub(super) fn kill(&self) {
        match self {
            Self::Child(process) => process.kill(),
            Self::Guest(guest) => guest.kill(),
        }
    }

    /// Who has to listen on its socket. Where another process starts it, its number is not known.
    pub(super) fn peer(&self) -> Peer {
        match self {
            Self::Child(process) => Peer::Tree(process.pid()),
            Self::Guest(_) => Peer::SameUser,
        }
    }

    pub(super) fn translation(&self) -> Translation {
        match self {
            Self::Child(_) => Translation::default(),
            Self::Guest(guest) => guest.translation(),
        }
    }

    /// What there is to say of a start that failed, beside what the plugin has said itself.
    pub(super) async fn diagnose(&self) -> Option<String> {
        match self {
            Self::Child(_) => None,
            Self::Guest(guest) => guest.diagnose().await,
        }
    }

    pub(super) fn into_owner(self, grace: Duration) -> Owner {
        match self {
            Self::Child(process) => Owner::Child { process, grace },
            Self::Guest(guest) => Owner::Guest { guest, grace },
        }
    }
}
