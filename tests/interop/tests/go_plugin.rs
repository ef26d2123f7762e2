//! Our host runs a plugin on go-plugin itself.
#![allow(clippy::unwrap_used, reason = "all of it is tests, which clippy does not see behind the macro")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use e2e::Authority;
use e2e::process::is_running;
use interop::{Go, Greeter, Release, Started, seen};
use plugin_sdk::host::{
    Attach, Checksum, ChecksumError, Contract, ExitKind, Launch, LaunchError, Plugin, Security, StopStep,
};
use plugin_sdk::{LineProblem, PluginAddress, ReattachConfig, TlsConfig, one_line};
use plugin_testkit::until;
use sample_plugin::sample_client::SampleClient;
use sample_plugin::sample_server::SampleServer;
use sha2::Digest;
use tokio_stream::StreamExt;
use tonic::service::Routes;
use tonic::transport::Channel;
use tracing::Level;

/// How to start the plugin in one way.
struct Way {
    program: PathBuf,
    security: Security,
    /// What the plugin has to be told beside, for certificates of its own.
    args: &'static [&'static str],
    variables: Vec<(String, String)>,
    multiplexing: bool,
}

impl Way {
    fn new(program: PathBuf, security: Security) -> Self {
        Self { program, security, args: &[], variables: Vec::new(), multiplexing: false }
    }

    fn plain(program: PathBuf) -> Self {
        Self::new(program, Security::Plain)
    }

    fn automtls(program: PathBuf) -> Self {
        Self::new(program, Security::AutoMtls)
    }

    /// Both sides have certificates of one authority.
    fn own_tls(program: PathBuf) -> Self {
        let authority = Authority::generate();
        let (certificate, key) = authority.issue();
        let tls = TlsConfig::from_pem(&authority.pem, &certificate, &key, "localhost").unwrap();
        let variables = authority.variables("OWN_TLS").into();
        Self { args: &["-own-tls"], variables, ..Self::new(program, Security::Tls(tls)) }
    }

    fn multiplexed(program: PathBuf) -> Self {
        Self { multiplexing: true, ..Self::plain(program) }
    }

    fn automtls_multiplexed(program: PathBuf) -> Self {
        Self { multiplexing: true, ..Self::automtls(program) }
    }

    fn own_tls_multiplexed(program: PathBuf) -> Self {
        Self { multiplexing: true, ..Self::own_tls(program) }
    }

    fn launch(&self, versions: &[u32]) -> Launch {
        let launch = Launch::new(&self.program, contract(versions))
            .args(self.args)
            .security(self.security.clone())
            .multiplexing(self.multiplexing);
        self.variables.iter().fold(launch, |launch, (name, value)| launch.env(name, value))
    }

    /// To a plugin that runs already.
    fn attach(&self, config: ReattachConfig, versions: &[u32]) -> Attach {
        Attach::reattach(config, contract(versions)).security(self.security.clone())
    }

    async fn start(&self) -> (Plugin, SampleClient<Channel>) {
        start(&self.launch(&[1])).await
    }
}

fn contract(versions: &[u32]) -> Contract {
    Contract::new(sample_plugin::cookie(), versions.iter().copied())
}

async fn start(launch: &Launch) -> (Plugin, SampleClient<Channel>) {
    let plugin = launch.start().await.unwrap_or_else(|error| panic!("{}", one_line(&error)));
    let client = SampleClient::new(plugin.channel());
    (plugin, client)
}

/// A module for each way to connect, and in it a test for each of the functions that are named.
macro_rules! cells {
    ($($way:ident: $release:ident $made:ident { $($test:ident)* })*) => { $(
        mod $way {
            $(#[tokio::test]
            async fn $test() {
                let test = concat!("go_plugin::", stringify!($way), "::", stringify!($test));
                let Some(go) = super::Go::get(super::Release::$release, test) else { return };
                super::seen::begin();
                super::$test(&super::Way::$made(go.plugin)).await;
            })*
        }
    )* };
}

