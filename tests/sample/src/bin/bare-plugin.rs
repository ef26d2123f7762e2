//! A plugin made without the SDK: it prints its line by hand, and serves the application's service and nothing else.
//!
//! ```text
//! --line TEXT       what to print instead of "1|1|unix|{address}|grpc|\n"; {address} stands for the socket's path
//! --close-stdout    closes stdout after the line
//! --flood           prints lines of 100,000 bytes after the line, before anything else
//! --silent          has stdio, broker and controller, whose calls are never answered, not even by headers
//! --ignore-sigterm  takes SIGTERM and goes on
//! ```

use std::convert::Infallible;
use std::future::Pending;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::task::{Context, Poll};

use sample_plugin::Greeter;
use sample_plugin::sample_server::SampleServer;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::Server;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match run(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

async fn run(args: &[String]) -> io::Result<()> {
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let line = args.iter().skip_while(|arg| *arg != "--line").nth(1);
    let line = line.map_or("1|1|unix|{address}|grpc|\n", String::as_str);
    if has("--ignore-sigterm") {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::spawn(async move { while terminate.recv().await.is_some() {} });
    }
    let dir = std::env::var_os("PLUGIN_UNIX_SOCKET_DIR").unwrap_or_else(|| std::env::temp_dir().into());
    let socket = Path::new(&dir).join(format!("bare{}", std::process::id()));
    let listener = UnixListener::bind(&socket)?;
    let mut routes = Routes::new(SampleServer::new(Greeter));
    if has("--silent") {
        routes = routes.add_service(SilentStdio).add_service(SilentBroker).add_service(SilentController);
    }

    io::stdout().write_all(line.replace("{address}", &socket.display().to_string()).as_bytes())?;
    io::stdout().flush()?;
    if has("--close-stdout") {
        rustix::stdio::dup2_stdout(std::fs::File::open("/dev/null")?)?;
    }
    if has("--flood") {
        for _ in 0..10 {
            io::stdout().write_all(format!("{}\n", "x".repeat(100_000)).as_bytes())?;
        }
    }
    let (connections, incoming) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let _ = connections.send(Ok::<_, io::Error>(connection)).await;
        }
    });
    let served = Server::builder().add_routes(routes).serve_with_incoming(ReceiverStream::new(incoming));
    served.await.map_err(io::Error::other)
}

/// A service whose calls are never answered.
macro_rules! silent {
    ($($service:ident = $name:literal;)*) => { $(
        #[derive(Clone)]
        struct $service;

        impl NamedService for $service {
            const NAME: &'static str = $name;
        }

        impl<B> Service<http::Request<B>> for $service {
            type Response = http::Response<Body>;
            type Error = Infallible;
            type Future = Pending<Result<Self::Response, Infallible>>;

            fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, _request: http::Request<B>) -> Self::Future {
                std::future::pending()
            }
        }
    )* };
}

silent! {
    SilentStdio = "plugin.GRPCStdio";
    SilentBroker = "plugin.GRPCBroker";
    SilentController = "plugin.GRPCController";
}
