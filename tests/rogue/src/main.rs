//! A cache plugin that misbehaves on request.
//!
//! The first argument is the mode, `name` or `name=value`; [`Fault`] lists them all. It shares no code with
//! `plugin-sdk`: the handshake is in [`handshake`], gRPC is made by hand from HTTP/2 in [`service`]. A mistake
//! that both halves of the SDK agree on cannot hide from it.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "saying the wrong thing on stdout and stderr, and starting stray processes, is what this binary is for"
)]

mod fault;
mod handshake;
mod service;

use std::process::{Command, ExitCode};
use std::time::Duration;
use std::{io, thread};

use fault::{Early, Fault, Late};
use handshake::{Line, announce, say};

fn main() -> ExitCode {
    let argument = std::env::args().nth(1).unwrap_or_else(|| "ok".to_owned());
    let Some(fault) = Fault::parse(&argument) else {
        eprintln!("rogue-plugin: unknown mode {argument:?}");
        return ExitCode::from(64);
    };
    thread::spawn(end_of_life);
    let done = match fault {
        Fault::Early(early) => misstart(early),
        Fault::Late(late) => service::run(late),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("rogue-plugin: {error}");
            ExitCode::from(70)
        }
    }
}

/// Does what `fault` says instead of starting.
fn misstart(fault: Early) -> io::Result<ExitCode> {
    match fault {
        Early::Exit(status) => {
            eprintln!("the cache directory is not mounted");
            return Ok(ExitCode::from(status));
        }
        Early::Say(text) => say(text)?,
        Early::Junk { bytes } => say([&vec![b'x'; bytes][..], b"\n"].concat())?,
        Early::Announce(line) => announce(&line)?,
        Early::CloseStdout => rustix::stdio::dup2_stdout(std::fs::File::open("/dev/null")?)?,
        Early::Silent => {}
        Early::Crash => {
            let listener = handshake::bind()?;
            announce(&Line::default())?;
            eprintln!("fatal: the index is damaged");
            drop(listener);
            return Ok(ExitCode::from(7));
        }
        Early::Deaf => return deaf(),
    }
    linger()
}

/// Accepts connections and never says a word on them.
fn deaf() -> io::Result<ExitCode> {
    let listener = handshake::bind()?;
    announce(&Line::default())?;
    let mut held = Vec::new();
    loop {
        held.push(listener.accept()?);
    }
}

/// Starts a process that holds this one's stdout and stderr open for as long as it lives.
fn fork_grandchild() -> io::Result<()> {
    Command::new(std::env::current_exe()?).arg("grandchild").spawn().map(drop)
}

/// Waits to be killed.
fn linger() -> io::Result<ExitCode> {
    loop {
        thread::park();
    }
}

/// Ends the process after longer than any test takes, so that a killed test run leaves nothing for long.
fn end_of_life() {
    thread::sleep(Duration::from_secs(180));
    std::process::exit(71);
}

/// Does what `fault` says beside serving.
fn begin(fault: Late) -> io::Result<()> {
    match fault {
        Late::ForkGrandchild => fork_grandchild()?,
        Late::FloodStderr => drop(thread::spawn(|| {
            for number in 0..20_000 {
                eprintln!("{number} the sky is falling, the sky is falling, the sky is falling");
            }
            eprint!("{}", "x".repeat(1 << 20));
        })),
        Late::FloodStdout => drop(thread::spawn(|| {
            for _ in 0..100 {
                println!("{}", "x".repeat(70_000));
            }
        })),
        _ => {}
    }
    Ok(())
}