// Where `reattach` and `test_mode` are missing they cannot be: the keys of AutoMTLS are the first host's alone, go-plugin in
// test mode does not tell its certificate, and a plugin that multiplexes has one connection in its life.
cells! {
    plain: V1_8_0 plain {
        call broker many_brokered kill shutdown crash panic version_1 version_2 version_3 no_common_version
        stdio logs cancelled_calls restart reattach test_mode net_rpc pinned
    }
    automtls: V1_8_0 automtls {
        call broker many_brokered kill shutdown crash panic version_1 version_2 version_3 no_common_version
        stdio logs cancelled_calls restart too_old_for_automtls pinned
    }
    own_tls: V1_8_0 own_tls {
        call broker many_brokered kill shutdown crash panic version_1 version_2 version_3 no_common_version
        stdio logs cancelled_calls restart reattach test_mode pinned
    }
    multiplexed: V1_8_0 multiplexed {
        call broker many_brokered kill shutdown crash panic version_1 version_2 version_3 no_common_version
        stdio logs cancelled_calls restart too_old_to_multiplex pinned
    }
    automtls_multiplexed: V1_8_0 automtls_multiplexed {
        call broker many_brokered kill shutdown crash panic version_1 version_2 version_3 no_common_version
        stdio logs cancelled_calls restart pinned
    }
    own_tls_multiplexed: V1_8_0 own_tls_multiplexed {
        call broker many_brokered kill shutdown crash panic version_1 version_2 version_3 no_common_version
        stdio logs cancelled_calls restart pinned
    }
    plain_1_7_0: V1_7_0 plain {
        call broker kill shutdown crash version_1 version_2 version_3 no_common_version stdio logs reattach
        test_mode
    }
    automtls_1_7_0: V1_7_0 automtls {
        call broker kill shutdown crash version_1 version_2 version_3 no_common_version stdio logs
    }
    own_tls_1_7_0: V1_7_0 own_tls { call broker kill shutdown crash stdio logs reattach test_mode }
    multiplexed_1_7_0: V1_7_0 multiplexed {
        call broker kill shutdown crash version_1 version_2 version_3 no_common_version stdio logs
    }
    automtls_multiplexed_1_7_0: V1_7_0 automtls_multiplexed {
        call broker kill shutdown crash version_1 version_2 version_3 no_common_version stdio logs
    }
    own_tls_multiplexed_1_7_0: V1_7_0 own_tls_multiplexed { call broker kill shutdown crash stdio logs }
}

async fn call(way: &Way) {
    let (plugin, mut client) = way.start().await;
    let large = vec![7; 3_000_000];
    assert_eq!(client.echo(large.clone()).await.unwrap().into_inner(), large);
    let texts = ["one", "", "three"].map(str::to_owned);
    let answers = client.chat(tokio_stream::iter(texts.clone())).await.unwrap().into_inner();
    let answers: Vec<String> = answers.map(|text| text.unwrap()).collect().await;
    assert_eq!(answers, texts);
    assert_eq!(client.env("NO_SUCH_VARIABLE".to_owned()).await.unwrap_err().code(), tonic::Code::NotFound);
    plugin.health().await.unwrap();
    plugin.shutdown().await;
}

async fn broker(way: &Way) {
    let (plugin, mut client) = way.start().await;
    let broker = plugin.broker();
    for _ in 0..2 {
        let id = broker.next_id();
        let routes = Routes::new(SampleServer::new(Greeter));
        let _server = broker.accept_and_serve(id, routes).await.unwrap();
        assert_eq!(client.call_back(id).await.unwrap().into_inner(), b"host got from plugin");
        let lent = client.lend(()).await.unwrap().into_inner();
        assert_eq!(lent, id, "each side counts for itself");
        assert_eq!(who(broker.dial(lent).await.unwrap()).await, "go 1");
        if way.multiplexing {
            // Each connection is knocked for, and an id is good for any number of them.
            assert_eq!(client.call_back(id).await.unwrap().into_inner(), b"host got from plugin");
            assert_eq!(who(broker.dial(lent).await.unwrap()).await, "go 1");
        }
    }
    assert!(plugin.shutdown().await.is_success());
}

async fn who(channel: Channel) -> String {
    SampleClient::new(channel).who(()).await.unwrap().into_inner()
}

