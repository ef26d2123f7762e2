//! The latest of what has happened, in bounded memory, for those who ask and those who follow.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

/// Entries that a follower may be behind before it misses some.
const FOLLOWER_LAG: usize = 1024;

/// A ring of entries with numbers. Cheap to clone; all clones are one journal.
#[derive(Debug, Clone)]
pub struct Journal<T>(Arc<Shared<T>>);

/// An entry and its number; numbers count up from 1 without a gap.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Numbered<T> {
    /// Its number.
    pub number: u64,
    /// What happened.
    pub entry: T,
}

#[derive(Debug)]
struct Shared<T> {
    ring: Mutex<Ring<T>>,
    live: broadcast::Sender<Numbered<T>>,
    limit: Limit,
    weigh: fn(&T) -> usize,
}

#[derive(Debug)]
struct Ring<T> {
    next: u64,
    bytes: usize,
    entries: VecDeque<Numbered<T>>,
}

/// What a journal holds at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
}

/// Entries of a journal know their size, nearly.
pub(crate) trait Weigh {
    fn bytes(&self) -> usize;
}

/// The entries from now on, for one who reads them one after the other.
#[derive(Debug)]
pub struct Follow<T>(broadcast::Receiver<Numbered<T>>);

/// What a follower gets.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Followed<T> {
    /// The next entry.
    Entry(Numbered<T>),
    /// It was too slow, and has missed so many.
    Missed(u64),
}

impl<T: Clone> Journal<T> {
    pub(crate) fn new(limit: Limit) -> Self
    where
        T: Weigh,
    {
        let ring = Ring { next: 1, bytes: 0, entries: VecDeque::new() };
        Self(Arc::new(Shared {
            ring: Mutex::new(ring),
            live: broadcast::Sender::new(FOLLOWER_LAG),
            limit,
            weigh: T::bytes,
        }))
    }

    pub(crate) fn push(&self, entry: T) {
        let mut ring = self.ring();
        let numbered = Numbered { number: ring.next, entry };
        ring.next += 1;
        ring.bytes += (self.0.weigh)(&numbered.entry);
        ring.entries.push_back(numbered.clone());
        while ring.entries.len() > self.0.limit.entries || ring.bytes > self.0.limit.bytes {
            let Some(oldest) = ring.entries.pop_front() else { break };
            ring.bytes -= (self.0.weigh)(&oldest.entry);
        }
        // While the ring is locked, so that a follower misses none between what is kept and what comes.
        let _nobody_follows = self.0.live.send(numbered);
    }

    /// How many are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ring().entries.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is kept, the oldest first.
    #[must_use]
    pub fn kept(&self) -> Vec<Numbered<T>> {
        self.ring().entries.iter().cloned().collect()
    }

    /// What is kept, and what comes after it.
    #[must_use]
    pub fn follow(&self) -> (Vec<Numbered<T>>, Follow<T>) {
        let ring = self.ring();
        (ring.entries.iter().cloned().collect(), Follow(self.0.live.subscribe()))
    }

    fn ring(&self) -> MutexGuard<'_, Ring<T>> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> Follow<T> {
    /// The next entry; `None` once the journal is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<Followed<T>> {
        match self.0.recv().await {
            Ok(entry) => Some(Followed::Entry(entry)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Followed::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Weigh for &'static str {
        fn bytes(&self) -> usize {
            self.len()
        }
    }

    fn texts(entries: &[Numbered<&'static str>]) -> Vec<(u64, &'static str)> {
        entries.iter().map(|numbered| (numbered.number, numbered.entry)).collect()
    }

    #[tokio::test]
    async fn the_oldest_goes_first_and_a_follower_sees_all_once() {
        let journal = Journal::new(Limit { entries: 2, bytes: 10 });
        for text in ["one", "two", "three"] {
            journal.push(text);
        }
        let (kept, mut follow) = journal.follow();
        assert_eq!(texts(&kept), [(2, "two"), (3, "three")]);
        assert_eq!((journal.len(), journal.is_empty()), (2, false));
        journal.push("sixsix");
        assert_eq!(texts(&journal.kept()), [(4, "sixsix")]);
        let Some(Followed::Entry(next)) = follow.next().await else { panic!("there is one") };
        assert_eq!((next.number, next.entry), (4, "sixsix"));
        drop(journal);
        assert!(follow.next().await.is_none());
    }

    #[tokio::test]
    async fn a_slow_follower_is_told_what_it_missed() {
        let journal = Journal::new(Limit { entries: 1, bytes: 100 });
        let (_, mut follow) = journal.follow();
        for _ in 0..FOLLOWER_LAG + 7 {
            journal.push("x");
        }
        assert!(matches!(follow.next().await, Some(Followed::Missed(7))));
    }
}
