//! A Unix socket that wakes its process for what there is to read, and for room to write only if it waits for that.
//!
//! tokio's own asks for both at all times. For a TCP socket that costs nothing, but Linux reports room on a Unix socket whenever
//! the peer has read: each answer of a plugin would wake the plugin once more, to find nothing to do.

use std::io::{self, IoSlice, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::unix::UCred;
use tokio::time::{Sleep, sleep};

use super::busy_poll::BusyPoll;

/// A connected Unix socket.
#[derive(Debug)]
pub(crate) struct UnixSocket {
    stream: AsyncFd<UnixStream>,
    room: Room,
    peer: UCred,
    busy_poll: BusyPoll,
}

/// How room to write is waited for.
#[derive(Debug)]
enum Room {
    /// Not at all.
    Unasked,
    /// It is reported. The descriptor is a second one for the same socket: a descriptor has one registration.
    Reported(AsyncFd<UnixStream>),
    /// It is looked for after a nap, as there is no second descriptor: this process has as many as it may.
    Nap(Pin<Box<Sleep>>),
}

/// Between two looks for room.
const NAP: Duration = Duration::from_millis(1);

impl UnixSocket {
    /// # Panics
    /// Outside of a tokio run time.
    pub(crate) fn new(stream: tokio::net::UnixStream) -> io::Result<Self> {
        let peer = stream.peer_cred()?;
        let stream = register(stream.into_std()?, Interest::READABLE)?;
        Ok(Self { stream, room: Room::Unasked, peer, busy_poll: BusyPoll::new() })
    }

    /// Who was at the other end when it was connected, as the kernel knows it.
    pub(crate) fn peer(&self) -> UCred {
        self.peer
    }

    /// Writes, or waits for room.
    fn poll_write_by(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&UnixStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match write(self.stream.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.poll_room(cx))?;
                }
                done => {
                    self.room = Room::Unasked;
                    self.busy_poll.written(cx);
                    return Poll::Ready(done);
                }
            }
        }
    }

    /// Waits until it is worth while to write again.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Room::Unasked = self.room {
            let again = self.stream.get_ref().try_clone();
            let reported = again.and_then(|again| register(again, Interest::WRITABLE));
            // Whatever is wrong with the socket itself, the next write says.
            self.room = reported.map_or_else(|_| Room::Nap(Box::pin(sleep(NAP))), Room::Reported);
        }
        match &mut self.room {
            // What is reported from here on counts again.
            Room::Reported(room) => ready!(room.poll_write_ready(cx))?.clear_ready(),
            Room::Nap(nap) => {
                ready!(nap.as_mut().poll(cx));
                self.room = Room::Unasked;
            }
            Room::Unasked => {}
        }
        Poll::Ready(Ok(()))
    }
}

fn register(stream: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    #[expect(unsafe_code, reason = "tokio has no safe way to ask for one of the two only")]
    // SAFETY: the stream owns its descriptor, and has this one until it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(stream, interest) }?)
}

