//! Our host, and go-plugin's, run a plugin on grpcio, gRPC's implementation in C++, that was written from the manual by
//! hand.
#![allow(clippy::unwrap_used, reason = "all of it is tests, which clippy does not see behind the macro")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use e2e::wait::wait_until;
use interop::{Go, Greeter, Release, seen};
use plugin_sdk::host::{Contract, Environment, ExitKind, Launch, LaunchError, Plugin, Security, StopStep};
use plugin_sdk::{LineProblem, MagicCookie, one_line};
use rustix::process::Signal;
use sample_plugin::sample_client::SampleClient;
use sample_plugin::sample_server::SampleServer;
use tokio_stream::StreamExt;
use tonic::Code;
use tonic::service::Routes;
use tonic::transport::Channel;
use tracing::Level;

/// The plugin's sources and the list of what it needs.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python");

/// A Python with all that the plugin needs, in a virtual environment that the first test makes.
struct Python {
    interpreter: PathBuf,
}

impl Python {
    /// `None` where there is no Python, or an old one. `test` is who asks.
    fn get(test: &str) -> Option<&'static Self> {
        static READY: OnceLock<Option<Python>> = OnceLock::new();
        let python = READY.get_or_init(|| is_installed().then(Self::prepare)).as_ref();
        if python.is_none() {
            interop::skip(test, "Python 3.10 or later");
        }
        python
    }

    fn prepare() -> Self {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is in the target folder");
        let folder = target.join("interop-python");
        fs::create_dir_all(&folder).expect("the target folder can be written to");
        // Other test processes wait here until the file is closed.
        let lock = File::create(folder.join("lock")).expect("the target folder can be written to");
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
            .expect("a new file can be locked");

        let wanted = fs::read(source("requirements.txt")).expect("the list is there");
        let (installed, venv) = (folder.join("installed.txt"), folder.join("venv"));
        let interpreter = venv.join("bin/python");
        if fs::read(&installed).ok().as_ref() != Some(&wanted) {
            succeed(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv));
            let mut pip = Command::new(&interpreter);
            pip.args(["-m", "pip", "install", "--quiet", "-r", "requirements.txt"]).current_dir(SOURCES);
            succeed(&mut pip);
            fs::write(&installed, &wanted).expect("the target folder can be written to");
        }
        Self { interpreter }
    }

    fn launch(&self, security: Security) -> Launch {
        self.launch_with(Contract::new(sample_plugin::cookie(), [1]), security)
    }

    fn launch_with(&self, contract: Contract, security: Security) -> Launch {
        Launch::new(&self.interpreter, contract)
            .name("python")
            .arg(source("sample_plugin.py"))
            .security(security)
    }
}

fn source(name: &str) -> PathBuf {
    Path::new(SOURCES).join(name)
}

fn is_installed() -> bool {
    let version = "import sys; sys.exit(sys.version_info < (3, 10))";
    Command::new("python3").args(["-c", version]).output().is_ok_and(|output| output.status.success())
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
}

async fn start(launch: &Launch) -> (Plugin, SampleClient<Channel>) {
    let plugin = launch.start().await.unwrap_or_else(|error| panic!("{}", one_line(&error)));
    let client = SampleClient::new(plugin.channel());
    (plugin, client)
}

fn pid(plugin: &Plugin) -> u32 {
    plugin.pid().expect("it was started here")
}

/// A module for each way to connect, and in it a test for each of the functions that are named.
macro_rules! cells {
    ($($way:ident: $security:ident { $($test:ident)* })*) => { $(
        mod $way {
            $(#[tokio::test]
            async fn $test() {
                let test = concat!("python_plugin::", stringify!($way), "::", stringify!($test));
                let Some(python) = super::Python::get(test) else { return };
                super::seen::begin();
                super::$test(python, super::Security::$security).await;
            })*
        }
    )* };
}

cells! {
    plain: Plain {
        call call_back lend stdio last_words log versions shutdown crash exception cancelled_call
        signals no_environment wrong_cookie no_multiplexing
    }
    automtls: AutoMtls { call call_back lend stdio log shutdown crash cancelled_call no_environment stranger }
}

async fn call(python: &Python, security: Security) {
    let (plugin, mut client) = start(&python.launch(security)).await;
    assert_eq!(client.who(()).await.unwrap().into_inner(), "python 1");
    let large = vec![7; 3_000_000];
    assert_eq!(client.echo(large.clone()).await.unwrap().into_inner(), large);
    let texts = ["a", "b", "c"].map(str::to_owned);
    let answers = client.chat(tokio_stream::iter(texts.clone())).await.unwrap().into_inner();
    let answers: Vec<String> = answers.map(|text| text.unwrap()).collect().await;
    assert_eq!(answers, texts);
    plugin.health().await.unwrap();
    assert!(plugin.shutdown().await.is_success());
}

async fn call_back(python: &Python, security: Security) {
    let (plugin, mut client) = start(&python.launch(security)).await;
    for expected_id in [1, 2] {
        let id = plugin.broker().next_id();
        assert_eq!(id, expected_id);
        let routes = Routes::new(SampleServer::new(Greeter));
        let _server = plugin.broker().accept_and_serve(id, routes).await.unwrap();
        assert_eq!(client.call_back(id).await.unwrap().into_inner(), b"host got from plugin");
    }
    assert!(plugin.shutdown().await.is_success());
}

