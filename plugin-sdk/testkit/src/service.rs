//! Any gRPC service: messages are bytes, methods are looked up while the plugin runs.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body as AxumBody;
use axum::response::IntoResponse;
use bytes::{Buf, BufMut, Bytes};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use tokio_stream::{Stream, StreamExt};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Service};
use tonic::metadata::MetadataMap;
use tonic::server::Grpc;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::fake::{Call, State};
use crate::reply::{End, Outcome};

/// All services that the SDK does not serve itself.
pub(crate) fn routes(state: Arc<State>) -> Routes {
    Routes::from(axum::Router::new().fallback(move |request: http::Request<AxumBody>| {
        let state = Arc::clone(&state);
        async move {
            if !is_grpc(request.headers()) {
                return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
            }
            let path = request.uri().path().trim_start_matches('/').to_owned();
            let mut grpc = Grpc::new(Raw).max_decoding_message_size(usize::MAX);
            grpc.streaming(Method { path, state }, request).await.into_response()
        }
    }))
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// One method, for one call.
struct Method {
    path: String,
    state: Arc<State>,
}

type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

impl Service<Request<Streaming<Bytes>>> for Method {
    type Response = Response<Messages>;
    type Error = Status;
    type Future = BoxFuture<Response<Messages>, Status>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let (path, state) = (self.path.clone(), Arc::clone(&self.state));
        Box::pin(async move {
            let (metadata, _, messages) = request.into_parts();
            // Nobody waits for the end of a stream to say that there is no such method.
            let limit = if state.has_reply(&path) { usize::MAX } else { 1 };
            let call = Call { metadata, messages: read(messages, limit).await? };
            let reply = state.reply(&path, call);
            tokio::time::sleep(reply.after).await;
            match reply.outcome {
                Outcome::Answer { messages, end } => answer(reply.metadata, messages, end).await,
                Outcome::Crash => {
                    state.crash();
                    std::future::pending().await
                }
            }
        })
    }
}

/// All that the host sends, up to so many messages.
async fn read(mut messages: Streaming<Bytes>, limit: usize) -> Result<Vec<Bytes>, Status> {
    let mut read = Vec::new();
    while read.len() < limit
        && let Some(message) = messages.message().await?
    {
        read.push(message);
    }
    Ok(read)
}

async fn answer(metadata: MetadataMap, messages: Vec<Bytes>, end: End) -> Result<Response<Messages>, Status> {
    let only_an_end = messages.is_empty() && metadata.is_empty();
    let messages = tokio_stream::iter(messages.into_iter().map(Ok));
    let stream: Messages = match end {
        End::Status(Err(status)) if only_an_end => return Err(status),
        End::Never if only_an_end => std::future::pending().await,
        End::Status(Ok(())) => Box::pin(messages),
        End::Status(Err(status)) => Box::pin(messages.chain(tokio_stream::once(Err(status)))),
        End::Never => Box::pin(messages.chain(tokio_stream::pending())),
    };
    let mut response = Response::new(stream);
    *response.metadata_mut() = metadata;
    Ok(response)
}

/// Messages as they are.
#[derive(Debug, Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
