//! One child process and everything in its process group, from spawn to reaping.
//!
//! Each child has a thread that starts it and then does nothing but wait for it. The exit is thus seen as soon as it
//! happens, whoever still holds the child's pipes, and without a run time. The thread lives exactly as long as the
//! child, as a [parent-death signal](super::parent_death) needs.
//!
//! The child leads a process group of its own. When it ends, what is left of the group is killed *before* the child is
//! reaped: until then its id, and so the group's, cannot be given to another process. What has left the group is found by
//! its environment, see [`marked`](super::marked).
//!
//! Looking for that takes milliseconds, and more the more processes there are. A stop has the time, and is complete only
//! then. A crash has not, since a restart waits for the news of it: there the look comes afterwards.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use tokio::sync::{oneshot, watch};

use super::{Exit, ExitKind, StopStep, end_marked};
use crate::handshake::UNIX_SOCKET_DIR;

/// Enough for `Command::spawn` and `wait`, which need a few KiB.
const THREAD_STACK_BYTES: usize = 128 * 1024;

/// A started child with the pipes that lead to it.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) process: Process,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// Handle of a running or ended child. Dropping it kills the group; the waiting thread reaps.
#[derive(Debug)]
pub(crate) struct Process {
    shared: Arc<Shared>,
    started: Instant,
    exit: watch::Receiver<Option<Exit>>,
}

#[derive(Debug)]
struct Shared {
    pid: Pid,
    /// Held across a signal and across reaping, never longer, so that no signal goes to an id that was given away.
    life: Mutex<Life>,
}

#[derive(Debug, Clone, Copy)]
struct Life {
    state: State,
    /// How far the host has gone to end it.
    step: StopStep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Reaped,
}

