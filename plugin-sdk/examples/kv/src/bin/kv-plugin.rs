//! The plugin: keeps values in memory.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use kv_example::guard_client::GuardClient;
use kv_example::store_server::{Store, StoreServer};
use kv_example::*;
use plugin_sdk::Broker;
use plugin_sdk::plugin::PluginBuilder;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

fn main() -> ExitCode {
    PluginBuilder::new(COOKIE)
        .descriptors(DESCRIPTORS)
        .version(VERSION, |_context| Routes::new(StoreServer::new(Memory::default())))
        .run()
}

#[derive(Default)]
struct Memory {
    entries: Mutex<HashMap<String, Vec<u8>>>,
    guard: OnceLock<GuardClient<Channel>>,
}

impl Memory {
    fn entries(&self) -> MutexGuard<'_, HashMap<String, Vec<u8>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl Store for Memory {
    async fn use_guard(
        &self,
        request: Request<UseGuardRequest>,
    ) -> Result<Response<UseGuardResponse>, Status> {
        let channel = Broker::of(&request)?.dial(request.get_ref().number).await?;
        let first = self.guard.set(GuardClient::new(channel));
        first.map_err(|_| Status::already_exists("there is a guard"))?;
        Ok(Response::new(UseGuardResponse {}))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let PutRequest { key, value } = request.into_inner();
        if let Some(guard) = self.guard.get() {
            guard.clone().check(CheckRequest { key: key.clone() }).await?;
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
