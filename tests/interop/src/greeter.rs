//! What our host serves to plugins through the broker.

use sample_plugin::sample_server::Sample;
use tonic::{Request, Response, Status, Streaming};

/// Answers `Echo` with a greeting, and nothing else.
#[derive(Debug, Clone, Copy)]
pub struct Greeter;

#[tonic::async_trait]
impl Sample for Greeter {
    async fn echo(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, Status> {
        Ok(Response::new([b"host got ", request.get_ref().as_slice()].concat()))
    }

    type ChatStream = tokio_stream::Empty<Result<String, Status>>;

    async fn chat(&self, _: Request<Streaming<String>>) -> Result<Response<Self::ChatStream>, Status> {
        not_here()
    }

    async fn who(&self, _: Request<()>) -> Result<Response<String>, Status> {
        not_here()
    }

    async fn env(&self, _: Request<String>) -> Result<Response<String>, Status> {
        not_here()
    }

    async fn print(&self, _: Request<String>) -> Result<Response<()>, Status> {
        not_here()
    }

    async fn log(&self, _: Request<String>) -> Result<Response<()>, Status> {
        not_here()
    }

    async fn call_back(&self, _: Request<u32>) -> Result<Response<Vec<u8>>, Status> {
        not_here()
    }

    async fn lend(&self, _: Request<()>) -> Result<Response<u32>, Status> {
        not_here()
    }

    async fn hang(&self, _: Request<()>) -> Result<Response<()>, Status> {
        not_here()
    }

    async fn cancelled(&self, _: Request<()>) -> Result<Response<u32>, Status> {
        not_here()
    }

    async fn die(&self, _: Request<String>) -> Result<Response<()>, Status> {
        not_here()
    }
}

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not here"))
}
