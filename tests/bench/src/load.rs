//! Clients that ask without a pause, each on a connection of its own, all on one thread: it shares the processors with
//! the servers, so it does as little as it can.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use memchr::memchr;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

use crate::histogram::Histogram;
use crate::stop;

/// Which numbers are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Keys {
    /// Always the same.
    Hot,
    /// Each of the first few as often as the others, in no order.
    Random,
}

impl Keys {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Random => "random",
        }
    }
}

/// The number of [`Keys::Hot`].
const HOT: u8 = 20;

/// How many numbers [`Keys::Random`] takes.
pub(crate) const RANDOM: u8 = 26;

/// Clients with their connections.
pub(crate) struct Clients {
    epoll: OwnedFd,
    clients: Vec<Client>,
    requests: Vec<Vec<u8>>,
    random: u64,
    /// Whether each has a request out.
    asking: bool,
}

/// What happened in a time.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) answers: u64,
    /// Of these, from the cache.
    pub(crate) hits: u64,
    pub(crate) elapsed: Duration,
    pub(crate) latencies: Histogram,
}

impl Measured {
    fn nothing() -> Self {
        Self { answers: 0, hits: 0, elapsed: Duration::ZERO, latencies: Histogram::new() }
    }

    fn add(&mut self, Answer { hit }: Answer, latency: Duration) {
        self.answers += 1;
        self.hits += u64::from(hit);
        self.latencies.add(latency);
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.answers as f64 / self.elapsed.as_secs_f64()
    }

    pub(crate) fn hit_share(&self) -> f64 {
        // None of none is no share.
        self.hits as f64 / self.answers.max(1) as f64
    }
}

impl Clients {
    /// Connects so many clients.
    pub(crate) fn connect(address: SocketAddr, number: usize, keys: Keys) -> io::Result<Self> {
        let numbers = match keys {
            Keys::Hot => HOT..HOT + 1,
            Keys::Random => 0..RANDOM,
        };
        Self::asking_for(address, number, numbers)
    }

    /// Connects so many clients that ask for one of these numbers each time.
    pub(crate) fn asking_for(
        address: SocketAddr,
        number: usize,
        numbers: impl IntoIterator<Item = u8>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let clients = (0..number).map(|_| Client::connect(address)).collect::<io::Result<Vec<_>>>()?;
        for (index, client) in clients.iter().enumerate() {
            epoll::add(
                &epoll,
                &client.stream,
                epoll::EventData::new_u64(index as u64),
                // Each is told once; else the next wait looks at all of them again.
                epoll::EventFlags::IN | epoll::EventFlags::ET,
            )?;
        }
        let requests = numbers.into_iter().map(request).collect();
        Ok(Self { epoll, clients, requests, random: 0x9e37_79b9_7f4a_7c15, asking: false })
    }

    /// Lets them ask for so long. Requests that are out at the end are answered in the next call. Anything but status
    /// 200 is an error.
    pub(crate) fn ask(&mut self, time: Duration) -> io::Result<Measured> {
        let begun = Instant::now();
        let end = begun + time;
        let mut measured = Measured::nothing();
        if !self.asking {
            for index in 0..self.clients.len() {
                self.send(index, Instant::now())?;
            }
            self.asking = true;
        }
        let mut events = Vec::with_capacity(self.clients.len());
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.wait(&mut events, left)?;
            for event in &events {
                // The number that was given with the connection.
                let index = event.data.u64() as usize;
                if let Some(answer) = self.clients[index].receive()? {
                    let now = Instant::now();
                    measured.add(answer, now - self.clients[index].asked);
                    self.send(index, now)?;
                }
            }
        }
        measured.elapsed = begun.elapsed();
        Ok(measured)
    }

    /// Lets each ask once, until all have an answer.
    pub(crate) fn ask_once(&mut self, patience: Duration) -> io::Result<Measured> {
        let begun = Instant::now();
        for index in 0..self.clients.len() {
            self.send(index, Instant::now())?;
        }
        let mut measured = Measured::nothing();
        let mut waiting = self.clients.len();
        let mut events = Vec::with_capacity(waiting);
        while waiting > 0 {
            let left = patience.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(io::Error::new(ErrorKind::TimedOut, format!("{waiting} clients wait in vain")));
            }
            self.wait(&mut events, left)?;
            for event in &events {
                let client = &mut self.clients[event.data.u64() as usize];
                if let Some(answer) = client.receive()? {
                    measured.add(answer, client.asked.elapsed());
                    waiting -= 1;
                }
            }
        }
        measured.elapsed = begun.elapsed();
        Ok(measured)
    }

    /// Waits for answers, but not for longer than this.
    fn wait(&self, events: &mut Vec<epoll::Event>, time: Duration) -> io::Result<()> {
        stop::check()?;
        events.clear();
        match epoll::wait(&self.epoll, spare_capacity(events), Some(&timespec(time))) {
            // By a signal, which is for the next look.
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn send(&mut self, index: usize, now: Instant) -> io::Result<()> {
        // Marsaglia's xorshift: the same numbers for every server, and next to no work.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let request = &self.requests[(self.random % self.requests.len() as u64) as usize];
        self.clients[index].send(request, now)
    }
}

/// Asks once on a connection of its own, and says whether the answer came from the cache.
pub(crate) fn ask(address: SocketAddr, n: u8, patience: Duration) -> io::Result<bool> {
    let measured = Clients::asking_for(address, 1, [n])?.ask_once(patience)?;
    Ok(measured.hits > 0)
}

/// Asks, and hangs up without waiting for the answer once `meanwhile` has passed.
pub(crate) fn ask_and_leave(address: SocketAddr, n: u8, meanwhile: Duration) -> io::Result<()> {
    let mut client = Client::connect(address)?;
    client.send(&request(n), Instant::now())?;
    std::thread::sleep(meanwhile);
    Ok(())
}

fn request(n: u8) -> Vec<u8> {
    format!("GET /fib/{n} HTTP/1.1\r\nHost: bench\r\n\r\n").into_bytes()
}

struct Client {
    stream: TcpStream,
    asked: Instant,
    received: [u8; LARGEST_ANSWER],
    length: usize,
}

/// Of the servers here; far more than they send.
const LARGEST_ANSWER: usize = 2048;

impl Client {
    fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, asked: Instant::now(), received: [0; LARGEST_ANSWER], length: 0 })
    }

    /// Sends a request. The socket's buffer is empty, since the one before was answered.
    fn send(&mut self, request: &[u8], now: Instant) -> io::Result<()> {
        self.asked = now;
        self.stream.write_all(request)
    }

    /// Reads what is there, and gives the answer once it is whole.
    fn receive(&mut self) -> io::Result<Option<Answer>> {
        match self.stream.read(&mut self.received[self.length..]) {
            Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the server hung up")),
            Ok(length) => self.length += length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
        let answer = Answer::parse(&self.received[..self.length])?;
        if answer.is_some() {
            self.length = 0;
        }
        Ok(answer)
    }
}

