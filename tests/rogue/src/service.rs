//! gRPC by hand: each call is one HTTP/2 request with a five-byte prefix before its message, and each answer ends
//! in a `grpc-status` trailer.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::process::{ExitCode, exit};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::vec;

use bytes::{BufMut, Bytes, BytesMut};
use cache_proto::get_response::Outcome;
use cache_proto::{GetRequest, GetResponse, Hit, Miss, MissReason, SetRequest, SetResponse};
use cache_proto::{StatsRequest, StatsResponse};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::fault::Late;
use crate::handshake::{self, Line, announce, say};

/// Serves, with this fault, until told to stop.
pub(crate) fn run(fault: Late) -> io::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(fault))
}

async fn serve(fault: Late) -> io::Result<ExitCode> {
    let listener = handshake::bind()?;
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    tokio::spawn(stop_on_signal(fault));
    if fault == Late::LogsFirst {
        say("INFO starting up\nINFO reading the index\n")?;
    }
    announce(&Line::default())?;
    crate::begin(fault)?;
    let plugin = Arc::new(Plugin { fault, calls: AtomicUsize::new(0), entries: Mutex::default() });
    loop {
        let (stream, _) = listener.accept().await?;
        let plugin = Arc::clone(&plugin);
        let answer = service_fn(move |request| Arc::clone(&plugin).answer(request));
        tokio::spawn(
            http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer),
        );
    }
}

async fn stop_on_signal(fault: Late) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    while terminate.recv().await.is_some() {
        if fault != Late::IgnoreTerm {
            stop();
        }
    }
    Ok(())
}

/// Ends the process as a Go plugin does: at once, and with its socket removed.
fn stop() -> ! {
    let _gone_already = std::fs::remove_file(handshake::socket_path());
    exit(0)
}

struct Plugin {
    fault: Late,
    calls: AtomicUsize,
    entries: Mutex<HashMap<String, Bytes>>,
}

type Reply = Response<StreamBody<tokio_stream::Iter<vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>>;

impl Plugin {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Reply, hyper::Error> {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await?.to_bytes();
        let message = body.get(5..).unwrap_or_default();
        Ok(reply(self.call(&path, message).await))
    }

    async fn call(&self, path: &str, message: &[u8]) -> Result<Vec<u8>, Code> {
        match path {
            "/grpc.health.v1.Health/Check" => self.health(),
            "/plugin.GRPCController/Shutdown" if self.fault == Late::IgnoreTerm => pending().await,
            "/plugin.GRPCController/Shutdown" => stop(),
            "/cache.v1.Cache/Get" => self.get(read(message)?).await,
            "/cache.v1.Cache/Set" => self.set(read(message)?),
            "/cache.v1.Cache/Stats" => self.stats(read(message)?),
            _ => Err(Code::Unimplemented),
        }
    }

    /// A `HealthCheckResponse` is one enumeration in field 1: 1 is SERVING, 2 is NOT_SERVING.
    fn health(&self) -> Result<Vec<u8>, Code> {
        match self.fault {
            Late::NoHealth => Err(Code::Unimplemented),
            Late::NotServing => Ok(vec![0x08, 2]),
            _ => Ok(vec![0x08, 1]),
        }
    }

    async fn get(&self, request: GetRequest) -> Result<Vec<u8>, Code> {
        self.count_call();
        match self.fault {
            Late::ErrorOnGet => return Err(Code::Internal),
            Late::Slow(duration) => tokio::time::sleep(duration).await,
            _ => {}
        }
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match self.fault {
            Late::CorruptValues => Some(Bytes::from_static(b"forty-two")),
            _ => entries.get(&request.key).cloned(),
        };
        let outcome = match found {
            Some(value) => Outcome::Hit(Hit { value, ttl_remaining: None }),
            None => Outcome::Miss(Miss { reason: MissReason::NotFound.into() }),
        };
        Ok(GetResponse { outcome: Some(outcome) }.encode_to_vec())
    }

    fn set(&self, request: SetRequest) -> Result<Vec<u8>, Code> {
        self.count_call();
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).insert(request.key, request.value);
        Ok(SetResponse {}.encode_to_vec())
    }

    fn stats(&self, _request: StatsRequest) -> Result<Vec<u8>, Code> {
        if self.fault == Late::Unimplemented {
            return Err(Code::Unimplemented);
        }
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner).len();
        Ok(StatsResponse { entries: entries as u64, ..StatsResponse::default() }.encode_to_vec())
    }

    fn count_call(&self) {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        if matches!(self.fault, Late::DieAfter(limit) if calls > limit) {
            exit(9);
        }
    }
}

/// gRPC's numbers for the statuses used here.
#[derive(Clone, Copy)]
enum Code {
    Ok = 0,
    InvalidArgument = 3,
    Unimplemented = 12,
    Internal = 13,
}

fn read<M: Message + Default>(message: &[u8]) -> Result<M, Code> {
    M::decode(message).map_err(|_| Code::InvalidArgument)
}

fn reply(answer: Result<Vec<u8>, Code>) -> Reply {
    let (message, code) = match answer {
        Ok(message) => (Some(Frame::data(prefixed(&message))), Code::Ok),
        Err(code) => (None, code),
    };
    let status = (HeaderName::from_static("grpc-status"), HeaderValue::from(code as u16));
    let trailers = Frame::trailers(HeaderMap::from_iter([status]));
    let frames: Vec<_> = message.into_iter().chain([trailers]).map(Ok).collect();
    let mut response = Response::new(StreamBody::new(tokio_stream::iter(frames)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// One message as gRPC sends it: not compressed, its length, itself.
fn prefixed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(message);
    frame.freeze()
}