impl Process {
    /// Starts the command in a process group of its own, with pipes for stdout and stderr. The other end of its stdin, if
    /// that is a pipe, stays open as long as the child is there.
    ///
    /// `needed` is dropped when the child has been started, even if nobody waits for that any more: it holds what the command
    /// only names, such as a descriptor. `kept` is dropped when the child has been reaped, before its exit is told.
    pub(crate) async fn start(
        mut command: Command,
        needed: impl Send + 'static,
        kept: impl Send + 'static,
    ) -> io::Result<Started> {
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (tell, told) = oneshot::channel();
        let entry = Census::enter();
        std::thread::Builder::new()
            .name("plugin-wait".to_owned())
            .stack_size(THREAD_STACK_BYTES)
            .spawn(move || attend(command, needed, kept, tell, &entry))?;
        told.await.unwrap_or_else(|_| Err(io::Error::other("the thread that starts the plugin has ended")))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.shared.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// Waits until the child is gone and reaped. May be called any number of times.
    pub(crate) async fn exited(&self) -> Exit {
        let mut exit = self.exit.clone();
        let seen = exit.wait_for(Option::is_some).await.ok().and_then(|exit| exit.clone());
        // The thread publishes the exit before it ends, and nothing in it panics.
        seen.unwrap_or_else(|| self.unreaped())
    }

    /// The exit, once it has happened.
    pub(crate) fn exit(&self) -> watch::Receiver<Option<Exit>> {
        self.exit.clone()
    }

    /// Notes that the child was asked to end.
    pub(crate) fn note_shutdown_asked(&self) {
        self.shared.advance(StopStep::Shutdown, |_| Ok(()));
    }

    /// Sends SIGTERM to the child alone: its own children are its business as long as it can act.
    pub(crate) fn terminate(&self) {
        self.shared.advance(StopStep::Terminate, |pid| rustix::process::kill_process(pid, Signal::TERM));
    }

    /// Sends SIGKILL to the whole group.
    pub(crate) fn kill(&self) {
        self.shared.advance(StopStep::Kill, kill_group);
    }

    /// What is to be said of a child that SIGKILL did not end.
    pub(crate) fn unreaped(&self) -> Exit {
        Exit { status: ExitKind::Unreaped, after: StopStep::Kill, uptime: self.started.elapsed() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Shared {
    fn life(&self) -> MutexGuard<'_, Life> {
        // The state is one word, whole even if a holder panicked.
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn advance(&self, to: StopStep, act: impl FnOnce(Pid) -> rustix::io::Result<()>) {
        let mut life = self.life();
        if life.state == State::Running {
            life.step = life.step.max(to);
            // It fails only for a process that has ended already, which is what was wanted.
            let _ = act(self.pid);
        }
    }
}

fn kill_group(leader: Pid) -> rustix::io::Result<()> {
    rustix::process::kill_process_group(leader, Signal::KILL)
}

/// The children of this process, for its end: a thread that is still waiting for one ends with the process, and would
/// leave the child's directory behind.
static CENSUS: Census = Census { children: Mutex::new(Vec::new()), left: Condvar::new() };

struct Census {
    /// One for each waiting thread, from before it starts; empty until the child has started.
    children: Mutex<Vec<Arc<OnceLock<Arc<Shared>>>>>,
    left: Condvar,
}

/// A thread's place in the census, until it has cleaned up.
struct Entry(Arc<OnceLock<Arc<Shared>>>);

impl Census {
    fn enter() -> Entry {
        let child = Arc::default();
        CENSUS.children().push(Arc::clone(&child));
        Entry(child)
    }

    fn children(&self) -> MutexGuard<'_, Vec<Arc<OnceLock<Arc<Shared>>>>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        CENSUS.children().retain(|child| !Arc::ptr_eq(child, &self.0));
        CENSUS.left.notify_all();
    }
}

/// Kills every plugin that this process has started and that is still there, all at once, and waits until they and
/// their socket directories are gone. Gives the number of those that were not within `limit`.
///
/// For the end of a host, after the polite [`Plugin::shutdown`](crate::host::Plugin::shutdown)s: it also waits for
/// plugins whose handle, or whose start, was only dropped. Blocks the thread. go-plugin's `CleanupClients`.
pub fn kill_all(limit: Duration) -> usize {
    let begun = Instant::now();
    let mut children = CENSUS.children();
    loop {
        for child in children.iter().filter_map(|child| child.get()) {
            child.advance(StopStep::Kill, kill_group);
        }
        let rest = limit.saturating_sub(begun.elapsed());
        if children.is_empty() || rest.is_zero() {
            return children.len();
        }
        // A child that is being started at this moment is found in the next round at the latest.
        let round = rest.min(Duration::from_millis(10));
        (children, _) = CENSUS.left.wait_timeout(children, round).unwrap_or_else(PoisonError::into_inner);
    }
}

/// The thread's whole life: start, tell, wait, sweep the group, reap, sweep what has left it, publish, bury.
fn attend(
    command: Command,
    needed: impl Send,
    kept: impl Send,
    tell: oneshot::Sender<io::Result<Started>>,
    entry: &Entry,
) {
    let (publish, exit) = watch::channel(None);
    let marker = socket_dir(&command);
    let spawned = spawn(command, exit);
    drop(needed);
    let (mut child, started) = match spawned {
        Ok(pair) => pair,
        Err(error) => {
            // Before anybody hears of the failure.
            drop(kept);
            let _ = tell.send(Err(error));
            return;
        }
    };
    let shared = Arc::clone(&started.process.shared);
    let since = started.process.started;
    let dirs: Vec<_> = marker.into_iter().collect();
    let _ = entry.0.set(Arc::clone(&shared));
    // If nobody waits for the start any more, the handle comes back and its drop kills the group.
    drop(tell.send(Ok(started)));
    let waited = await_exit(shared.pid);
    let exit = {
        let mut life = shared.life();
        let after = std::mem::replace(&mut life.state, State::Reaped);
        debug_assert_eq!(after, State::Running, "only this thread reaps");
        let status = match waited {
            Ok(()) => {
                let _ = kill_group(shared.pid);
                child.wait().map_or(ExitKind::Unknown, ExitKind::from)
            }
            // Where SIGCHLD is ignored, the kernel reaps: the id may be another process's by now.
            Err(_) => ExitKind::Unknown,
        };
        Exit { status, after: life.step, uptime: since.elapsed() }
    };
    let was_asked = exit.after > StopStep::Nothing;
    if was_asked {
        end_marked(&dirs);
    }
    drop(kept);
    publish.send_replace(Some(exit));
    if !was_asked {
        end_marked(&dirs);
    }
    bury_group(shared.pid);
}

/// Reaps what was left of the group, which was killed, where this process is the one that orphans are given to: process 1 of
/// a container, or a subreaper. Anywhere else it has no such children. While there are any, the number is theirs.
fn bury_group(leader: Pid) {
    loop {
        match rustix::process::waitid(WaitId::Pgid(Some(leader)), WaitIdOptions::EXITED) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// The directory by which the processes of this child are known.
fn socket_dir(command: &Command) -> Option<PathBuf> {
    let (_, value) = command.get_envs().find(|(name, _)| *name == UNIX_SOCKET_DIR)?;
    value.map(PathBuf::from)
}

fn spawn(mut command: Command, exit: watch::Receiver<Option<Exit>>) -> io::Result<(Child, Started)> {
    let started = Instant::now();
    let mut child = execute(&mut command)?;
    let pid = Pid::from_child(&child);
    let shared =
        Arc::new(Shared { pid, life: Mutex::new(Life { state: State::Running, step: StopStep::Nothing }) });
    let process = Process { shared, started, exit };
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io::Error::other("the plugin was started without pipes"));
    };
    Ok((child, Started { process, stdout: stdout.into(), stderr: stderr.into() }))
}

/// How long an executable may be open for writing. Whoever has just written one and closed it has done what he can, but a child
/// that another thread makes at that time has the descriptor, too, until it executes its own program (golang/go#22315).
const BUSY: Duration = Duration::from_secs(1);

/// Between two attempts to start an executable that is open for writing: the kernel tells nobody that it is not any more. This
/// thread has nothing else to do.
const BUSY_LOOK: Duration = Duration::from_millis(5);

/// Starts the program, as soon as nobody has it open for writing any more.
fn execute(command: &mut Command) -> io::Result<Child> {
    let begun = Instant::now();
    loop {
        #[expect(clippy::disallowed_methods, reason = "this is the one place where plugins are started")]
        let spawned = command.spawn();
        match spawned {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && begun.elapsed() < BUSY => {
                std::thread::sleep(BUSY_LOOK);
            }
            spawned => return spawned,
        }
    }
}

/// Blocks until the child has ended, and leaves it to be reaped.
fn await_exit(pid: Pid) -> rustix::io::Result<()> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    loop {
        match rustix::process::waitid(WaitId::Pid(pid), options) {
            Err(rustix::io::Errno::INTR) => {}
            waited => return waited.map(|_| ()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str) -> Started {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        Process::start(command, (), tempfile::tempdir().unwrap()).await.unwrap()
    }

    /// A program that is open for writing.
    fn open_program(dir: &std::path::Path) -> (PathBuf, std::fs::File) {
        let path = dir.join("program");
        let mut program = std::fs::File::create(&path).unwrap();
        io::Write::write_all(&mut program, b"#!/bin/sh\nexit 7\n").unwrap();
        program.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        (path, program)
    }

    #[tokio::test]
    async fn a_program_that_is_open_for_writing_is_started_once_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, program) = open_program(dir.path());
        let (mut attempts, attempt) = io::pipe().unwrap();
        let mut command = Command::new(path);
        #[expect(unsafe_code, reason = "there is no other way to see an attempt that fails")]
        // SAFETY: it writes to a descriptor, and does nothing else.
        unsafe {
            std::os::unix::process::CommandExt::pre_exec(&mut command, move || {
                io::Write::write_all(&mut &attempt, b".")
            });
        }
        let starting = tokio::spawn(Process::start(command, (), dir));
        // With the second attempt the first has failed.
        let both = move || io::Read::read_exact(&mut attempts, &mut [0; 2]).map(|()| attempts);
        let _attempts = tokio::task::spawn_blocking(both).await.unwrap().unwrap();
        drop(program);
        let exit = starting.await.unwrap().unwrap().process.exited().await;
        assert_eq!(exit.status, ExitKind::Code(7));
    }

    #[tokio::test]
    async fn a_program_that_stays_open_for_writing_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let (path, _program) = open_program(dir.path());
        let error = Process::start(Command::new(path), (), dir).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ExecutableFileBusy);
    }

