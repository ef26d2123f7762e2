//! Lines on their way to stderr. A thread of their own writes them, so that whoever reads stderr, or does not, holds up
//! nobody but that thread.
//!
//! Lines that find no room are dropped, never the ones before them; their number is told in their place, once the others have
//! been written.

use std::{
    cell::Cell,
    io::{self, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tracing::warn;
use tracing_subscriber::fmt::MakeWriter;

/// Bytes that wait. As many again may be about to be written.
const CAPACITY_BYTES: usize = 1 << 20;

/// How long the end of the program waits for the lines before it. A reader that is there takes milliseconds.
const FLUSH: Duration = Duration::from_secs(1);

thread_local! {
    /// Whether this is the thread that writes. What it has to say itself does not wait in the queue.
    static WRITES: Cell<bool> = const { Cell::new(false) };
}

/// Where lines are put. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Locked for as long as it takes to copy a line.
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    /// How many have found no room after those.
    dropped: u64,
    /// Others are being written.
    is_writing: bool,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.dropped == 0
    }
}

/// Waits, when it is dropped, until what was logged so far has been written, for a second at most.
#[derive(Debug)]
#[must_use]
pub struct Flush(Queue);

impl Queue {
    /// Starts the thread that writes to stderr. It ends with the process.
    pub(super) fn to_stderr() -> io::Result<(Self, Flush)> {
        let queue = Self::default();
        let writer = queue.clone();
        thread::Builder::new().name("log".to_owned()).spawn(move || {
            WRITES.set(true);
            loop {
                // For one line at a time, as others may write to the same pipe. An error means that nobody reads it any more.
                let write = |line: &[u8]| _ = io::stderr().write_all(line);
                writer.write_next(write, |dropped| {
                    warn!(dropped, "log lines were dropped, as stderr was not read")
                });
            }
        })?;
        Ok((queue.clone(), Flush(queue)))
    }

    fn put(&self, line: &[u8]) {
        let mut waiting = self.waiting();
        if waiting.dropped > 0 || waiting.lines.len() + line.len() > CAPACITY_BYTES {
            waiting.dropped += 1;
            return;
        }
        waiting.lines.extend_from_slice(line);
        drop(waiting);
        self.0.changed.notify_all();
    }

    /// Waits for lines, writes those that wait, and then tells how many were dropped after them, if any.
    fn write_next(&self, write: impl FnMut(&[u8]), tell: impl FnOnce(u64)) {
        let waiting = self.0.changed.wait_while(self.waiting(), |waiting| waiting.is_empty());
        let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        let (lines, dropped) = (mem::take(&mut waiting.lines), mem::take(&mut waiting.dropped));
        waiting.is_writing = true;
        drop(waiting);
        lines.split_inclusive(|byte| *byte == b'\n').for_each(write);
        if dropped > 0 {
            tell(dropped);
        }
        self.waiting().is_writing = false;
        self.0.changed.notify_all();
    }

    /// Waits until everything has been written, for so long at most.
    fn flush(&self, limit: Duration) {
        let is_busy = |waiting: &mut Waiting| waiting.is_writing || !waiting.is_empty();
        // Whatever the outcome, there is nothing more to be done.
        let _flushed = self.0.changed.wait_timeout_while(self.waiting(), limit, is_busy);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        self.0.flush(FLUSH);
    }
}

/// One line, which comes in one piece.
impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if WRITES.get() {
            return io::stderr().write(line);
        }
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Queue {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written, and how many lines are told to be missing after it.
    fn written(queue: &Queue) -> (String, u64) {
        let (mut text, mut missing) = (Vec::new(), 0);
        queue.write_next(|line| text.extend_from_slice(line), |dropped| missing = dropped);
        (String::from_utf8(text).unwrap(), missing)
    }

    #[test]
    fn lines_are_written_in_order() {
        let queue = Queue::default();
        queue.put(b"one\n");
        queue.put(b"two\n");
        assert_eq!(written(&queue), ("one\ntwo\n".to_owned(), 0));
        queue.put(b"three\n");
        assert_eq!(written(&queue), ("three\n".to_owned(), 0));
    }

    #[test]
    fn lines_without_room_are_dropped_and_counted_after_those_before_them() {
        let queue = Queue::default();
        let long = [b'x'; CAPACITY_BYTES];
        queue.put(b"one\n");
        queue.put(&long);
        // There would be room for it, but it is later than what was dropped.
        queue.put(b"two\n");
        assert_eq!(written(&queue), ("one\n".to_owned(), 2));
        queue.put(b"three\n");
        assert_eq!(written(&queue), ("three\n".to_owned(), 0));
    }

    #[test]
    fn end_waits_for_the_lines_before_it() {
        let queue = Queue::default();
        queue.put(b"last\n");
        let writer = queue.clone();
        let written = thread::spawn(move || written(&writer));
        queue.flush(Duration::MAX);
        assert!(queue.waiting().is_empty());
        assert_eq!(written.join().unwrap(), ("last\n".to_owned(), 0));
    }

    #[test]
    fn end_does_not_wait_for_ever() {
        let queue = Queue::default();
        queue.put(b"never written\n");
        queue.flush(Duration::from_millis(1));
        assert!(!queue.waiting().is_empty());
    }
}
