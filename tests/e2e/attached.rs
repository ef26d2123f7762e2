//! A cache that is a service of its own: servers attach to it, do without it while it is away, and share it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use e2e::load::Load;
use e2e::process::{self, Signal};
use e2e::wait::wait_until;
use e2e::{Server, binary, start};
use tempfile::TempDir;

/// A cache that runs as a service, in a place that stays when it is restarted. Dropping it kills it.
struct Service {
    child: Child,
    directory: TempDir,
}

impl Service {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory can be made");
        Self { child: listen(&directory), directory }
    }

    /// The flag for servers that are to use it.
    fn flag(&self) -> String {
        flag(&self.directory)
    }

    fn kill(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it can be waited for");
    }

    fn start_again(&mut self) {
        self.child = listen(&self.directory);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

fn listen(directory: &TempDir) -> Child {
    let mut command = Command::new(binary("fib-cache-memory"));
    command.arg(format!("--listen=unix:{}", socket(directory).display()));
    start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
}

fn socket(directory: &TempDir) -> PathBuf {
    directory.path().join("cache.sock")
}

fn flag(directory: &TempDir) -> String {
    format!("--cache-plugin-attach=unix:{}", socket(directory).display())
}

#[test]
fn restarts_of_the_service_under_load_cost_no_answer() {
    let mut service = Service::start();
    let server = Server::start_for_load([service.flag(), "--plugin-backoff=50ms".to_owned()]);
    let load = Load::start(server.address(), 16);
    for _ in 0..3 {
        let before = load.answered();
        wait_until("answers with the service", || load.answered() > before + 200);
        service.kill();
        wait_until("its end to be seen", || server.plugin_state() != "serving");
        let before = load.answered();
        wait_until("answers without the service", || load.answered() > before + 200);
        service.start_again();
        wait_until("the service to be used again", || server.plugin_state() == "serving");
    }
    load.stop().is_flawless();
    server.wait_for_hit(25);
}

#[test]
fn service_that_is_away_for_long_is_used_when_it_is_there() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let server = Server::start([flag(&directory), "--plugin-backoff=10ms".to_owned()]);
    // Many more than what a plugin that cannot be started is given.
    wait_until("many attempts", || server.log().events("start-failed") > 20);
    assert_eq!(server.fib(10).cache_status(), "fib; fwd=bypass; detail=unavailable");
    let _service = Service { child: listen(&directory), directory };
    server.wait_for_hit(10);
}

#[test]
fn servers_share_a_service_and_leave_it_running() {
    let service = Service::start();
    let [mut first, second] = [0, 1].map(|_| Server::start_with_plugin([service.flag()]));
    first.wait_for_hit(30);
    assert!(second.fib(30).cache_status().starts_with("fib; hit"), "what one knows the other knows");
    assert_eq!(second.calculations(), 0);
    first.signal(Signal::TERM);
    assert_eq!(first.wait_for_exit().code(), Some(0));
    assert!(process::is_running(service.child.id()));
    second.wait_for_hit(30);
}

#[test]
fn service_is_not_the_servers_to_exchange() {
    let service = Service::start();
    let server = Server::start_with_plugin([service.flag()]);
    let (said, code) = server.pluginctl("reload");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("not this host's"), "{said}");
    server.order("restart");
    server.wait_for_hit(11);
    assert!(process::is_running(service.child.id()), "a restart only attaches to it again");
}
