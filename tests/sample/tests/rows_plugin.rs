//! What plugins have to do, whoever starts them: the sample plugin with environments that are made by hand.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use e2e::Authority;
use plugin_sdk::PluginAddress;
use plugin_sdk::host::{Attach, ExitKind, LaunchError, Security};
use plugin_sdk::{LineProblem, ReattachConfig, TlsConfig};
use rustix::process::Signal;
use support::{HOST, LIMIT, SAMPLE, contract, is_running, sample, signal, socket, start, until, who};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStdout, Command};

mod support;

const COOKIE: (&str, &str) = ("SAMPLE_PLUGIN", "a-sample-plugin-for-tests");

/// A program with these variables and no others.
fn command(program: &str, args: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(variables.iter().copied()).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A plugin that ends by itself.
async fn ends(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let output = tokio::time::timeout(LIMIT, command(SAMPLE, args, variables).output()).await;
    output.expect("it ends by itself").expect("the sample plugin starts")
}

/// A plugin that serves, and the line that it has printed.
struct Serving {
    child: Child,
    line: String,
    dir: tempfile::TempDir,
}

impl Serving {
    /// With the cookie, and a directory of its own for its sockets.
    async fn begin(args: &[&str], variables: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("there is room");
        let path = dir.path().display().to_string();
        let mut all = vec![COOKIE, ("PLUGIN_UNIX_SOCKET_DIR", path.as_str())];
        all.extend(variables);
        let mut child = command(SAMPLE, args, &all).spawn().expect("the sample plugin starts");
        let mut lines = BufReader::new(child.stdout.take().expect("it has a pipe"));
        let mut line = String::new();
        let read = tokio::time::timeout(LIMIT, lines.read_line(&mut line)).await;
        read.expect("it prints its line").expect("stdout can be read");
        // Given back, so that the pipe stays open.
        child.stdout = Some(lines.into_inner());
        assert!(line.ends_with('\n'), "{line:?}");
        Self { child, line: line.trim_end_matches('\n').to_owned(), dir }
    }

    fn fields(&self) -> Vec<&str> {
        self.line.split('|').collect()
    }

    fn socket(&self) -> PathBuf {
        PathBuf::from(self.fields()[3])
    }

    fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    async fn ended(mut self) -> Option<i32> {
        let status = tokio::time::timeout(LIMIT, self.child.wait()).await;
        status.expect("it ends").expect("it can be waited for").code()
    }
}

#[tokio::test]
async fn without_its_cookie_a_plugin_explains_itself_on_stderr_alone() {
    for args in [&[][..], &["--own-run-time"]] {
        for variables in [&[][..], &[("SAMPLE_PLUGIN", "")], &[("SAMPLE_PLUGIN", "another-cookie")]] {
            let output = ends(args, variables).await;
            assert_eq!(
                (output.status.code(), output.stdout.as_slice()),
                (Some(1), &b""[..]),
                "{variables:?}"
            );
            let stderr = String::from_utf8(output.stderr).unwrap();
            let other = variables.contains(&("SAMPLE_PLUGIN", "another-cookie"));
            let move_of = if other { "SAMPLE_PLUGIN is set, but not to" } else { "Start the host" };
            assert!(stderr.contains("is a plugin") && stderr.contains(move_of), "{stderr}");
            assert!(
                !stderr.contains("another-") && !stderr.contains(COOKIE.1),
                "no value is shown: {stderr}"
            );
        }
    }
}

#[tokio::test]
async fn what_a_plugin_cannot_serve_with_is_a_reason_on_stderr_and_exit_code_one() {
    for (args, variable, reason) in [
        (&["--empty-cookie"][..], ("UNRELATED", "x"), "cookie"),
        (&["--run-inside-a-run-time"], ("UNRELATED", "x"), "call serve() there"),
        (&[], ("PLUGIN_CLIENT_CERT", "garbage"), "PEM"),
        (&[], ("PLUGIN_MIN_PORT", "many"), "PLUGIN_MIN_PORT"),
        (&[], ("PLUGIN_UNIX_SOCKET_DIR", "/no/such/directory"), "/no/such/directory"),
        (&[], ("PLUGIN_UNIX_SOCKET_GROUP", "no-such-group-here"), "no-such-group-here"),
    ] {
        let output = ends(args, &[COOKIE, variable]).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{variable:?}: {stderr}");
        assert!(output.stdout.is_empty() && !stderr.is_empty() && stderr.contains(reason), "{stderr}");
    }
}

#[tokio::test]
async fn the_line_has_six_fields_unless_the_host_knows_a_seventh() {
    for (variables, tail) in [
        (&[][..], &["grpc", ""][..]),
        (&[("PLUGIN_MULTIPLEX_GRPC", "")], &["grpc", ""]),
        (&[("PLUGIN_MULTIPLEX_GRPC", "false")], &["grpc", "", "false"]),
        (&[("PLUGIN_MULTIPLEX_GRPC", "maybe")], &["grpc", "", "false"]),
        (&[("PLUGIN_MULTIPLEX_GRPC", "true")], &["grpc", "", "true"]),
    ] {
        let plugin = Serving::begin(&[], variables).await;
        let fields = plugin.fields();
        assert_eq!(fields[..3], ["1", "1", "unix"], "{variables:?}");
        assert_eq!(fields[4..], *tail, "{variables:?}");
        assert!(plugin.socket().starts_with(plugin.dir.path()));
        assert!(plugin.socket().metadata().unwrap().file_type().is_socket());
    }
}

#[tokio::test]
async fn version_lists_in_any_order_and_with_junk_are_understood() {
    for (list, served) in [
        (None, "1"),
        (Some(""), "1"),
        (Some("1,2,3"), "3"),
        (Some("2,1"), "2"),
        (Some("9, 2 ,x,,1,-3"), "2"),
        (Some("junk"), "1"),
        (Some("7,8"), "1"),
    ] {
        let variables: Vec<_> = list.map(|list| ("PLUGIN_PROTOCOL_VERSIONS", list)).into_iter().collect();
        let plugin = Serving::begin(&[], &variables).await;
        assert_eq!(plugin.fields()[1], served, "{list:?}");
    }
}

#[tokio::test]
async fn ports_are_for_tcp_alone() {
    let ports = [("PLUGIN_MIN_PORT", "23200"), ("PLUGIN_MAX_PORT", "23300")];
    let tcp = Serving::begin(&["--tcp"], &ports).await;
    let fields = tcp.fields();
    let port: u16 = fields[3].strip_prefix("127.0.0.1:").unwrap().parse().unwrap();
    assert!(fields[2] == "tcp" && (23_200..=23_300).contains(&port), "{}", tcp.line);
    assert_eq!(Serving::begin(&[], &ports).await.fields()[2], "unix");
}

#[tokio::test]
async fn a_group_by_number_or_by_name_gets_the_socket() {
    let own = rustix::process::getgid().as_raw();
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let name = groups.lines().find_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        (fields.get(2)? == &own.to_string()).then(|| fields[0].to_owned())
    });
    for group in [Some(own.to_string()), name].into_iter().flatten() {
        let plugin = Serving::begin(&[], &[("PLUGIN_UNIX_SOCKET_GROUP", &group)]).await;
        let metadata = plugin.socket().metadata().unwrap();
        assert_eq!((metadata.gid(), metadata.permissions().mode() & 0o777), (own, 0o660), "{group}");
    }
}