async fn lend(python: &Python, security: Security) {
    let (plugin, mut client) = start(&python.launch(security)).await;
    for expected_id in [1, 2] {
        let id = client.lend(()).await.unwrap().into_inner();
        assert_eq!(id, expected_id);
        let mut borrowed = SampleClient::new(plugin.broker().dial(id).await.unwrap());
        assert_eq!(borrowed.who(()).await.unwrap().into_inner(), "python 1");
    }
    assert!(plugin.shutdown().await.is_success());
}

async fn stdio(python: &Python, security: Security) {
    let (plugin, mut client) = start(&python.launch(security)).await;
    client.print("printed in Python".to_owned()).await.unwrap();
    let line = seen::line(pid(&plugin), |line| line.message() == "printed in Python").await;
    assert_eq!((line.level, line.field("stream")), (Level::INFO, "stdout"));
    // More than a pipe holds, as one line: it comes in pieces.
    client.print("x".repeat(200_000)).await.unwrap();
    client.print("and after".to_owned()).await.unwrap();
    seen::line(pid(&plugin), |line| line.message() == "and after").await;
    assert!(plugin.shutdown().await.is_success());
}

async fn last_words(python: &Python, security: Security) {
    let (plugin, mut client) = start(&python.launch(security)).await;
    let id = pid(&plugin);
    client.print("last words".to_owned()).await.unwrap();
    assert!(plugin.shutdown().await.is_success());
    seen::line(id, |line| line.message() == "last words").await;
}

async fn log(python: &Python, security: Security) {
    let (plugin, mut client) = start(&python.launch(security)).await;
    client.log("logged in Python".to_owned()).await.unwrap();
    let line = seen::line(pid(&plugin), |line| line.message() == "logged in Python").await;
    assert_eq!(line.level, Level::WARN);
    assert_eq!((line.field("plugin"), line.field("module")), ("python", "sample"));
    assert_eq!(line.field("fields"), r#"{"answer":42}"#);
    assert!(plugin.shutdown().await.is_success());
}

async fn versions(python: &Python, security: Security) {
    for (host, served) in [(&[2, 1][..], 2), (&[5, 3, 4], 3)] {
        let contract = Contract::new(sample_plugin::cookie(), host.iter().copied());
        let (plugin, mut client) = start(&python.launch_with(contract, security.clone())).await;
        assert_eq!(plugin.app_version().get(), served);
        assert_eq!(client.who(()).await.unwrap().into_inner(), format!("python {served}"));
        plugin.shutdown().await;
    }
}

async fn shutdown(python: &Python, security: Security) {
    let (plugin, mut client) = start(&python.launch(security)).await;
    let hanging = tokio::spawn(async move { client.hang(()).await });
    let exit = plugin.shutdown().await;
    assert_eq!((exit.status, exit.after), (ExitKind::Code(0), StopStep::Shutdown));
    assert!(hanging.await.unwrap().is_err());
}

async fn crash(python: &Python, security: Security) {
    let (plugin, mut client) = start(&python.launch(security)).await;
    assert!(client.die("exit 7".to_owned()).await.is_err());
    let exit = plugin.exited().await;
    assert_eq!((exit.status, exit.after), (ExitKind::Code(7), StopStep::Nothing));
}

async fn exception(python: &Python, security: Security) {
    let (plugin, mut client) = start(&python.launch(security)).await;
    let status = client.die("panic an exception".to_owned()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Internal, "an exception"));
    // Its text is in a trailer, for which HTTP/2 libraries have little room unless they are told.
    let status = client.die(format!("panic {}", "x".repeat(100_000))).await.unwrap_err();
    assert_eq!((status.code(), status.message().len()), (Code::Internal, 100_000));
    plugin.health().await.unwrap();
    assert!(plugin.shutdown().await.is_success());
}

async fn cancelled_call(python: &Python, security: Security) {
    let (plugin, mut client) = start(&python.launch(security)).await;
    let mut request = tonic::Request::new(());
    request.set_timeout(std::time::Duration::from_millis(100));
    assert!(client.hang(request).await.is_err());
    let cancelled = tokio::time::timeout(e2e::wait::LIMIT, async {
        while client.cancelled(()).await.unwrap().into_inner() == 0 {
            tokio::task::yield_now().await;
        }
    });
    cancelled.await.unwrap();
    assert!(plugin.shutdown().await.is_success());
}

async fn signals(python: &Python, security: Security) {
    let (plugin, mut client) = start(&python.launch(security)).await;
    e2e::process::signal(pid(&plugin), Signal::INT);
    assert_eq!(client.who(()).await.unwrap().into_inner(), "python 1");
    e2e::process::signal(pid(&plugin), Signal::TERM);
    let exit = plugin.exited().await;
    assert_eq!((exit.status, exit.after), (ExitKind::Code(0), StopStep::Nothing));
}

