//! The plugin: keeps values in memory.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kv_example::guard_client::GuardClient;
use kv_example::store_server::{Store, StoreServer};
use kv_example::*;
use plugin_sdk::plugin::PluginBuilder;
use plugin_sdk::{Broker, BrokerError, one_line};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

fn main() -> ExitCode {
    PluginBuilder::new(cookie())
        .descriptors(DESCRIPTORS)
        .version(VERSION, |_context| Routes::new(StoreServer::new(Memory::default())))
        .run()
}

#[derive(Default)]
struct Memory(Mutex<HashMap<String, Vec<u8>>>);

impl Memory {
    fn entries(&self) -> MutexGuard<'_, HashMap<String, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl Store for Memory {
    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let broker = Broker::of(&request);
        let PutRequest { key, value, guard } = request.into_inner();
        if guard != 0 {
            let channel = broker.map_err(unavailable)?.dial(guard).await.map_err(unavailable)?;
            GuardClient::new(channel).check(CheckRequest { key: key.clone() }).await?;
        }
        self.entries().insert(key, value);
        Ok(Response::new(PutResponse {}))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let value = self.entries().get(&request.get_ref().key).cloned();
        Ok(Response::new(GetResponse { value }))
    }

    async fn list(&self, _request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        Ok(Response::new(ListResponse { entries: self.entries().clone() }))
    }
}

fn unavailable(error: BrokerError) -> Status {
    Status::unavailable(one_line(&error).to_string())
}
