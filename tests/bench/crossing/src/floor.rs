//! The least that two processes can do to look keys up: frames with a length on a Unix socket. Like the SDK, each looks for the
//! other's next frame for a moment before it sleeps until there is one.
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
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::{Failure, IN_FLIGHT, Load, Way};

/// How long a frame is looked for; as long as the SDK does.
const MOMENT: Duration = Duration::from_micros(100);

/// The side that asks.
pub(crate) struct Floor {
    socket: Socket,
    echo: Child,
    load: Load,
    request: Vec<u8>,
}

impl Floor {
    /// Starts the other side.
    #[expect(clippy::disallowed_methods, reason = "it is no plugin")]
    pub(crate) fn start() -> Result<Self, Failure> {
        let (near, other) = UnixStream::pair()?;
        let mut echo = Command::new(env::current_exe()?);
        echo.arg("echo").stdin(OwnedFd::from(other));
        let load = Load { batch: 0, value_bytes: 0 };
        Ok(Self { socket: Socket(near), echo: echo.spawn()?, load, request: Vec::new() })
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
            self.socket.send(&self.request)?;
        }
        let mut in_flight = IN_FLIGHT;
        while in_flight > 0 {
            self.socket.receive(&mut answer)?;
            keys += self.values(&answer)?;
            if begun.elapsed() < time {
                self.socket.send(&self.request)?;
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
    let mut socket = Socket(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?));
    let (mut request, mut answer, mut value) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        match socket.receive(&mut request) {
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
        socket.send(&answer)?;
    }
}

struct Socket(UnixStream);

impl Socket {
    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let length = size(frame.len());
        // In one call, unless the socket's buffer is smaller than the frame.
        let sent = self.0.write_vectored(&[io::IoSlice::new(&length), io::IoSlice::new(frame)])?;
        if sent < length.len() {
            self.0.write_all(&length[sent..])?;
        }
        self.0.write_all(&frame[sent.saturating_sub(length.len())..])
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> io::Result<()> {
        let mut length = [0; 4];
        self.read_exact(&mut length)?;
        frame.resize(u32::from_le_bytes(length) as usize, 0);
        self.read_exact(frame)
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut since = None;
        loop {
            match recv(&self.0, &mut *buffer, RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN) if since.get_or_insert_with(Instant::now).elapsed() < MOMENT => {
                    thread::yield_now()
                }
                Err(Errno::AGAIN) => return self.0.read(buffer),
                received => return Ok(received?.0),
            }
        }
    }
}

/// Messages here have at most some MiB.
fn size(bytes: usize) -> [u8; 4] {
    (bytes as u32).to_le_bytes()
}
