//! What is counted. Each function's own instructions and those of all that it calls count; how its argument was made, and
//! what becomes of its result, does not.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "the macros make items, and what fails here is a mistake of ours"
)]

use std::{
    future::Future,
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
};

use cache_proto::{
    CacheService, GetRequest, GetResponse, PipeRequest, PipeResponse, SetRequest, SetResponse,
    cache_server::CacheServer,
};
use fib_cache_memory::{Limits, MemoryCache};
use fib_server::cache::Round;
use gungraun::{Callgrind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main};
use http_body_util::{BodyExt, Full};
use plugin_sdk::{AppVersions, HandshakeLine};
use prost::{Message, bytes::Bytes};
use tower::Service;

/// A line on a plugin's stdout, and what its host expects.
struct Printed {
    line: String,
    versions: AppVersions,
    certificate: bool,
}

fn plain() -> Printed {
    let line = "1|1|unix|/run/user/1000/plugin-3f9a/plugin3889388928|grpc|\n".to_owned();
    Printed { line, versions: [1].into_iter().collect(), certificate: false }
}

/// As with AutoMTLS: the certificate is as long as go-plugin's are, and is not looked into.
fn with_certificate() -> Printed {
    let Printed { line, versions, .. } = plain();
    Printed { line: line.trim_end().to_owned() + &"MIIC".repeat(200) + "\n", versions, certificate: true }
}

#[library_benchmark]
#[bench::plain(plain())]
#[bench::auto_mtls(with_certificate())]
fn handshake_line(printed: Printed) -> (HandshakeLine, Printed) {
    let Printed { line, versions, certificate } = &printed;
    let parsed = plugin_sdk::parse_line(black_box(line.as_bytes()), versions, *certificate);
    (parsed.unwrap(), printed)
}

// From the callers' calls in the queue to each one's answer.
#[library_benchmark]
#[bench::of_1(Round::of(1))]
#[bench::of_64(Round::of(64))]
fn batch(mut round: Round) -> (PipeRequest, usize, Round) {
    let (request, answered) = black_box(&mut round).fly();
    (request, answered, round)
}

type Memory = CacheServer<CacheService<MemoryCache>>;

/// A request as it comes in to the plugin `memory`, and what answers it.
struct Incoming {
    service: Memory,
    request: http::Request<Full<Bytes>>,
}

impl Incoming {
    /// The plugin has all 64 keys that will be asked for.
    fn new(method: &str, message: &impl Message) -> Self {
        let cache = MemoryCache::new(Limits { max_entries: 100_000, max_bytes: 64 << 20 });
        let mut service = CacheServer::new(CacheService::new(cache));
        for n in 0..64_u8 {
            let ttl = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
            let set = SetRequest { key: n.to_string(), value: "12200160415121876738".into(), ttl };
            let set = request("Set", &set);
            answer::<SetResponse>(&now(call(&mut service, set)));
        }
        Self { service, request: request(method, message) }
    }

    fn get() -> Self {
        Self::new("Get", &GetRequest { key: "7".into() })
    }

    fn pipe() -> Self {
        let gets = (0..64_u8).map(|n| n.to_string()).collect();
        Self::new("Pipe", &PipeRequest { batch: 1, gets, sets: Vec::new() })
    }
}

// Bytes come in, bytes go out: all of the service but HTTP/2.
#[library_benchmark]
#[bench::get(args = (Incoming::get()), teardown = has_value)]
#[bench::pipe_of_64(args = (Incoming::pipe()), teardown = has_64_values)]
fn memory(incoming: Incoming) -> (Bytes, Memory) {
    let Incoming { mut service, request } = incoming;
    (now(call(&mut service, black_box(request))), service)
}

fn has_value((body, _): (Bytes, Memory)) {
    assert!(is_hit(&answer(&body)));
}

fn has_64_values((body, _): (Bytes, Memory)) {
    let PipeResponse { gets, .. } = answer(&body);
    assert_eq!(gets.iter().filter(|get| is_hit(get)).count(), 64);
}

fn is_hit(response: &GetResponse) -> bool {
    matches!(response.outcome, Some(cache_proto::get_response::Outcome::Hit(_)))
}

/// A call of gRPC with one message: no compression, its length, itself.
fn request(method: &str, message: &impl Message) -> http::Request<Full<Bytes>> {
    let message = message.encode_to_vec();
    let mut body = vec![0];
    body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend(message);
    let request = http::Request::post(format!("http://plugin/cache.v1.Cache/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    request.body(Full::new(body.into())).unwrap()
}

async fn call(service: &mut Memory, request: http::Request<Full<Bytes>>) -> Bytes {
    let Ok(response) = service.call(request).await;
    response.into_body().collect().await.unwrap().to_bytes()
}

/// The one message of an answer.
fn answer<M: Message + Default>(body: &Bytes) -> M {
    M::decode(&body[5..]).unwrap()
}

/// Runs what has nothing to wait for.
fn now<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

library_benchmark_group!(name = all; benchmarks = handshake_line, batch, memory);
main!(
    config = LibraryBenchmarkConfig::default().tool(Callgrind::with_args(["--cache-sim=no"]));
    library_benchmark_groups = all
);