/// One after the other, as go-plugin demands with multiplexing, but with all servers there at once.
async fn many_brokered(way: &Way) {
    let (plugin, mut client) = way.start().await;
    let broker = plugin.broker();
    let mut servers = Vec::new();
    let mut channels = Vec::new();
    for _ in 0..20 {
        let id = broker.next_id();
        let routes = Routes::new(SampleServer::new(Greeter));
        servers.push(broker.accept_and_serve(id, routes).await.unwrap());
        assert_eq!(client.call_back(id).await.unwrap().into_inner(), b"host got from plugin");
        let lent = client.lend(()).await.unwrap().into_inner();
        channels.push(broker.dial(lent).await.unwrap());
    }
    for channel in channels {
        assert_eq!(who(channel).await, "go 1");
    }
    assert!(plugin.shutdown().await.is_success());
}

/// Without asking, as when a handle is dropped.
async fn kill(way: &Way) {
    let (plugin, _) = way.start().await;
    let pid = pid(&plugin);
    let dir = socket_dir(&plugin);
    drop(plugin);
    until("the plugin and its sockets are gone", async || !is_running(pid) && !dir.exists()).await;
}

async fn shutdown(way: &Way) {
    let (plugin, _) = way.start().await;
    let pid = pid(&plugin);
    let dir = socket_dir(&plugin);
    let begun = Instant::now();
    let exit = plugin.shutdown().await;
    assert_eq!((exit.status, exit.after), (ExitKind::Code(0), StopStep::Shutdown));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    // go-plugin leaves the socket of a plugin that multiplexes.
    assert!(!is_running(pid) && !dir.exists());
}

async fn crash(way: &Way) {
    let (plugin, mut client) = way.start().await;
    assert!(client.die("exit 3".to_owned()).await.is_err());
    let exit = plugin.exited().await;
    assert_eq!((exit.status, exit.after), (ExitKind::Code(3), StopStep::Nothing));
    assert!(plugin.health().await.is_err());
    assert!(client.echo(vec![1]).await.is_err());
    assert!(plugin.broker().dial(1).await.is_err());
    assert_eq!(plugin.shutdown().await.status, ExitKind::Code(3));
}

async fn panic(way: &Way) {
    let (plugin, mut client) = way.start().await;
    assert!(client.die("panic on purpose".to_owned()).await.is_err());
    assert_eq!(plugin.exited().await.status, ExitKind::Code(2));
    let first = seen::line(pid(&plugin), |line| line.message().starts_with("panic: on purpose")).await;
    let trace = seen::line(pid(&plugin), |line| line.message().starts_with("goroutine ")).await;
    assert_eq!((first.level, trace.level), (Level::ERROR, Level::ERROR));
}

async fn version_1(way: &Way) {
    serves(way, &[1], 1).await;
}

async fn version_2(way: &Way) {
    serves(way, &[2, 1], 2).await;
}

async fn version_3(way: &Way) {
    serves(way, &[7, 3, 1, 2], 3).await;
}

async fn serves(way: &Way, versions: &[u32], negotiated: u32) {
    let (plugin, _) = start(&way.launch(versions)).await;
    assert_eq!(plugin.app_version().get(), negotiated);
    assert_eq!(who(plugin.channel()).await, format!("go {negotiated}"));
    plugin.shutdown().await;
}

async fn no_common_version(way: &Way) {
    match problem(&way.launch(&[7, 8])).await {
        LineProblem::AppVersion { plugin, host } => {
            assert_eq!((plugin.get(), host.to_string().as_str()), (1, "7,8"));
        }
        other => panic!("{other:?}"),
    }
}

async fn stdio(way: &Way) {
    let (plugin, mut client) = way.start().await;
    for text in ["printed".to_owned(), "long ".repeat(1000)] {
        client.print(text.clone()).await.unwrap();
        let line = seen::line(pid(&plugin), |line| line.message() == text).await;
        assert_eq!(line.field("stream"), "stdout");
    }
    plugin.shutdown().await;
}

