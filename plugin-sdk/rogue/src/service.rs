//! gRPC by hand: each call is one HTTP/2 request with a five-byte prefix before its message, and each answer ends
//! in a `grpc-status` trailer.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::process::{ExitCode, exit};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::fault::Late;
use crate::handshake::{self, Line, announce, say};
use crate::stream::{Answers, Messages};
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

/// What an answer is made of. Nobody ever has to be told that the host does not listen any more.
pub(crate) type Frames = mpsc::Sender<Result<Frame<Bytes>, Infallible>>;

type Reply = Response<StreamBody<ReceiverStream<Result<Frame<Bytes>, Infallible>>>>;

impl<M: Methods> Plugin<M> {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Reply, hyper::Error> {
        let path = request.uri().path().to_owned();
        let (frames, reply) = reply();
        if !is_application(&path) || self.methods.has(&path) && !self.methods.is_stream(&path) {
            let body = request.into_body().collect().await?.to_bytes();
            let message = body.get(5..).unwrap_or_default();
            finish(&frames, self.call(&path, message).await).await;
        } else if self.methods.has(&path) {
            tokio::spawn(self.stream(path, Messages::new(request.into_body()), frames));
        } else {
            finish(&frames, Err(Code::UNIMPLEMENTED)).await;
        }
        Ok(reply)
    }

    async fn stream(self: Arc<Self>, path: String, messages: Messages, frames: Frames) {
        if let Some(answer) = self.misbehave().await {
            return finish(&frames, answer).await;
        }
        let end = self.methods.stream(&path, messages, Answers(frames.clone())).await;
        end_with(&frames, end.err().unwrap_or(Code(0))).await;
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
        match self.misbehave().await {
            Some(answer) => answer,
            None => self.methods.call(path, message).await,
        }
    }

    /// Does with a call what the fault says, and gives the answer if that has one.
    async fn misbehave(&self) -> Option<Result<Vec<u8>, Code>> {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        match self.fault {
            Late::DieAfter(limit) if calls > limit => exit(9),
            Late::Slow(duration) => tokio::time::sleep(duration).await,
            Late::Hang => pending().await,
            Late::Status(code) => return Some(Err(code)),
            // A field that is longer than all that there is.
            Late::Garbage => return Some(Ok(vec![0x0a, 0x7f])),
            _ => {}
        }
        None
    }
}

fn is_application(path: &str) -> bool {
    !path.starts_with("/plugin.GRPC") && !path.starts_with("/grpc.")
}

/// An answer, and the end by which it is made.
fn reply() -> (Frames, Reply) {
    // Both frames of a simple answer fit.
    let (frames, body) = mpsc::channel(2);
    let mut response = Response::new(StreamBody::new(ReceiverStream::new(body)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    (frames, response)
}

/// Ends an answer with its only message, or without one.
async fn finish(frames: &Frames, answer: Result<Vec<u8>, Code>) {
    let code = match answer {
        Ok(message) => {
            send(frames, &message).await;
            Code(0)
        }
        Err(code) => code,
    };
    end_with(frames, code).await;
}

async fn end_with(frames: &Frames, code: Code) {
    let status = (HeaderName::from_static("grpc-status"), HeaderValue::from(code.0));
    let _nobody_listens = frames.send(Ok(Frame::trailers(HeaderMap::from_iter([status])))).await;
}

/// Sends one message as gRPC does: not compressed, its length, itself.
pub(crate) async fn send(frames: &Frames, message: &[u8]) {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(message);
    let _nobody_listens = frames.send(Ok(Frame::data(frame.freeze()))).await;
}