    #[tokio::test]
    async fn the_exit_is_seen_although_a_grandchild_holds_the_pipes() {
        let started = sh("sleep 1000 & exit 3").await;
        let exit = started.process.exited().await;
        assert_eq!((exit.status, exit.after), (ExitKind::Code(3), StopStep::Nothing));
        // Its end of the pipes is closed as well: the group was killed.
        let mut output = Vec::new();
        io::Read::read_to_end(&mut std::fs::File::from(started.stdout), &mut output).unwrap();
    }

    #[tokio::test]
    async fn dropping_the_handle_kills_the_group_and_removes_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_path_buf();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "sleep 1000"]);
        let started = Process::start(command, (), dir).await.unwrap();
        let exit = started.process.exit.clone();
        drop(started.process);
        let seen = exit.clone().wait_for(Option::is_some).await.unwrap().clone().unwrap();
        assert_eq!(seen.status, ExitKind::Signal { number: 9, core_dumped: false });
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stopped_process_is_killed() {
        let started = sh("kill -STOP $$").await;
        let stat = format!("/proc/{}/stat", started.process.pid());
        while !std::fs::read_to_string(&stat).unwrap().contains(") T ") {
            tokio::task::yield_now().await;
        }
        started.process.terminate();
        started.process.kill();
        let exit = started.process.exited().await;
        assert_eq!(exit.after, StopStep::Kill);
    }

    #[tokio::test]
    async fn a_failed_start_is_an_error_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_path_buf();
        let error = Process::start(Command::new("/no/such/file"), (), dir).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(!path.exists());
    }
}
