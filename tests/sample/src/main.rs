//! A plugin that does whatever a test asks it to.

use std::convert::Infallible;
use std::process::ExitCode;
use std::time::Duration;

use plugin_sdk::plugin::{Context, Network, PluginBuilder, init_logging};
use plugin_sdk::{MAX_MESSAGE_BYTES, MagicCookie, TlsConfig};
use sample_plugin::Service;
use sample_plugin::sample_server::SampleServer;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

fn main() -> ExitCode {
    let args = plugin_sdk::plugin::args();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let chatty = has("--chatty");
    let limit = if has("--default-limits") { MAX_MESSAGE_BYTES } else { 4 * MAX_MESSAGE_BYTES };
    let (not_serving, blocking) = (has("--not-serving"), has("--blocking"));
    let services = move |context: &Context| {
        if blocking {
            // As the system's look-up of a name may be.
            tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_secs(3_600)));
        }
        if chatty {
            chat();
        }
        if not_serving {
            context.health().set_not_serving();
        }
        Routes::new(SampleServer::new(Service::new(context)).max_decoding_message_size(limit))
    };
    let cookie = if has("--empty-cookie") { MagicCookie::new("", "") } else { sample_plugin::cookie() };
    let mut plugin = PluginBuilder::new(cookie)
        .network(if has("--tcp") { Network::Tcp } else { Network::Unix })
        .version(2, services)
        .version(3, services);
    if !has("--undescribed") {
        plugin = plugin.descriptors(sample_plugin::FILE_DESCRIPTOR_SET);
    }
    plugin = match () {
        () if has("--no-database") => plugin.try_version(1, async |_: Context| {
            std::fs::File::open("/no/such/database").map(|_| Routes::default())
        }),
        () if has("--slow-database") => plugin.try_version(1, async move |context: Context| {
            tracing::info!("waiting for the database");
            // What a slow database does: the host has to wait for its plugin meanwhile.
            tokio::time::sleep(Duration::from_millis(500)).await;
            Ok::<_, Infallible>(services(&context))
        }),
        () if has("--stuck-database") => plugin.try_version(1, async |_: Context| {
            tracing::info!("waiting for the database");
            std::future::pending::<Result<_, Infallible>>().await
        }),
        () => plugin.version(1, services),
    };
    if has("--long-drain") {
        plugin = plugin.drain_limit(Duration::from_secs(60));
    }
    if has("--own-tls") {
        match own_tls() {
            Some(tls) => plugin = plugin.tls(tls),
            None => return ExitCode::FAILURE,
        }
    }
    match () {
        () if has("--test-mode") => test_mode(plugin),
        () if has("--own-run-time") => own_run_time(plugin),
        () if has("--run-inside-a-run-time") => run_inside_a_run_time(plugin),
        () => plugin.run(),
    }
}

/// As a plugin's author does it who has work for several threads.
#[tokio::main]
async fn own_run_time(plugin: PluginBuilder) -> ExitCode {
    init_logging();
    match plugin.serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

/// As a plugin's author does it by mistake.
#[tokio::main]
async fn run_inside_a_run_time(plugin: PluginBuilder) -> ExitCode {
    plugin.run()
}

/// What a library might say when it is set up.
#[expect(clippy::print_stdout, reason = "it must not be taken for the handshake line")]
fn chat() {
    println!("ready to serve");
}

/// Certificates from three variables, as an application might have them instead of AutoMTLS.
fn own_tls() -> Option<TlsConfig> {
    let [authority, certificate, key] =
        ["OWN_TLS_CA", "OWN_TLS_CERT", "OWN_TLS_KEY"].map(|name| std::env::var(name).unwrap_or_default());
    TlsConfig::from_pem(&authority, &certificate, &key, "localhost").ok()
}

/// As a plugin's author does it in a debugger: says on stdout how to reattach.
#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "whoever started the plugin reads it there")]
async fn test_mode(plugin: PluginBuilder) -> ExitCode {
    let served = plugin.serve_test(|config| println!("{}", config.to_json()), CancellationToken::new()).await;
    if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