impl AsyncRead for UnixSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, busy_poll, .. } = &mut *self;
        let size = buf.remaining();
        if size == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            let Poll::Ready(mut readiness) = stream.poll_read_ready(cx)? else {
                busy_poll.nothing_yet(cx);
                return Poll::Pending;
            };
            match read(stream.get_ref(), buf) {
                Ok(read) => {
                    busy_poll.read();
                    if (1..size).contains(&read) {
                        // That was all there was; what comes now is reported anew. It saves the read that finds nothing.
                        readiness.clear_ready();
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => readiness.clear_ready(),
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

/// Reads into what is free, and gives the number of bytes. To make it zero first, which is the safe way, costs more than
/// the rest of a small read.
#[expect(unsafe_code, reason = "the free part of a buffer is not initialized")]
fn read(stream: &UnixStream, buf: &mut ReadBuf<'_>) -> rustix::io::Result<usize> {
    // SAFETY: `rustix` takes the bytes as uninitialized, and only writes to them.
    let room = unsafe { buf.unfilled_mut() };
    let read = rustix::io::read(stream, room)?.0.len();
    // SAFETY: it has initialized that many, from the first.
    unsafe { buf.assume_init(read) };
    buf.advance(read);
    Ok(read)
}

impl AsyncWrite for UnixSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_by(cx, |mut stream| stream.write(buf))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.get_ref().shutdown(Shutdown::Write))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_by(cx, |mut stream| stream.write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use plugin_testkit::process;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn pair() -> (UnixSocket, UnixSocket) {
        let (near, far) = tokio::net::UnixStream::pair().unwrap();
        (UnixSocket::new(near).unwrap(), UnixSocket::new(far).unwrap())
    }

    #[tokio::test]
    async fn all_that_is_written_arrives_in_order_however_slow_the_reader() {
        let (mut near, mut far) = pair();
        let sent: Vec<u8> = (0..4_000_000_u32).map(|number| (number % 251) as u8).collect();
        let (copy, mut received) = (sent.clone(), Vec::new());
        let writer = tokio::spawn(async move {
            near.write_all(&copy).await.unwrap();
            near.shutdown().await.unwrap();
            near
        });
        let mut buffer = [0; 1000];
        loop {
            let read = far.read(&mut buffer).await.unwrap();
            if read == 0 {
                break;
            }
            received.extend_from_slice(&buffer[..read]);
        }
        assert!(received == sent);
        let near = writer.await.unwrap();
        assert!(matches!(near.room, Room::Unasked), "it still asks for room");
    }

    /// In a process of its own, since all threads share its descriptors.
    #[tokio::test]
    async fn without_a_free_descriptor_room_is_looked_for() {
        if !process::is_of_its_own(module_path!(), "without_a_free_descriptor_room_is_looked_for") {
            return;
        }
        let (mut near, mut far) = pair();
        process::take_descriptors();
        near.stream.get_ref().try_clone().expect_err("no descriptor is free");
        let payload = vec![7; 1_000_000];
        let mut received = vec![0; payload.len()];
        // The writer is first, and has to wait for room.
        tokio::try_join!(near.write_all(&payload), far.read_exact(&mut received)).unwrap();
        assert!(received == payload);
    }

    #[tokio::test]
    async fn both_directions_can_be_full_at_the_same_time() {
        let (near, far) = pair();
        let ((mut in_near, mut out_near), (mut in_far, mut out_far)) =
            (tokio::io::split(near), tokio::io::split(far));
        // Both directions are full at some time.
        let payload = vec![7; 1_000_000];
        let one_way = async {
            let mut received = vec![0; payload.len()];
            let (sent, got) = tokio::join!(out_near.write_all(&payload), in_far.read_exact(&mut received));
            sent.and(got).map(|_| received == payload)
        };
        let other_way = async {
            let mut received = vec![0; payload.len()];
            let (sent, got) = tokio::join!(out_far.write_all(&payload), in_near.read_exact(&mut received));
            sent.and(got).map(|_| received == payload)
        };
        let (one, other) = tokio::join!(one_way, other_way);
        assert!(one.unwrap() && other.unwrap());
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_is_an_end_to_read_and_an_error_to_write() {
        let (mut near, far) = pair();
        drop(far);
        assert_eq!(near.read(&mut [0; 10]).await.unwrap(), 0);
        assert_eq!(near.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn the_peer_is_known_after_it_is_gone() {
        let (near, far) = pair();
        drop(far);
        assert_eq!(near.peer().uid(), rustix::process::geteuid().as_raw());
    }

    #[tokio::test]
    async fn answer_is_looked_for_and_one_that_does_not_come_is_slept_for() {
        let (mut near, _far) = pair();
        near.write_all(b"x").await.unwrap();
        let (mut polls, mut byte) = (0_u64, [0]);
        let mut reading = std::pin::pin!(near.read(&mut byte));
        let counted = std::future::poll_fn(|cx| {
            polls += 1;
            reading.as_mut().poll(cx)
        });
        let waited = tokio::time::timeout(std::time::Duration::from_millis(300), counted).await;
        assert!(waited.is_err(), "{waited:?}");
        // Once to begin with, once as time is up; between them for a moment, some hundred times at most. Without sleep it would be
        // a hundred thousand times.
        assert!((3..3000).contains(&polls), "{polls} looks");
    }
}