async fn logs(way: &Way) {
    let (plugin, mut client) = way.start().await;
    let text = "<logged> & \"quoted\"";
    client.log(text.to_owned()).await.unwrap();
    let line = seen::line(pid(&plugin), |line| line.message() == text).await;
    assert_eq!((line.level, line.field("fields")), (Level::WARN, r#"{"answer":42}"#));
    assert_eq!(line.field("plugin"), "plugin");
    plugin.shutdown().await;
}

async fn cancelled_calls(way: &Way) {
    let (plugin, mut client) = way.start().await;
    for _ in 0..2_000 {
        assert!(tokio::time::timeout(Duration::from_micros(300), client.hang(())).await.is_err());
    }
    assert_eq!(client.echo(vec![1]).await.unwrap().into_inner(), [1]);
    // How many have come so far before they were cancelled, nobody can say.
    until("a handler is cancelled", async || client.cancelled(()).await.unwrap().into_inner() > 0).await;
    plugin.shutdown().await;
}

/// One launch, two plugins at once, a third after a crash. A client of go-plugin can be started once.
async fn restart(way: &Way) {
    let launch = way.launch(&[1]);
    let (first, mut client) = start(&launch).await;
    let (second, _) = start(&launch).await;
    assert!(client.die("abort".to_owned()).await.is_err());
    first.exited().await;
    let (third, _) = start(&launch).await;
    for plugin in [second, third] {
        assert_eq!(who(plugin.channel()).await, "go 1");
        assert!(plugin.shutdown().await.is_success());
    }
}

/// A second host of the same plugin ends it.
async fn reattach(way: &Way) {
    let (first, mut client) = way.start().await;
    let config = first.reattach_config().expect("without AutoMTLS it can be reattached to").clone();
    let second = way.attach(config, &[1]).connect().await.unwrap();
    second.health().await.unwrap();
    assert_eq!(who(second.channel()).await, "go 1");
    assert_eq!(client.echo(vec![1]).await.unwrap().into_inner(), [1]);
    assert_eq!(second.shutdown().await.after, StopStep::Shutdown);
    assert!(first.exited().await.is_success());
}

/// Hosts come and go, and the plugin stays.
async fn test_mode(way: &Way) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(&way.program);
    command.env("TMPDIR", dir.path());
    let mut plugin =
        Started::new(command.args(way.args).envs(way.variables.iter().cloned()).arg("-test-mode"));
    let config = ReattachConfig::from_json(&plugin.first_line()).unwrap();
    for _ in 0..3 {
        let attached = way.attach(config.clone(), &[1, 3]).connect().await.unwrap();
        attached.health().await.unwrap();
        // Without a host to negotiate with, a plugin serves its lowest version.
        assert_eq!(attached.app_version().get(), 1);
        assert_eq!(who(attached.channel()).await, "go 1");
        assert_eq!(attached.shutdown().await.status, ExitKind::LeftRunning);
        assert!(is_running(plugin.pid()));
    }
}

/// Another checksum starts nothing, the right one starts the plugin.
async fn pinned(way: &Way) {
    let digest = sha2::Sha256::digest(std::fs::read(&way.program).unwrap()).into();
    let (plugin, _) = start(&way.launch(&[1]).checksum(Checksum::sha256(digest))).await;
    assert_eq!(who(plugin.channel()).await, "go 1");
    assert!(plugin.shutdown().await.is_success());
    let refused = way.launch(&[1]).checksum(Checksum::sha256([7; 32])).start().await;
    assert!(matches!(refused, Err(LaunchError::Checksum { source: ChecksumError::Mismatch { .. }, .. })));
}

async fn too_old_for_automtls(way: &Way) {
    let launch = way.launch(&[1]).arg("-ignore=PLUGIN_CLIENT_CERT");
    assert!(matches!(problem(&launch).await, LineProblem::MissingCertificate));
}

async fn too_old_to_multiplex(way: &Way) {
    let launch = way.launch(&[1]).arg("-ignore=PLUGIN_MULTIPLEX_GRPC");
    assert!(matches!(problem(&launch).await, LineProblem::MultiplexingUnsupported));
}

async fn net_rpc(way: &Way) {
    assert!(matches!(problem(&way.launch(&[1]).arg("-netrpc")).await, LineProblem::NetRpc));
}

/// What is wrong with the handshake line of a plugin that must not start.
async fn problem(launch: &Launch) -> LineProblem {
    match launch.start().await {
        Err(LaunchError::Handshake { problem, .. }) => problem,
        other => panic!("{other:?}"),
    }
}

fn pid(plugin: &Plugin) -> u32 {
    plugin.pid().expect("a plugin that was launched has a process")
}

fn socket_dir(plugin: &Plugin) -> PathBuf {
    match plugin.address() {
        PluginAddress::Unix(path) => path.parent().unwrap_or(Path::new("/")).to_path_buf(),
        other => panic!("{other} is not a Unix socket"),
    }
}