/// In the header `Cache-Status`: the answer is from the cache.
const HIT: &[u8] = b"; hit";

/// What matters of an answer with status 200.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    hit: bool,
}

impl Answer {
    /// Reads an answer; `None` if there is more to come.
    fn parse(bytes: &[u8]) -> io::Result<Option<Self>> {
        let (mut rest, mut length, mut hit) = (bytes, None, false);
        loop {
            let Some(end) = memchr(b'\n', rest) else { return Ok(None) };
            let line = rest[..end].trim_ascii_end();
            rest = &rest[end + 1..];
            if line.is_empty() {
                break;
            }
            let Some(colon) = memchr(b':', line) else { continue };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-length") {
                length = str::from_utf8(value).ok().and_then(|value| value.parse::<usize>().ok());
            } else if name.eq_ignore_ascii_case(b"cache-status") {
                hit = value.windows(HIT.len()).any(|part| part == HIT);
            }
        }
        let head = &bytes[..bytes.len() - rest.len()];
        let wrong = |what: &str| {
            io::Error::new(ErrorKind::InvalidData, format!("{what}: {:?}", String::from_utf8_lossy(head)))
        };
        if head.get(9..12) != Some(b"200") {
            return Err(wrong("not 200"));
        }
        let length = length.ok_or_else(|| wrong("no length"))?;
        Ok((rest.len() >= length).then_some(Self { hit }))
    }
}

pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs().cast_signed(), tv_nsec: duration.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_last_byte() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nCache-Status: fib; hit; ttl=9\r\n\r\n55\n";
        for length in 0..text.len() {
            assert_eq!(Answer::parse(&text[..length]).unwrap(), None, "{length}");
        }
        assert_eq!(Answer::parse(text).unwrap(), Some(Answer { hit: true }));
    }

    #[test]
    fn a_miss_is_no_hit_and_a_failure_is_an_error() {
        let miss = b"HTTP/1.1 200 OK\r\ncache-status: fib; fwd=miss\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(Answer::parse(miss).unwrap(), Some(Answer { hit: false }));
        for wrong in [
            &b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"\r\n\r\n",
        ] {
            assert!(Answer::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn every_answer_is_counted_once_and_every_client_asks() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let serving = (0..3).map(|_| {
                let stream = listener.accept().unwrap().0;
                thread::spawn(move || serve(stream))
            });
            let serving: Vec<_> = serving.collect();
            serving.into_iter().map(|client| client.join().unwrap()).collect::<Vec<u64>>()
        });
        let mut clients = Clients::connect(address, 3, Keys::Random).unwrap();
        let mut answers = 0;
        // The second time they go on where they were.
        for _ in 0..2 {
            let measured = clients.ask(Duration::from_millis(50)).unwrap();
            assert_eq!(measured.hits, measured.answers);
            answers += measured.answers;
        }
        drop(clients);
        let served = server.join().unwrap();
        assert!(served.iter().all(|answers| *answers > 0), "{served:?}");
        let served: u64 = served.iter().sum();
        // Each client may have left before its last answer.
        assert!((answers..=answers + 3).contains(&served), "{served} served, {answers} counted");
    }

    #[test]
    fn a_server_that_hangs_up_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut clients = Clients::connect(listener.local_addr().unwrap(), 1, Keys::Hot).unwrap();
        drop(listener.accept().unwrap());
        let error = clients.ask(Duration::from_secs(60)).unwrap_err();
        let kinds = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        assert!(kinds.contains(&error.kind()), "{error}");
    }

    #[test]
    fn a_server_that_says_nothing_or_half_of_it_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            for said in ["", "HTTP/1.1 200 OK\r\n"] {
                let mut stream = listener.accept().unwrap().0;
                stream.write_all(said.as_bytes()).unwrap();
                // Until the client has left.
                while matches!(stream.read(&mut [0; 256]), Ok(1..)) {}
            }
        });
        for _ in 0..2 {
            let error = ask(address, 20, Duration::from_millis(20)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        }
        server.join().unwrap();
    }

    /// Answers until the client has left, and gives how often.
    fn serve(mut stream: TcpStream) -> u64 {
        let mut buffer = [0; 256];
        let mut answers = 0;
        while matches!(stream.read(&mut buffer), Ok(1..)) {
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncache-status: fib; hit\r\n\r\n5";
            if stream.write_all(answer.as_bytes()).is_err() {
                break;
            }
            answers += 1;
        }
        answers
    }
}