#[tokio::test]
async fn the_socket_is_removed_by_sigterm_and_by_shutdown() {
    // Nobody has ever connected to this one, as when its host does not like its line.
    let plugin = Serving::begin(&[], &[]).await;
    let (socket, pid) = (plugin.socket(), plugin.pid());
    signal(pid, Signal::TERM);
    assert_eq!(plugin.ended().await, Some(0));
    assert!(!socket.exists());

    let plugin = Serving::begin(&[], &[]).await;
    let config = ReattachConfig {
        app_version: Some(1.into()),
        address: PluginAddress::Unix(plugin.socket()),
        pid: Some(plugin.pid()),
        test: false,
    };
    let attached = Attach::reattach(config, contract(&[1])).connect().await.unwrap();
    assert_eq!(who(&attached).await, "rust 1");
    let socket = plugin.socket();
    let (exit, ended) = tokio::join!(attached.shutdown(), plugin.ended());
    assert_eq!((exit.status, ended), (ExitKind::Unknown, Some(0)));
    assert!(!socket.exists());
}

#[tokio::test]
async fn strangers_cannot_connect_to_a_plugin_with_automtls() {
    let (plugin, mut client) = start(&sample().security(Security::AutoMtls)).await;
    // Without TLS: an HTTP/2 preface gets no settings back, but the end of the connection.
    let mut plain = UnixStream::connect(socket(&plugin)).await.unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut answer = Vec::new();
    let _reset = tokio::time::timeout(LIMIT, plain.read_to_end(&mut answer)).await.expect("it is closed");
    // At most a TLS alert.
    assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");

    let address = PluginAddress::Unix(socket(&plugin));
    let refused = Attach::to(address.clone(), contract(&[1])).connect().await;
    assert!(refused.is_err(), "without TLS");
    let authority = Authority::generate();
    let (certificate, key) = authority.issue();
    let own = TlsConfig::from_pem(&authority.pem, &certificate, &key, "localhost").unwrap();
    let refused = Attach::to(address, contract(&[1])).security(Security::Tls(own)).connect().await;
    assert!(refused.is_err(), "with another certificate");

    assert_eq!(client.who(()).await.unwrap().into_inner(), "rust 1");
    assert!(plugin.shutdown().await.is_success());
}

