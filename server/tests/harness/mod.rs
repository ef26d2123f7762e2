//! A server without plugin inside the test's process, and clients that say exactly what they are told to.

// The lint knows test functions only, and all of this is called by them.
#![allow(clippy::unwrap_used)]

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    thread::{self, JoinHandle},
    time::Duration,
};

use fib_server::{Config, Service};
use tokio::sync::oneshot;

/// Longer than anything here should take, so that a test that hangs says so.
const LIMIT: Duration = Duration::from_secs(20);

/// A running server. It stops, and its thread is waited for, when this is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// With flags beside `--port=0`.
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::start_with(flags, |_| ())
    }

    /// With flags, and with changes that no flag can make.
    pub(crate) fn start_with(flags: &[&str], change: impl FnOnce(&mut Config)) -> Self {
        let fixed = ["fib-server", "--port=0", "--host=127.0.0.1"];
        let mut config = Config::parse(fixed.iter().chain(flags)).unwrap();
        change(&mut config);
        let (stop, stopped) = oneshot::channel();
        let (tell, address) = std::sync::mpsc::channel();
        // One thread for all connections: they are served in the order in which they became readable, on which
        // `Server::has_read_what_was_sent` relies.
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let service = Service::bind(config).await.unwrap();
                tell.send(service.address()).unwrap();
                service.run(async { drop(stopped.await) }).await;
            });
        });
        Self { address: address.recv().unwrap(), stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client(BufReader::new(stream))
    }

    /// One request on a connection of its own.
    pub(crate) fn get(&self, path: &str) -> Response {
        let mut client = self.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"));
        client.response()
    }

    /// Returns when the server has acted on all bytes that any client has sent before.
    pub(crate) fn has_read_what_was_sent(&self) {
        assert_eq!(self.get("/healthz").status, 200);
    }

    /// Tells the server to stop, and does not wait for it.
    pub(crate) fn begin_to_stop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
    }

    /// Waits for the end of the server.
    pub(crate) fn stopped(mut self) {
        self.begin_to_stop();
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.begin_to_stop();
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// One connection.
pub(crate) struct Client(BufReader<TcpStream>);

impl Client {
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap();
    }

    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.0.get_mut().write_all(bytes.as_ref())
    }

    /// The next response to a request that is not HEAD.
    pub(crate) fn response(&mut self) -> Response {
        let mut response = self.head();
        let length = response.header("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        response.body = String::from_utf8(body).unwrap();
        response
    }

    /// The head of the next response.
    pub(crate) fn head(&mut self) -> Response {
        let status_line = self.line();
        let status =
            status_line.split(' ').nth(1).unwrap_or_else(|| panic!("{status_line:?}")).parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = self.line();
            match line.split_once(": ") {
                Some((name, value)) => headers.push((name.to_lowercase(), value.to_owned())),
                None => break,
            }
        }
        Response { status, headers, body: String::new() }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Waits until the server closes the connection; what it still said is returned. A reset counts as closed.
    pub(crate) fn closed(&mut self) -> String {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => (),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => (),
            Err(error) => panic!("the connection is not closed: {error}"),
        }
        String::from_utf8(rest).unwrap()
    }
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert!(self.body.ends_with('\n'));
        serde_json::from_str(&self.body).unwrap()
    }
}
