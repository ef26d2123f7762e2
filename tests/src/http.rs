//! A client that sends exactly what it is told, wrong things included.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::wait::LIMIT;

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// 200 and so on.
    pub status: u16,
    /// The head, as it came.
    pub head: String,
    /// The body, as it came.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of that name, in lower case or not.
    pub fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The `Cache-Status` header; empty if there is none.
    pub fn cache_status(&self) -> &str {
        self.header("cache-status").unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Reads the first answer in `bytes`; a body ends after its `Content-Length`.
    fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let (head, rest) = bytes.split_at(end);
        let head = String::from_utf8_lossy(head).into_owned();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let mut response = Self { status, head, body: Vec::new() };
        let (body, rest) = rest.split_at(rest.len().min(response.length()));
        response.body = body.to_vec();
        Some((response, rest))
    }

    fn is_whole(&self) -> bool {
        self.body.len() == self.length()
    }

    /// How long the body is said to be.
    fn length(&self) -> usize {
        self.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0)
    }
}

/// A connection that stays open from one request to the next.
pub struct Connection {
    stream: TcpStream,
    /// What has come and belongs to no answer yet.
    received: Vec<u8>,
}

impl Connection {
    /// Opens one.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::new() })
    }

    /// Sends these bytes, and waits for nothing.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Asks with GET, and waits for the whole answer.
    pub fn get(&mut self, target: &str) -> io::Result<Response> {
        self.stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
        let mut piece = [0; 4096];
        loop {
            if let Some((response, rest)) = Response::parse(&self.received)
                && response.is_whole()
            {
                self.received = rest.to_vec();
                return Ok(response);
            }
            match self.stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.received.extend_from_slice(&piece[..count]),
            }
        }
    }
}

/// Opens a connection that never blocks for longer than [`LIMIT`].
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// Sends a request without a body on a connection of its own.
pub fn send(address: SocketAddr, method: &str, target: &str) -> io::Result<Response> {
    send_raw(address, request(method, target).as_bytes())
}

/// Sends these bytes on a connection of its own and gives the first answer.
pub fn send_raw(address: SocketAddr, bytes: &[u8]) -> io::Result<Response> {
    let mut stream = connect(address)?;
    // A server may answer and close before it has read everything.
    let sent = stream.write_all(bytes);
    let mut received = Vec::new();
    let ended = stream.read_to_end(&mut received);
    match Response::parse(&received) {
        Some((response, _)) => Ok(response),
        None => Err(sent.and(ended).err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())),
    }
}

/// Reads to the end of the connection and gives all answers.
pub fn receive_all(mut stream: TcpStream) -> io::Result<Vec<Response>> {
    let mut received = Vec::new();
    stream.read_to_end(&mut received)?;
    let mut rest = &received[..];
    let mut responses = Vec::new();
    while let Some((response, after)) = Response::parse(rest) {
        responses.push(response);
        rest = after;
    }
    Ok(responses)
}

/// The bytes of a request without a body, after which the server closes the connection.
pub fn request(method: &str, target: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}
