//! The host: keeps the plugin running, calls it, and exchanges it.

use std::error::Error;

use kv_example::guard_server::{Guard, GuardServer};
use kv_example::store_client::StoreClient;
use kv_example::*;
use plugin_sdk::BrokeredServer;
use plugin_sdk::host::{Contract, Launch, NewInstance, Supervisor};
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // What plugins log, and what becomes of them, is in the host's log: without one nobody sees it.
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let program = std::env::current_exe()?.with_file_name("kv-plugin");
    let launch = Launch::new(program, Contract::new(COOKIE, [VERSION])).name("kv");

    let plugin = Supervisor::launch(launch).prepare(introduce).warm_up(hand_over).start();
    plugin.ready().await?;
    let mut store = StoreClient::new(plugin.channel()); // For this instance and all that follow.

    let refused = store.put(PutRequest { key: "secret".into(), value: vec![1] }).await;
    println!("secret: {}", refused.unwrap_err().message());

    store.put(PutRequest { key: "greeting".into(), value: b"hello".into() }).await?;
    plugin.handle().reload(None).await?; // The same file here; mostly a new one.
    let greeting = store.get(GetRequest { key: "greeting".into() }).await?.into_inner().value;
    println!("greeting after a reload: {}", String::from_utf8(greeting.ok_or("lost")?)?);

    if let Some(exit) = plugin.shutdown().await {
        println!("{exit}");
    }
    Ok(())
}

/// Serves to each new instance what the plugin may ask its host for. What is returned is kept for as long as the instance lives.
async fn introduce(new: NewInstance) -> Result<BrokeredServer, Status> {
    let number = new.broker.next_id();
    let server = new.broker.accept_and_serve(number, Routes::new(GuardServer::new(NoSecrets))).await?;
    StoreClient::new(new.channel).use_guard(UseGuardRequest { number }).await?;
    Ok(server)
}

/// In a reload, tells the new instance what the old one has in memory.
async fn hand_over(old: Channel, new: Channel) -> Result<(), Status> {
    let kept = StoreClient::new(old).list(ListRequest {}).await?.into_inner();
    let mut new = StoreClient::new(new);
    for (key, value) in kept.entries {
        new.put(PutRequest { key, value }).await?;
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
