//! A plugin that misbehaves on request, for the tests of hosts: of what they make of a plugin that is broken.
//!
//! It does by hand, and wrong where it is asked to, what any go-plugin compatible plugin does. It shares no code with
//! `plugin-sdk`, so that a mistake that both halves of the SDK agree on cannot hide from it: the handshake is
//! written out, gRPC is made from HTTP/2.
//!
//! Cargo builds no program of a dependency. The host's own package has one instead, of three lines, as
//! `examples/rogue.rs`; `cargo test` builds examples (`cargo test --test FILE` does not), and `plugin_testkit::program("rogue")`
//! finds them:
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     plugin_rogue::main()
//! }
//! ```
//!
//! For hosts in other languages there is the binary `plugin-rogue`. Either way the first argument says what is wrong,
//! as `name` or `name=value`:
//!
//! | argument | what the plugin does |
//! |---|---|
//! | `ok`, or none | nothing wrong: answers every method with an empty message |
//! | `exit-before-handshake=CODE` | a reason on stderr, then the end with this exit status |
//! | `rubbish`, `half-line`, `empty-line`, `bad-utf8`, `junk-70k` | says that instead of a handshake line, and stays |
//! | `core-version=X`, `app-version=X`, `network=X`, `netrpc`, `unasked-cert` | a line with that in it, and stays |
//! | `no-listen` | a good line, and no socket |
//! | `close-stdout`, `silent` | no line; the end of stdout, or not even that |
//! | `crash-after-handshake` | a good line, then exit status 7 |
//! | `deaf` | a good line; takes connections and never answers |
//! | `two-lines-of-log-first` | log lines on stdout before a good line |
//! | `not-serving`, `no-health` | serves with health NOT_SERVING, without the health service |
//! | `ignore-term` | serves; heeds neither `Shutdown` nor SIGTERM |
//! | `fork-grandchild` | serves; a child of its own keeps its stdout and stderr open |
//! | `flood-stderr`, `flood-stdout` | serves, and writes megabytes, in lines of up to one |
//! | `slow=MILLISECONDS`, `hang` | each call takes so long, or for ever |
//! | `status=NUMBER` | each call is answered with this gRPC status |
//! | `garbage` | each call is answered with a message that cannot be decoded |
//! | `die-after=CALLS` | exit status 9 instead of the answer to the call after so many |
//!
//! It never asks for a magic cookie unless [`Rogue::cookie`] says so, and speaks the highest version that the host offers
//! unless [`Rogue::app_version`] says which. A host whose tests need real answers gives it [`Methods`]. Whatever it does, it
//! ends by itself after three minutes, so that a test run that was killed leaves nothing for long.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "saying the wrong thing on stdout and stderr, and starting stray processes, is what this is for"
)]

mod fault;
mod handshake;
mod service;
mod stream;

use std::process::{Command, ExitCode};
use std::time::Duration;
use std::{io, thread};

use fault::{Early, Fault, Late};
use handshake::{Line, announce, say};
pub use stream::{Answers, Messages};

/// The whole of a `main`: misbehaves as the first argument says.
#[must_use]
pub fn main() -> ExitCode {
    Rogue::new(Empty).run(&argument())
}

/// The first argument, `ok` if there is none.
#[must_use]
pub fn argument() -> String {
    std::env::args().nth(1).unwrap_or_else(|| "ok".to_owned())
}

/// A rogue that fits a contract.
#[derive(Debug, Clone)]
pub struct Rogue<M> {
    methods: M,
    cookie: Option<(String, String)>,
    app_version: Option<u32>,
}

