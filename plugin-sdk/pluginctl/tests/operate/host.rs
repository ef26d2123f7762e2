//! A host in a process of its own, and `pluginctl` beside it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::process::Signal;

use crate::support::{Place, Ran};

/// A container, as far as processes see it.
const CONTAINER: [&str; 4] = ["--pid", "--fork", "--mount-proc", "--kill-child"];

/// Whether there can be one here.
pub(crate) fn has_containers() -> bool {
    Command::new("unshare").args(CONTAINER).arg("true").output().is_ok_and(|ran| ran.status.success())
}

/// Where hosts keep their directories. `pluginctl` run in it finds them, and no others.
pub(crate) struct Machine(Place);

/// A host with supervised plugins; see `tests/sample/src/bin/supervised-host.rs`.
pub(crate) struct Host {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let machine = Self(Place::new());
        for name in ["cache-plugin", "new-plugin"] {
            let link = machine.path().join(name);
            std::os::unix::fs::symlink(e2e::binary("sample-plugin"), link).expect("it can be made");
        }
        fs::create_dir(machine.run_dir()).expect("it can be made");
        let no_plugin = machine.path().join("no-plugin");
        fs::write(&no_plugin, "text").expect("it can be written");
        fs::set_permissions(&no_plugin, fs::Permissions::from_mode(0o755)).expect("it is ours");
        machine
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Where its hosts keep their directories.
    fn run_dir(&self) -> PathBuf {
        self.path().join("run")
    }

    /// The sample plugin under this name.
    pub(crate) fn plugin(&self, name: &str) -> String {
        format!("{name}={}", self.path().join("cache-plugin").display())
    }

    /// Starts a host and waits until its plugins serve.
    pub(crate) fn start<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Host {
        self.start_with(Command::new(e2e::binary("supervised-host")), args)
    }

    /// Starts a host that is process 1, as in a container, and waits until its plugins serve.
    pub(crate) fn start_in_container<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Host {
        let mut command = Command::new("unshare");
        command.args(CONTAINER).arg(e2e::binary("supervised-host"));
        self.start_with(command, args)
    }

    fn start_with<S: AsRef<str>>(&self, mut command: Command, args: impl IntoIterator<Item = S>) -> Host {
        command
            .args(args.into_iter().map(|arg| arg.as_ref().to_owned()))
            .env("XDG_RUNTIME_DIR", self.run_dir())
            .env("TMPDIR", self.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = e2e::start(&mut command);
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut host = Host { child, stdin, stdout };
        assert_eq!(host.line(), "ready");
        host
    }

    /// A command that finds the hosts of this machine and knows nothing of the test's own environment.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = self.0.command(line.split_whitespace());
        self.prepare(&mut command);
        command
    }

    fn prepare(&self, command: &mut Command) {
        // Others may have hosts in /tmp.
        command.env("PLUGINCTL_RUNTIME_DIR", self.run_dir().join("plugin-hosts"));
        for name in ["PLUGINCTL_HOST", "PLUGINCTL_SOCKET", "NO_COLOR", "CLICOLOR_FORCE"] {
            command.env_remove(name);
        }
    }

    /// Starts `pluginctl`, with pipes for all that it reads and writes.
    pub(crate) fn begin(&self, line: &str) -> Child {
        self.begin_with(self.command(line))
    }

    pub(crate) fn begin_with(&self, mut command: Command) -> Child {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        e2e::start(&mut command)
    }

    pub(crate) fn finish(&self, child: Child) -> Ran {
        self.0.finish(child)
    }

    /// Runs `pluginctl` until it ends.
    pub(crate) fn run(&self, line: &str) -> Ran {
        self.finish(self.begin(line))
    }

    /// The control sockets of its hosts.
    pub(crate) fn sockets(&self) -> Vec<PathBuf> {
        let hosts = fs::read_dir(self.run_dir().join("plugin-hosts")).into_iter().flatten().flatten();
        hosts.map(|host| host.path().join("control")).filter(|socket| socket.exists()).collect()
    }
}

impl Host {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it do something, and waits until it is done.
    pub(crate) fn tell(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("it is open");
        writeln!(stdin, "{line}").expect("the host reads");
        assert_eq!(self.line(), "done");
    }

    /// Has it end in order.
    pub(crate) fn end(mut self) {
        drop(self.stdin.take());
        let status = e2e::process::wait_for_exit(&mut self.child, "the host to end");
        assert!(status.success(), "{status}");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("it is text");
        line.trim_end().to_owned()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        e2e::process::signal(self.child.id(), Signal::KILL);
        let _status = self.child.wait();
    }
}
