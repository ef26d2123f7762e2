//! A host in a process of its own, for tests that look at it from outside, or kill it.
//!
//! It starts the plugin whose path is its first argument, passes on everything that it has itself, says on stdout what the
//! plugin's process and its variables of the handshake are, and waits for the plugin to end.
//!
//! ```text
//! --stdin=lifeline  gives the plugin a pipe that ends with this host; --stdin=null gives it nothing
//! --not-killed      does not have the kernel kill the plugin when this host ends
//! --group=GROUP     lets the group connect
//! -- ARGS           gives the plugin arguments
//! --hosts           instead of all that: says which hosts there are
//! ```

use std::process::ExitCode;

use plugin_sdk::host::{Contract, Environment, Launch, Stdin, runtime};
use sample_plugin::sample_client::SampleClient;

const VARIABLES: [&str; 7] = [
    "PLUGIN_CLIENT_CERT",
    "PLUGIN_HOST_LIFELINE",
    "PLUGIN_MULTIPLEX_GRPC",
    "PLUGIN_PROTOCOL_VERSIONS",
    "PLUGIN_UNIX_SOCKET_DIR",
    "PLUGIN_UNIX_SOCKET_GROUP",
    "UNRELATED",
];

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "this is a host, whose stdout is nobody's wire")]
async fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let own = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
    let plugin_args = args.split_off(own).into_iter().skip(1);
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    if has("--hosts") {
        for host in runtime::hosts().unwrap_or_default() {
            let state = if host.alive { "alive" } else { "dead" };
            println!("{} {} {state} {}", host.pid, host.name, host.dir.display());
        }
        return ExitCode::SUCCESS;
    }
    let stdin = match (has("--stdin=lifeline"), has("--stdin=null")) {
        (true, _) => Stdin::Lifeline,
        (_, true) => Stdin::Null,
        _ => Stdin::Inherit,
    };
    let program = args.first().cloned().unwrap_or_default();
    let mut launch = Launch::new(program, Contract::new(sample_plugin::cookie(), [1]))
        .args(plugin_args)
        .environment(Environment::Inherit)
        .stdin(stdin)
        .killed_with_host(!has("--not-killed"));
    if let Some(group) = args.iter().find_map(|arg| arg.strip_prefix("--group=")) {
        launch = launch.socket_group(group);
    }
    let plugin = match launch.start().await {
        Ok(plugin) => plugin,
        Err(error) => {
            println!("error={}", plugin_sdk::one_line(&error));
            return ExitCode::FAILURE;
        }
    };
    println!("pid={}", plugin.pid().unwrap_or_default());
    println!("socket={}", plugin.address());
    let mut client = SampleClient::new(plugin.channel());
    for name in VARIABLES {
        match client.env(name.to_owned()).await {
            Ok(value) => println!("{name}={}", value.get_ref()),
            Err(status) => println!("{name} {:?}", status.code()),
        }
    }
    println!("ready");
    plugin.exited().await;
    ExitCode::SUCCESS
}
