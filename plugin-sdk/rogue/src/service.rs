//! gRPC by hand: each call is one HTTP/2 request with a five-byte prefix before its message, and each answer ends
//! in a `grpc-status` trailer.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::process::{ExitCode, exit};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::vec;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::fault::Late;
use crate::handshake::{self, Line, announce, say};
use crate::{Code, Methods};

/// Serves, with this fault, until told to stop.
pub(crate) fn run(fault: Late, line: &Line, methods: impl Methods) -> io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(fault, line, methods))
}

async fn serve(fault: Late, line: &Line, methods: impl Methods) -> io::Result<ExitCode> {
    let listener = handshake::bind()?;
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    tokio::spawn(stop_on_signal(fault));
    if fault == Late::LogsFirst {
        say("INFO starting up\nINFO reading the index\n")?;
    }
    announce(line)?;
    crate::begin(fault)?;
    let plugin = Arc::new(Plugin { fault, calls: AtomicUsize::new(0), methods });
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

struct Plugin<M> {
    fault: Late,
    calls: AtomicUsize,
    methods: M,
}

type Reply = Response<StreamBody<tokio_stream::Iter<vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>>;

impl<M: Methods> Plugin<M> {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Reply, hyper::Error> {
        let path = request.uri().path().to_owned();
        if is_application(&path) && !self.methods.has(&path) {
            return Ok(reply(Err(Code::UNIMPLEMENTED)));
        }
        let body = request.into_body().collect().await?.to_bytes();
        let message = body.get(5..).unwrap_or_default();
        Ok(reply(self.call(&path, message).await))
    }

    async fn call(&self, path: &str, message: &[u8]) -> Result<Vec<u8>, Code> {
        match path {
            "/grpc.health.v1.Health/Check" => self.health(),
            "/plugin.GRPCController/Shutdown" if self.fault == Late::IgnoreTerm => pending().await,
            "/plugin.GRPCController/Shutdown" => stop(),
            // What the host's side of the SDK asks for by itself. This plugin is no better than it has to be.
            _ if !is_application(path) => Err(Code::UNIMPLEMENTED),
            _ => self.application(path, message).await,
        }
    }

    /// A `HealthCheckResponse` is one enumeration in field 1: 1 is SERVING, 2 is NOT_SERVING.
    fn health(&self) -> Result<Vec<u8>, Code> {
        match self.fault {
            Late::NoHealth => Err(Code::UNIMPLEMENTED),
            Late::NotServing => Ok(vec![0x08, 2]),
            _ => Ok(vec![0x08, 1]),
        }
    }

    async fn application(&self, path: &str, message: &[u8]) -> Result<Vec<u8>, Code> {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        match self.fault {
            Late::DieAfter(limit) if calls > limit => exit(9),
            Late::Slow(duration) => tokio::time::sleep(duration).await,
            Late::Hang => pending().await,
            Late::Status(code) => return Err(code),
            // A field that is longer than all that there is.
            Late::Garbage => return Ok(vec![0x0a, 0x7f]),
            _ => {}
        }
        self.methods.call(path, message).await
    }
}

fn is_application(path: &str) -> bool {
    !path.starts_with("/plugin.GRPC") && !path.starts_with("/grpc.")
}

fn reply(answer: Result<Vec<u8>, Code>) -> Reply {
    let (message, code) = match answer {
        Ok(message) => (Some(Frame::data(prefixed(&message))), Code(0)),
        Err(code) => (None, code),
    };
    let status = (HeaderName::from_static("grpc-status"), HeaderValue::from(code.0));
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
