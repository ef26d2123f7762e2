//! A plugin's output that waits for its hosts: so many bytes of it and no more, for any number of readers, each of which learns how
//! much it has missed.
//!
//! Places in the output are counted in bytes from its beginning, so that what is between two of them is what was lost.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::generated::plugin::StdioData;
use crate::generated::plugin::stdio_data::Channel;

/// Largest chunk that go-plugin sends.
pub(super) const CHUNK_BYTES: usize = 1024;

/// What waits at most: more than a handler prints before it gives the run time's only thread back.
pub(super) const BACKLOG_BYTES: usize = 8 * 1024 * 1024;

/// What a chunk costs beside its data.
const CHUNK_OVERHEAD: usize = size_of::<Chunk>();

/// How long a writer that may wait does so while nothing at all is read.
const PATIENCE: Duration = Duration::from_millis(500);

/// What a writer does when there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhenFull {
    /// Waits, for as long as somebody goes on to read.
    Wait,
    /// Has the oldest output go.
    Drop,
}

#[derive(Debug, Default)]
pub(super) struct Backlog {
    state: Mutex<State>,
    news: Notify,
    room: Condvar,
}

#[derive(Debug, Default)]
struct State {
    chunks: VecDeque<Chunk>,
    /// What they cost.
    bytes: usize,
    /// The place of the next byte.
    end: u64,
    /// The places of all readers.
    readers: BTreeMap<u64, u64>,
    /// Readers so far.
    opened: u64,
    /// The place of the next reader, if it is the only one.
    left: u64,
    /// Chunks that were read.
    taken: u64,
    /// What that was when a writer had waited in vain. Until there is more, none waits again.
    gave_up_at: Option<u64>,
}

#[derive(Debug)]
struct Chunk {
    at: u64,
    channel: Channel,
    data: Vec<u8>,
}

/// What a reader comes to next.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    Chunk(StdioData),
    /// So many bytes that were dropped before it could have them.
    Lost(u64),
    /// The end, for now.
    Nothing,
}

impl Chunk {
    fn end(&self) -> u64 {
        self.at + self.data.len() as u64
    }

    fn cost(&self) -> usize {
        CHUNK_OVERHEAD + self.data.len()
    }
}

impl State {
    fn push(&mut self, channel: Channel, data: &[u8]) {
        match self.chunks.back_mut() {
            Some(last) if last.channel == channel && last.data.len() + data.len() <= CHUNK_BYTES => {
                last.data.extend_from_slice(data);
                self.bytes += data.len();
            }
            _ => {
                let chunk = Chunk { at: self.end, channel, data: data.to_vec() };
                self.bytes += chunk.cost();
                self.chunks.push_back(chunk);
            }
        }
        self.end += data.len() as u64;
        while self.is_full() {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some(first) = self.chunks.pop_front() {
            self.bytes -= first.cost();
        }
    }

    fn is_full(&self) -> bool {
        self.bytes > BACKLOG_BYTES
    }

    /// Whether it is of use to wait for room.
    fn is_read(&self) -> bool {
        !self.readers.is_empty() && self.gave_up_at != Some(self.taken)
    }

    fn next(&mut self, reader: u64) -> Next {
        let Some(place) = self.readers.get_mut(&reader) else { return Next::Nothing };
        let begin = self.chunks.front().map_or(self.end, |first| first.at);
        if *place < begin {
            return Next::Lost(begin - std::mem::replace(place, begin));
        }
        let index = self.chunks.partition_point(|chunk| chunk.end() <= *place);
        let Some(chunk) = self.chunks.get(index) else { return Next::Nothing };
        // It may have grown since its beginning was read.
        let read = usize::try_from(*place - chunk.at).unwrap_or_default();
        let data = Bytes::copy_from_slice(&chunk.data[read..]);
        let next = Next::Chunk(StdioData { channel: chunk.channel.into(), data });
        *place = chunk.end();
        self.taken += 1;
        self.forget_what_all_have();
        next
    }

    fn forget_what_all_have(&mut self) {
        let slowest = self.readers.values().copied().min().unwrap_or(self.left);
        while self.chunks.front().is_some_and(|first| first.end() <= slowest) {
            self.drop_first();
        }
    }
}

impl Backlog {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self, channel: Channel, data: &[u8], when_full: WhenFull) {
        let mut state = self.state();
        for piece in data.chunks(CHUNK_BYTES) {
            if when_full == WhenFull::Wait && state.bytes + CHUNK_OVERHEAD + piece.len() > BACKLOG_BYTES {
                state = self.wait_for_room(state);
            }
            state.push(channel, piece);
        }
        drop(state);
        self.news.notify_waiters();
    }

    /// Waits until half of it is free, or nobody reads.
    fn wait_for_room<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.news.notify_waiters();
        while state.is_read() && state.bytes > BACKLOG_BYTES / 2 {
            let taken = state.taken;
            let nothing_happens = |state: &mut State| state.taken == taken && state.is_read();
            let waited = self.room.wait_timeout_while(state, PATIENCE, nothing_happens);
            let (now, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = now;
            if timeout.timed_out() {
                state.gave_up_at = Some(taken);
            }
        }
        state
    }

    /// Whatever is written from this moment on.
    pub(super) fn news(&self) -> Notified<'_> {
        self.news.notified()
    }

    /// Reads what is written from now on, and what was while there was no reader.
    pub(super) fn reader(self: &Arc<Self>) -> Reader {
        let mut state = self.state();
        state.opened += 1;
        let number = state.opened;
        let place = if state.readers.is_empty() { state.left } else { state.end };
        state.readers.insert(number, place);
        Reader { backlog: Arc::clone(self), number }
    }

    /// What the slowest reader has not read, in bytes.
    pub(super) fn unread(&self) -> u64 {
        let state = self.state();
        state.readers.values().min().map_or(0, |place| state.end - place)
    }
}

/// One who reads. When it is dropped and was the only one, the next goes on where it was.
#[derive(Debug)]
pub(super) struct Reader {
    backlog: Arc<Backlog>,
    number: u64,
}

impl Reader {
    pub(super) fn next(&mut self) -> Next {
        let next = self.backlog.state().next(self.number);
        self.backlog.room.notify_all();
        next
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.backlog.state();
        if let Some(place) = state.readers.remove(&self.number)
            && state.readers.is_empty()
        {
            state.left = place;
        }
        state.forget_what_all_have();
        self.backlog.room.notify_all();
    }
}