async fn no_environment(python: &Python, security: Security) {
    let (plugin, mut client) = start(&python.launch(security).environment(Environment::Empty)).await;
    assert_eq!(client.who(()).await.unwrap().into_inner(), "python 1");
    assert_eq!(client.env("PATH".to_owned()).await.unwrap_err().code(), Code::NotFound);
    assert!(plugin.shutdown().await.is_success());
}

async fn wrong_cookie(python: &Python, security: Security) {
    let contract = Contract::new(MagicCookie::new("SAMPLE_PLUGIN", "another"), [1]);
    let error = python.launch_with(contract, security).start().await.unwrap_err();
    let LaunchError::Exited { exit, stderr_tail } = error else { panic!("{error:?}") };
    assert_eq!(exit.status, ExitKind::Code(1));
    assert!(stderr_tail.lines()[0].contains("is a plugin"), "{stderr_tail:?}");
}

async fn no_multiplexing(python: &Python, security: Security) {
    let error = python.launch(security).multiplexing(true).start().await.unwrap_err();
    let LaunchError::Handshake { problem, .. } = error else { panic!("{error:?}") };
    assert_eq!(problem, LineProblem::MultiplexingUnsupported);
}

async fn stranger(python: &Python, security: Security) {
    let (plugin, _) = start(&python.launch(security)).await;
    let mut stranger = Command::new(&python.interpreter);
    succeed(stranger.arg(source("stranger.py")).arg(plugin.address().to_string()));
    plugin.health().await.unwrap();
    assert!(plugin.shutdown().await.is_success());
}

/// fib-server and a plugin that has Get and Set only, on a gRPC library that says of itself that it lacks the rest.
#[test]
fn cache_with_the_mandatory_methods_alone_serves_fib_server() {
    serves_fib_server("cache_with_the_mandatory_methods_alone_serves_fib_server", &[], "Alone");
}

/// fib-server and a plugin that has GetMany and SetMany too, and no Pipe.
#[test]
fn cache_with_many_and_no_pipe_serves_fib_server() {
    serves_fib_server(
        "cache_with_many_and_no_pipe_serves_fib_server",
        &["--cache-plugin-arg=--many"],
        "Many",
    );
}

/// Expects that the cache in Python, with these arguments, gives hits to clients that ask at the same time, in this way.
fn serves_fib_server(test: &str, args: &[&str], way: &str) {
    let Some(python) = Python::get(&format!("python_plugin::{test}")) else { return };
    let program = [
        format!("--cache-plugin-path={}", python.interpreter.display()),
        format!("--cache-plugin-arg={}", source("cache_plugin.py").display()),
        "--cache-timeout=10s".to_owned(),
    ];
    let args = args.iter().map(|&arg| arg.to_owned());
    let server = e2e::Server::start_with_plugin(program.into_iter().chain(args));
    let load = e2e::load::Load::start(server.address(), 16);
    wait_until("answers", || load.answered() > 200);
    load.stop().is_flawless();
    assert_eq!(server.wait_for_hit(20).text(), "{\"result\":6765}\n");
    assert_eq!(server.plugin()["stats"], "unsupported");
    let found_out =
        server.log().lines().into_iter().rfind(|line| line.message().starts_with("how the cache plugin"));
    let found_out = found_out.expect("the server says what it has found out").to_string();
    assert!(
        ["gets", "sets"].iter().all(|calls| found_out.contains(&format!("{calls}: {way}"))),
        "{found_out}"
    );
}

/// What the manual says of go-plugin's hosts: all of it works, but that a P-521 certificate cannot be verified, and so
/// the host cannot be dialled with AutoMTLS.
mod go_host {
    use super::*;

    #[test]
    fn plain() {
        passes("go_host::plain", &[], &["call", "broker", "stdio", "logs", "shutdown", "kill"]);
    }

    #[test]
    fn automtls() {
        passes("go_host::automtls", &["-automtls"], &["call", "stdio", "logs", "shutdown", "kill"]);
    }

    fn passes(test: &str, way: &[&str], scenarios: &[&str]) {
        let test = format!("python_plugin::{test}");
        let (Some(python), Some(go)) = (Python::get(&test), Go::get(Release::V1_8_0, &test)) else { return };
        for scenario in scenarios {
            let mut host = Command::new(&go.host);
            host.args(way)
                .args(["-scenario", scenario])
                .arg(&python.interpreter)
                .arg(source("sample_plugin.py"));
            succeed(&mut host);
        }
    }
}

#[test]
fn a_host_that_is_killed_is_noticed_by_the_end_of_stdin() {
    let Some(python) = Python::get("python_plugin::a_host_that_is_killed") else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(interop::binary("sample-host"));
    command.arg(&python.interpreter).args(["--stdin=lifeline", "--not-killed", "--"]);
    command.arg(source("sample_plugin.py")).env("TMPDIR", dir.path()).env("XDG_RUNTIME_DIR", dir.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut host = e2e::start(&mut command);
    let lines = BufReader::new(host.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "ready"), "the plugin starts");
    host.kill().unwrap();
    host.wait().unwrap();
    let place = dir.path().display().to_string();
    wait_until("the plugin ends", || e2e::process::marked_with(&place).is_empty());
}