#[tokio::test]
async fn certificates_of_the_applications_own_take_the_place_of_automtls() {
    let authority = Authority::generate();
    let variables = authority.variables("OWN_TLS");
    let launch =
        variables.into_iter().fold(sample().arg("--own-tls"), |launch, (name, pem)| launch.env(name, pem));
    let (certificate, key) = authority.issue();
    let tls = |name| TlsConfig::from_pem(&authority.pem, &certificate, &key, name).unwrap();
    let secured = launch.clone().security(Security::Tls(tls("localhost")));
    for multiplexing in [false, true] {
        let announced =
            secured.clone().multiplexing(multiplexing).spawn().await.unwrap().handshake().await.unwrap();
        assert_eq!(announced.line().server_cert, None, "field 6 is empty");
        let plugin = Box::pin(announced.connect()).await.unwrap();
        assert_eq!(who(&plugin).await, "rust 1");
        let mut client = sample_plugin::sample_client::SampleClient::new(plugin.channel());
        let lent = client.lend(()).await.unwrap().into_inner();
        assert!(plugin.broker().dial(lent).await.is_ok());
        assert!(plugin.shutdown().await.is_success());
    }
    // What does not match is an error of the start, at the latest by its health check.
    for mismatched in [
        launch.clone(),
        launch.clone().security(Security::Tls(tls("another.name"))),
        sample().security(Security::Tls(tls("localhost"))),
    ] {
        let error = mismatched.start().await.unwrap_err();
        assert!(matches!(error, LaunchError::Connect { .. } | LaunchError::Unhealthy { .. }), "{error:?}");
    }
    let error = launch.security(Security::AutoMtls).start().await.unwrap_err();
    assert!(
        matches!(error, LaunchError::Handshake { problem: LineProblem::MissingCertificate, .. }),
        "{error:?}"
    );
}

