//! A host on go-plugin itself runs our sample plugin, and must not notice.

use std::path::PathBuf;
use std::process::Command;

use e2e::Authority;
use interop::{Go, Release, binary};
use serde_json::Value;

/// A Go host that connects in one way.
struct Host {
    program: PathBuf,
    way: &'static [&'static str],
}

impl Host {
    /// Runs a scenario, which has to pass, and gives what the host has found.
    fn passes(&self, scenario: &str, flags: &[&str]) -> Value {
        self.passes_with(scenario, flags, &[])
    }

    /// Like [`passes`](Self::passes), with arguments for the plugin.
    fn passes_with(&self, scenario: &str, flags: &[&str], plugin_args: &[&str]) -> Value {
        // What go-plugin's host kills leaves its socket behind.
        let dir = tempfile::tempdir().expect("there is a temporary directory");
        let mut command = Command::new(&self.program);
        command.env("TMPDIR", dir.path()).args(self.way).args(["-scenario", scenario]).args(flags);
        command.arg(binary("sample-plugin")).args(plugin_args);
        if self.way.contains(&"-own-tls") {
            let authority = Authority::generate();
            command
                .envs(authority.variables("HOST_TLS"))
                .envs(authority.variables("OWN_TLS"))
                .arg("--own-tls");
        }
        let output = e2e::run_with(&mut command);
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{command:?}: {stdout} {stderr}");
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{command:?}: {error}: {stdout}"))
    }
}

/// A module for each way to connect, and in it a test for each of the functions that are named.
macro_rules! cells {
    ($($way:ident: $release:ident $flags:tt { $($test:ident)* })*) => { $(
        mod $way {
            $(#[test]
            fn $test() {
                let test = concat!("go_host::", stringify!($way), "::", stringify!($test));
                if let Some(go) = super::Go::get(super::Release::$release, test) {
                    super::$test(&super::Host { program: go.host, way: &$flags });
                }
            })*
        }
    )* };
}

// Where `reattach` and `test_mode` are missing, go-plugin's host cannot: a plugin that multiplexes has one connection in
// its life.
cells! {
    plain: V1_8_0 [] {
        call broker tcp kill shutdown crash reattach version_1 version_2 version_3 no_common_version stdio logs
        ping cancelled_calls no_environment socket_group by_hand test_mode pinned
    }
    automtls: V1_8_0 ["-automtls"] {
        call broker tcp kill shutdown crash reattach version_1 version_2 version_3 no_common_version stdio logs
        ping cancelled_calls test_mode pinned
    }
    own_tls: V1_8_0 ["-own-tls"] {
        call broker tcp kill shutdown crash reattach version_1 version_2 version_3 no_common_version stdio logs
        ping cancelled_calls test_mode pinned
    }
    multiplexed: V1_8_0 ["-multiplex"] {
        call broker tcp kill shutdown crash version_1 version_2 version_3 no_common_version stdio logs
        ping cancelled_calls
    }
    automtls_multiplexed: V1_8_0 ["-automtls", "-multiplex"] {
        call broker tcp kill shutdown crash version_1 version_2 version_3 no_common_version stdio logs
        ping cancelled_calls
    }
    own_tls_multiplexed: V1_8_0 ["-own-tls", "-multiplex"] {
        call broker tcp kill shutdown crash version_1 version_2 version_3 no_common_version stdio logs
        ping cancelled_calls
    }
    plain_1_7_0: V1_7_0 [] {
        call broker kill shutdown crash reattach version_1 version_2 version_3 no_common_version stdio logs
        by_hand test_mode pinned
    }
    automtls_1_7_0: V1_7_0 ["-automtls"] {
        call broker kill shutdown crash reattach version_1 version_2 version_3 no_common_version stdio logs
        test_mode
    }
    multiplexed_1_7_0: V1_7_0 ["-multiplex"] {
        call broker kill shutdown crash version_1 version_2 version_3 no_common_version stdio logs
    }
    automtls_multiplexed_1_7_0: V1_7_0 ["-automtls", "-multiplex"] {
        call broker kill shutdown crash version_1 version_2 version_3 no_common_version stdio logs
    }
    own_tls_1_7_0: V1_7_0 ["-own-tls"] { call broker kill shutdown crash reattach stdio logs test_mode }
    own_tls_multiplexed_1_7_0: V1_7_0 ["-own-tls", "-multiplex"] { call broker kill shutdown crash stdio logs }
}

fn call(host: &Host) {
    host.passes("call", &[]);
}

fn broker(host: &Host) {
    host.passes("broker", &[]);
}

fn tcp(host: &Host) {
    host.passes_with("call", &[], &["--tcp"]);
    host.passes_with("broker", &[], &["--tcp"]);
    host.passes_with("kill", &[], &["--tcp"]);
}

fn kill(host: &Host) {
    host.passes("kill", &[]);
}

fn shutdown(host: &Host) {
    assert_eq!(host.passes("shutdown", &[])["reply"], "OK");
}

fn crash(host: &Host) {
    assert_eq!(host.passes("crash", &[])["exit"], 3);
}

fn reattach(host: &Host) {
    host.passes("reattach", &[]);
}

fn version_1(host: &Host) {
    serves(host, "1", 1);
}

fn version_2(host: &Host) {
    serves(host, "2,1", 2);
}

fn version_3(host: &Host) {
    serves(host, "7,3,1,2", 3);
}

fn serves(host: &Host, versions: &str, negotiated: u32) {
    let found = host.passes("call", &["-versions", versions]);
    assert_eq!(
        (&found["negotiated"], &found["who"]),
        (&negotiated.into(), &format!("rust {negotiated}").into())
    );
}

fn no_common_version(host: &Host) {
    let reason = host.passes("refused", &["-versions", "7,8"])["reason"].to_string();
    assert!(reason.contains("Plugin version: 1, Client versions:"), "{reason}");
}

fn stdio(host: &Host) {
    host.passes("stdio", &[]);
}

fn logs(host: &Host) {
    host.passes("logs", &[]);
}

fn ping(host: &Host) {
    host.passes("ping", &[]);
}

fn cancelled_calls(host: &Host) {
    host.passes("cancel", &[]);
}

fn no_environment(host: &Host) {
    host.passes("call", &["-skip-host-env"]);
    host.passes("broker", &["-skip-host-env"]);
}

fn socket_group(host: &Host) {
    let own = rustix::process::getgid().as_raw();
    let found = host.passes("group", &["-group", &own.to_string()]);
    assert_eq!((&found["gid"], &found["mode"]), (&own.into(), &"-rw-rw----".into()));
}

/// Another checksum starts nothing, the right one starts the plugin.
fn pinned(host: &Host) {
    host.passes("pinned", &[]);
}

/// Hosts come and go, and the plugin stays. Each has stdio and a broker, which with a plugin in Go only the first would.
fn test_mode(host: &Host) {
    host.passes_with("test-mode", &[], &["--test-mode"]);
}

fn by_hand(host: &Host) {
    let found = host.passes("by-hand", &[]);
    assert_eq!((&found["exit"], &found["stdout"]), (&1.into(), &"".into()));
    assert!(found["stderr"].to_string().contains("is a plugin"), "{found}");
}