/// The methods of the application's services.
pub trait Methods: Send + Sync + 'static {
    /// Whether there is this method. If not, its calls get UNIMPLEMENTED at once, streams before they have ended.
    fn has(&self, path: &str) -> bool {
        let _ = path;
        true
    }

    /// Answers one call, of `/package.Service/Method`, with an encoded message or a status.
    fn call(&self, path: &str, message: &[u8]) -> impl Future<Output = Result<Vec<u8>, Code>> + Send;

    /// Whether this method streams in both directions, so that its calls come to [`stream`](Self::stream). By default
    /// none does.
    fn is_stream(&self, path: &str) -> bool {
        let _ = path;
        false
    }

    /// Answers one call that streams: returns when the plugin ends it, with OK or a status. The head of its answer has been
    /// sent before.
    fn stream(
        &self,
        path: &str,
        messages: Messages,
        answers: Answers,
    ) -> impl Future<Output = Result<(), Code>> + Send {
        let _ = (path, messages, answers);
        async { Err(Code::UNIMPLEMENTED) }
    }
}

/// Answers every method with an empty message, which is one of any type.
#[derive(Debug, Clone, Copy)]
pub struct Empty;

/// The number of a gRPC status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u16);

impl Code {
    /// The message could not be read.
    pub const INVALID_ARGUMENT: Self = Self(3);
    /// There is no such method.
    pub const UNIMPLEMENTED: Self = Self(12);
    /// Something is broken.
    pub const INTERNAL: Self = Self(13);
}

impl Methods for Empty {
    async fn call(&self, _path: &str, _message: &[u8]) -> Result<Vec<u8>, Code> {
        Ok(Vec::new())
    }
}

impl<M: Methods> Rogue<M> {
    /// One that does well when it is not asked to misbehave, with these methods.
    #[must_use]
    pub fn new(methods: M) -> Self {
        Self { methods, cookie: None, app_version: None }
    }

    /// Refuses to start without this variable in its environment, as plugins do.
    #[must_use]
    pub fn cookie(mut self, key: &str, value: &str) -> Self {
        self.cookie = Some((key.to_owned(), value.to_owned()));
        self
    }

    /// Announces this application protocol version, whatever the host offers.
    #[must_use]
    pub fn app_version(mut self, version: u32) -> Self {
        self.app_version = Some(version);
        self
    }

    /// Misbehaves as `argument` says, one of those above. Exit code 1: the cookie is missing; 64: there is no such
    /// argument; 70: it cannot even misbehave.
    #[must_use]
    pub fn run(self, argument: &str) -> ExitCode {
        thread::spawn(end_of_life);
        // Started by another, which may run with any argument.
        let argument = if crate::argument() == GRANDCHILD { GRANDCHILD } else { argument };
        if let Some((key, value)) = self.cookie.as_ref().filter(|_| argument != GRANDCHILD)
            && std::env::var_os(key).is_none_or(|given| given != value.as_str())
        {
            eprintln!("this is a plugin, and {key} is not what its host sets");
            return ExitCode::FAILURE;
        }
        let good = Line::good(self.app_version.unwrap_or_else(handshake::highest_offered));
        let Some(fault) = Fault::parse(argument, &good) else {
            eprintln!("rogue plugin: unknown mode {argument:?}");
            return ExitCode::from(64);
        };
        let done = match fault {
            Fault::Early(early) => misstart(early, &good),
            Fault::Late(late) => service::run(late, &good, self.methods),
        };
        match done {
            Ok(code) => code,
            Err(error) => {
                eprintln!("rogue plugin: {error}");
                ExitCode::from(70)
            }
        }
    }
}

/// The argument of a process that does nothing but hold what it has inherited.
const GRANDCHILD: &str = "grandchild";

/// Does what `fault` says instead of starting.
fn misstart(fault: Early, good: &Line) -> io::Result<ExitCode> {
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
            announce(good)?;
            eprintln!("fatal: the index is damaged");
            drop(listener);
            return Ok(ExitCode::from(7));
        }
        Early::Deaf => return deaf(good),
    }
    linger()
}

/// Accepts connections and never says a word on them.
fn deaf(good: &Line) -> io::Result<ExitCode> {
    let listener = handshake::bind()?;
    announce(good)?;
    let mut held = Vec::new();
    loop {
        held.push(listener.accept()?);
    }
}

/// Starts a process that holds this one's stdout and stderr open for as long as it lives.
fn fork_grandchild() -> io::Result<()> {
    Command::new(std::env::current_exe()?).arg(GRANDCHILD).spawn().map(drop)
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