/// A host in a process of its own, see `src/bin/sample-host.rs`.
struct Host {
    child: Child,
    /// What it has said of its plugin.
    said: BTreeMap<String, String>,
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Host {
    async fn begin(args: &[&str], variables: &[(&str, &str)]) -> Self {
        let args = [&[SAMPLE], args].concat();
        let mut child = command(HOST, &args, variables)
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the sample host starts");
        let mut lines = BufReader::new(child.stdout.take().expect("it has a pipe")).lines();
        let mut said = BTreeMap::new();
        loop {
            let line = tokio::time::timeout(LIMIT, lines.next_line()).await.expect("it goes on");
            match line.expect("stdout can be read").as_deref() {
                Some("ready") => return Self { child, said, _stdout: lines },
                Some(line) => {
                    let (name, value) = line.split_once(['=', ' ']).unwrap_or((line, ""));
                    said.insert(name.to_owned(), value.to_owned());
                }
                None => panic!("the host has ended: {said:?}"),
            }
        }
    }

    fn plugin(&self) -> u32 {
        self.said["pid"].parse().expect("it is a number")
    }
}

#[tokio::test]
async fn variables_of_the_hosts_own_host_are_not_passed_on() {
    let host = Host::begin(
        &[],
        &[
            ("PLUGIN_CLIENT_CERT", "stale"),
            ("PLUGIN_MULTIPLEX_GRPC", "true"),
            ("PLUGIN_PROTOCOL_VERSIONS", "3"),
            ("PLUGIN_UNIX_SOCKET_DIR", "/stale"),
            ("PLUGIN_UNIX_SOCKET_GROUP", "stale"),
            ("PLUGIN_HOST_LIFELINE", "stdin"),
            ("UNRELATED", "passed on"),
        ],
    )
    .await;
    for (name, expected) in [
        ("PLUGIN_CLIENT_CERT", "NotFound"),
        ("PLUGIN_MULTIPLEX_GRPC", "NotFound"),
        ("PLUGIN_UNIX_SOCKET_GROUP", "NotFound"),
        ("PLUGIN_HOST_LIFELINE", "NotFound"),
        ("PLUGIN_PROTOCOL_VERSIONS", "1"),
        ("UNRELATED", "passed on"),
    ] {
        assert_eq!(host.said[name], expected, "{name}");
    }
    assert_ne!(host.said["PLUGIN_UNIX_SOCKET_DIR"], "/stale");
    // Its stdin too is the host's own.
    let stdin = |pid: u32| std::fs::read_link(format!("/proc/{pid}/fd/0")).unwrap();
    let link = stdin(host.plugin());
    assert!(link.to_string_lossy().starts_with("pipe:"), "{link:?}");
    assert_eq!(link, stdin(host.child.id().unwrap()));
}

#[tokio::test]
async fn a_plugin_ends_with_its_host_and_removes_its_socket() {
    let mut host = Host::begin(&["--not-killed"], &[("RUST_LOG", "trace")]).await;
    let (plugin, socket) = (host.plugin(), PathBuf::from(&host.said["socket"]));
    assert!(is_running(plugin) && socket.exists());
    // The plugin's stderr leads nowhere from now on, and it logs.
    host.child.kill().await.unwrap();
    until("the plugin has gone", async || !is_running(plugin)).await;
    // By its own clean end: no log line has killed it before.
    assert!(!socket.exists());
    let _ = std::fs::remove_dir_all(socket.parent().unwrap_or(Path::new("/nowhere")));
}

#[tokio::test]
async fn a_plugin_whose_stderr_is_closed_goes_on() {
    let mut plugin = Serving::begin(&[], &[("RUST_LOG", "trace")]).await;
    drop((plugin.child.stderr.take(), plugin.child.stdout.take()));
    let config = ReattachConfig {
        app_version: Some(1.into()),
        address: PluginAddress::Unix(plugin.socket()),
        pid: None,
        test: true,
    };
    let attached = Attach::reattach(config, contract(&[1])).connect().await.unwrap();
    let mut client = sample_plugin::sample_client::SampleClient::new(attached.channel());
    for _ in 0..3 {
        client.log("nobody reads this".to_owned()).await.unwrap();
        client.print("nor this".to_owned()).await.unwrap();
    }
    assert_eq!(who(&attached).await, "rust 1");
    signal(plugin.pid(), Signal::TERM);
    assert_eq!(plugin.ended().await, Some(0));
}

#[tokio::test]
async fn pings_of_a_multiplexed_connection_are_answered() {
    let plugin = Serving::begin(&[], &[("PLUGIN_MULTIPLEX_GRPC", "true")]).await;
    let mut connection = UnixStream::connect(plugin.socket()).await.unwrap();
    for number in [1_u8, 2, 3] {
        // Version 0, type 2 (ping), flag 1 (SYN), stream 0, then a number to be sent back.
        connection.write_all(&[0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, number]).await.unwrap();
        let mut answer = [0; 12];
        let read = tokio::time::timeout(Duration::from_secs(8), connection.read_exact(&mut answer)).await;
        read.expect("go-plugin gives up after 10 s").unwrap();
        // Flag 2 (ACK).
        assert_eq!(answer, [0, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, number]);
    }
    // It is the only connection that there will be, and the plugin ends with it.
    let second = UnixStream::connect(plugin.socket()).await;
    assert!(second.is_err());
    drop(connection);
    assert_eq!(plugin.ended().await, Some(0));
}
