//! The host: starts the plugin once, then keeps one running.

use std::error::Error;
use std::path::Path;

use kv_example::guard_server::{Guard, GuardServer};
use kv_example::store_client::StoreClient;
use kv_example::*;
use plugin_sdk::host::{Contract, Launch, Supervisor};
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // What plugins log, and what becomes of them, is in the host's log: without one nobody sees it.
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let program = std::env::current_exe()?.with_file_name("kv-plugin");
    once(&program).await?;
    kept_running(&program).await
}

fn launch(program: &Path) -> Launch {
    Launch::new(program, Contract::new(cookie(), [VERSION])).name("kv")
}

/// One instance: started, called, called back by it, stopped.
async fn once(program: &Path) -> Result<(), Box<dyn Error>> {
    let plugin = launch(program).start().await?;
    let mut store = StoreClient::new(plugin.channel());

    // A server of this host for the plugin, which learns its number with the call and has 5 s to dial it, once.
    // It ends when `guard` is dropped.
    let number = plugin.broker().next_id();
    let guard = plugin.broker().accept_and_serve(number, Routes::new(GuardServer::new(NoSecrets))).await?;
    let refused = store.put(PutRequest { key: "secret".into(), value: vec![1], guard: number }).await;
    println!("secret: {}", refused.unwrap_err().message());
    drop(guard);

    println!("{}", plugin.shutdown().await);
    Ok(())
}

/// Whichever instance runs: started again when it ends, exchanged without a call being lost.
async fn kept_running(program: &Path) -> Result<(), Box<dyn Error>> {
    let plugin = Supervisor::launch(launch(program)).warm_up(hand_over).start();
    plugin.handle().start().await?; // Until it serves, or why it does not.
    let mut store = StoreClient::new(plugin.channel()); // For all instances to come.

    store.put(PutRequest { key: "greeting".into(), value: b"hello".into(), guard: 0 }).await?;
    plugin.handle().reload(None).await?; // The same file here; mostly a new one.
    let greeting = store.get(GetRequest { key: "greeting".into() }).await?.into_inner().value;
    println!("greeting: {}", String::from_utf8(greeting.ok_or("lost")?)?);
    println!("reloads: {}", plugin.status().borrow().swaps);

    plugin.shutdown().await;
    Ok(())
}

/// The new process knows nothing of what the old one has in memory. This is the time to tell it.
async fn hand_over(old: Channel, new: Channel) -> Result<(), Status> {
    let kept = StoreClient::new(old).list(ListRequest {}).await?.into_inner();
    let mut new = StoreClient::new(new);
    for (key, value) in kept.entries {
        new.put(PutRequest { key, value, guard: 0 }).await?;
    }
    Ok(())
}

struct NoSecrets;

#[tonic::async_trait]
impl Guard for NoSecrets {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        match request.get_ref().key.as_str() {
            "secret" => Err(Status::permission_denied("not to be written")),
            _ => Ok(Response::new(CheckResponse {})),
        }
    }
}
