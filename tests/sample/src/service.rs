//! The whole service, on top of what the SDK gives to a plugin's services.

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plugin_sdk::plugin::{Closing, Context, HealthReporter};
use plugin_sdk::{Broker, BrokeredServer};
use prost::Message;
use prost_types::Any;
use tokio_stream::{Stream, StreamExt};
use tonic::metadata::{AsciiMetadataValue, BinaryMetadataValue, MetadataMap};
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::sample_client::SampleClient;
use crate::sample_server::{Sample, SampleServer};

/// Does whatever a test asks it to.
#[derive(Debug, Clone)]
pub struct Service {
    version: u32,
    health: HealthReporter,
    closing: Closing,
    cancelled: Arc<AtomicU32>,
    /// Servers lent through the broker; they end with the plugin.
    lent: Arc<Mutex<Vec<BrokeredServer>>>,
}

impl Service {
    /// Serves the version that was agreed on.
    #[must_use]
    pub fn new(context: &Context) -> Self {
        Self {
            version: context.app_version().get(),
            health: context.health().clone(),
            closing: context.closing(),
            cancelled: Arc::default(),
            lent: Arc::default(),
        }
    }
}

#[tonic::async_trait]
impl Sample for Service {
    async fn echo(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, Status> {
        Ok(Response::new(request.into_inner()))
    }

    type ChatStream = Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;

    async fn chat(&self, request: Request<Streaming<String>>) -> Result<Response<Self::ChatStream>, Status> {
        let headers = mirrored(request.metadata());
        let answers = self.closing.ends(request.into_inner()).map(|text| match text?.as_str() {
            "fail" => Err(rich_status()),
            text => Ok(text.to_owned()),
        });
        let mut response: Response<Self::ChatStream> = Response::new(Box::pin(answers));
        *response.metadata_mut() = headers;
        Ok(response)
    }

    async fn who(&self, _request: Request<()>) -> Result<Response<String>, Status> {
        Ok(Response::new(format!("rust {}", self.version)))
    }

    async fn env(&self, request: Request<String>) -> Result<Response<String>, Status> {
        let value = std::env::var(request.get_ref());
        value.map(Response::new).map_err(|_| Status::not_found("not set"))
    }

    #[expect(clippy::print_stdout, reason = "this is what the capture of stdout is for")]
    async fn print(&self, request: Request<String>) -> Result<Response<()>, Status> {
        let times = request.metadata().get("times").and_then(|times| times.to_str().ok()?.parse().ok());
        for _ in 0..times.unwrap_or(1) {
            println!("{}", request.get_ref());
        }
        Ok(Response::new(()))
    }

    async fn log(&self, request: Request<String>) -> Result<Response<()>, Status> {
        tracing::warn!(answer = 42, "{}", request.get_ref());
        Ok(Response::new(()))
    }

    async fn call_back(&self, request: Request<u32>) -> Result<Response<Vec<u8>>, Status> {
        let channel = Broker::of(&request)?.dial(*request.get_ref()).await?;
        SampleClient::new(channel).echo(b"from plugin".to_vec()).await
    }

    async fn lend(&self, request: Request<()>) -> Result<Response<u32>, Status> {
        let broker = Broker::of(&request)?;
        let routes = Routes::new(SampleServer::new(self.clone()));
        let server = broker.accept_and_serve(broker.next_id(), routes).await?;
        let id = server.id();
        self.lent.lock().map_err(|_| Status::internal("poisoned"))?.push(server);
        Ok(Response::new(id))
    }

    async fn hang(&self, request: Request<()>) -> Result<Response<()>, Status> {
        let _count = CountOnDrop(Arc::clone(&self.cancelled));
        match request.metadata().get("millis").and_then(|millis| millis.to_str().ok()?.parse().ok()) {
            Some(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
            None => std::future::pending().await,
        }
        Ok(Response::new(()))
    }

    async fn cancelled(&self, _request: Request<()>) -> Result<Response<u32>, Status> {
        Ok(Response::new(self.cancelled.load(Ordering::SeqCst)))
    }

    async fn die(&self, request: Request<String>) -> Result<Response<()>, Status> {
        match request.get_ref().split_once(' ').unwrap_or((request.get_ref(), "")) {
            ("exit", code) => std::process::exit(code.parse().unwrap_or(1)),
            ("unwell", _) => {
                self.health.set_not_serving();
                Ok(Response::new(()))
            }
            ("well", _) => {
                self.health.set_serving();
                Ok(Response::new(()))
            }
            ("panic", text) => panic!("{text}"),
            ("abort", _) => std::process::abort(),
            ("stop", _) => {
                let stopped =
                    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
                stopped.map(Response::new).map_err(|error| Status::internal(error.to_string()))
            }
            (other, _) => Err(Status::invalid_argument(format!("cannot die by {other:?}"))),
        }
    }
}

/// What of a call's metadata is meant to come back: names that begin with `mirror-`.
fn mirrored(metadata: &MetadataMap) -> MetadataMap {
    let mut headers = metadata.clone().into_headers();
    let others = headers.keys().filter(|name| !name.as_str().starts_with("mirror-")).cloned();
    for name in others.collect::<Vec<_>>() {
        headers.remove(name);
    }
    MetadataMap::from_headers(headers)
}

/// A status with all that one can have: code, message, details and metadata.
fn rich_status() -> Status {
    let info = Any { type_url: "type.googleapis.com/google.rpc.ErrorInfo".to_owned(), value: Vec::new() };
    let details =
        RpcStatus { code: Code::FailedPrecondition.into(), message: String::new(), details: vec![info] };
    let mut metadata = MetadataMap::new();
    metadata.insert("reason", AsciiMetadataValue::from_static("on purpose"));
    metadata.insert_bin("reason-bin", BinaryMetadataValue::from_bytes(&[0, 255]));
    let details = details.encode_to_vec().into();
    Status::with_details_and_metadata(Code::FailedPrecondition, "as asked", details, metadata)
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// Counts a call that was dropped before its end, which is how tonic tells of a cancelled one.
struct CountOnDrop(Arc<AtomicU32>);

impl Drop for CountOnDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
