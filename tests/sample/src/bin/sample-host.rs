//! A host in a process of its own, for tests that look at it from outside, or kill it.
//!
//! It starts the plugin whose path is its argument, passes on everything that it has itself, says on stdout what the
//! plugin's process and its variables of the handshake are, and waits to be killed.

use std::process::ExitCode;

use plugin_sdk::host::{Contract, Environment, Launch, Stdin};
use sample_plugin::sample_client::SampleClient;

const VARIABLES: [&str; 6] = [
    "PLUGIN_CLIENT_CERT",
    "PLUGIN_MULTIPLEX_GRPC",
    "PLUGIN_PROTOCOL_VERSIONS",
    "PLUGIN_UNIX_SOCKET_DIR",
    "PLUGIN_UNIX_SOCKET_GROUP",
    "UNRELATED",
];

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "this is a host, whose stdout is nobody's wire")]
async fn main() -> ExitCode {
    let program = std::env::args().nth(1).unwrap_or_default();
    let launch = Launch::new(program, Contract::new(sample_plugin::cookie(), [1]))
        .environment(Environment::Inherit)
        .stdin(Stdin::Inherit);
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
