//! The least that two processes that sleep between messages can do to look keys up: frames with a length on a Unix socket,
//! read and written by blocking calls.
//!
//! ```text
//! request   length u32 | value bytes u32 | for each key:   length u8, key
//! answer    length u32 |                   for each value: length u32, value
//! ```
//!
//! Numbers are little-endian. Nothing is looked up: the other side answers every key with a value of the size that is
//! asked for.

use std::env;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::{Failure, IN_FLIGHT, Load, Way};

/// The side that asks.
pub(crate) struct Floor {
    stream: UnixStream,
    echo: Child,
    load: Load,
    request: Vec<u8>,
}

impl Floor {
    /// Starts the other side.
    #[expect(clippy::disallowed_methods, reason = "it is no plugin")]
    pub(crate) fn start() -> Result<Self, Failure> {
        let (stream, other) = UnixStream::pair()?;
        let mut echo = Command::new(env::current_exe()?);
        echo.arg("echo").stdin(OwnedFd::from(other));
        let load = Load { batch: 0, value_bytes: 0 };
        Ok(Self { stream, echo: echo.spawn()?, load, request: Vec::new() })
    }

    /// How many values an answer holds, all of which have to be there.
    fn values(&self, mut answer: &[u8]) -> Result<u64, Failure> {
        let mut values = 0;
        while let Some((length, rest)) = answer.split_at_checked(4) {
            let length = u32::from_le_bytes(length.try_into()?) as usize;
            let (value, rest) = rest.split_at_checked(length).ok_or("a value is cut off")?;
            values += usize::from(value.len() == self.load.value_bytes);
            answer = rest;
        }
        if values == self.load.batch { Ok(values as u64) } else { Err("an answer lacks values".into()) }
    }
}

impl Way for Floor {
    async fn prepare(&mut self, load: Load) -> Result<(), Failure> {
        self.load = load;
        self.request = size(load.value_bytes).to_vec();
        for key in load.keys() {
            // A number in decimals has a few bytes.
            self.request.push(key.len() as u8);
            self.request.extend(key.into_bytes());
        }
        Ok(())
    }

    async fn look_up(&mut self, time: Duration) -> Result<u64, Failure> {
        let begun = Instant::now();
        let mut answer = Vec::new();
        let mut keys = 0;
        for _ in 0..IN_FLIGHT {
            send(&mut self.stream, &self.request)?;
        }
        let mut in_flight = IN_FLIGHT;
        while in_flight > 0 {
            receive(&mut self.stream, &mut answer)?;
            keys += self.values(&answer)?;
            if begun.elapsed() < time {
                send(&mut self.stream, &self.request)?;
            } else {
                in_flight -= 1;
            }
        }
        Ok(keys)
    }

    // Its other side ends with the socket.
    async fn end(self) {}
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ended_already = self.echo.kill();
        let _reaped_already = self.echo.wait();
    }
}

/// The side that answers, until the one that asks is gone.
pub(crate) fn echo() -> Result<(), Failure> {
    let mut stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let (mut request, mut answer, mut value) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        match receive(&mut stream, &mut request) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            received => received?,
        }
        let (value_bytes, mut keys) = request.split_at_checked(4).ok_or("a request without a size")?;
        value.resize(u32::from_le_bytes(value_bytes.try_into()?) as usize, b'1');
        answer.clear();
        while let Some((length, rest)) = keys.split_first() {
            keys = rest.get(usize::from(*length)..).ok_or("a key is cut off")?;
            answer.extend(size(value.len()));
            answer.extend(&value);
        }
        send(&mut stream, &answer)?;
    }
}

fn send(stream: &mut UnixStream, frame: &[u8]) -> io::Result<()> {
    let length = size(frame.len());
    // In one call, unless the socket's buffer is smaller than the frame.
    let sent = stream.write_vectored(&[io::IoSlice::new(&length), io::IoSlice::new(frame)])?;
    if sent < length.len() {
        stream.write_all(&length[sent..])?;
    }
    stream.write_all(&frame[sent.saturating_sub(length.len())..])
}

fn receive(stream: &mut UnixStream, frame: &mut Vec<u8>) -> io::Result<()> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    frame.resize(u32::from_le_bytes(length) as usize, 0);
    stream.read_exact(frame)
}

/// Messages here have at most some MiB.
fn size(bytes: usize) -> [u8; 4] {
    (bytes as u32).to_le_bytes()
}
