//! The latest of what has happened, in bounded memory, for those who ask and those who follow.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

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
    /// Followers have it, too: they read what is kept, and hold nothing of their own.
    ring: Arc<Mutex<Ring<T>>>,
    /// Wakes them.
    grown: watch::Sender<()>,
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

/// Lines that are a part of an entry.
impl Weigh for [String] {
    fn bytes(&self) -> usize {
        self.iter().map(|line| line.len() + size_of::<String>()).sum()
    }
}

/// The entries from now on, for one who reads them one after the other. Whoever is slower than the entries come misses those
/// that the journal does not keep any more.
#[derive(Debug)]
pub struct Follow<T> {
    ring: Arc<Mutex<Ring<T>>>,
    grown: watch::Receiver<()>,
    /// The number of the entry to read.
    next: u64,
}

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
            ring: Arc::new(Mutex::new(ring)),
            grown: watch::Sender::new(()),
            limit,
            weigh: T::bytes,
        }))
    }

    pub(crate) fn push(&self, entry: T) {
        let mut ring = self.ring();
        let numbered = Numbered { number: ring.next, entry };
        ring.next += 1;
        ring.bytes += (self.0.weigh)(&numbered.entry);
        ring.entries.push_back(numbered);
        while ring.entries.len() > self.0.limit.entries || ring.bytes > self.0.limit.bytes {
            let Some(oldest) = ring.entries.pop_front() else { break };
            ring.bytes -= (self.0.weigh)(&oldest.entry);
        }
        drop(ring);
        self.0.grown.send_replace(());
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
        let follow =
            Follow { ring: Arc::clone(&self.0.ring), grown: self.0.grown.subscribe(), next: ring.next };
        (ring.entries.iter().cloned().collect(), follow)
    }

    fn ring(&self) -> MutexGuard<'_, Ring<T>> {
        lock(&self.0.ring)
    }
}

fn lock<T>(ring: &Mutex<Ring<T>>) -> MutexGuard<'_, Ring<T>> {
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Clone> Follow<T> {
    /// The next entry; `None` once the journal is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<Followed<T>> {
        loop {
            if let Some(followed) = self.read() {
                return Some(followed);
            }
            if self.grown.changed().await.is_err() {
                // What came last may have come since.
                return self.read();
            }
        }
    }

    /// What is there to be read.
    fn read(&mut self) -> Option<Followed<T>> {
        let ring = lock(&self.ring);
        let first = ring.entries.front().map_or(ring.next, |oldest| oldest.number);
        let Some(index) = self.next.checked_sub(first) else {
            let missed = first - self.next;
            self.next = first;
            return Some(Followed::Missed(missed));
        };
        let entry = ring.entries.get(usize::try_from(index).ok()?)?.clone();
        self.next += 1;
        Some(Followed::Entry(entry))
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
        let journal = Journal::new(Limit { entries: 2, bytes: 10 });
        let (_, mut follow) = journal.follow();
        for text in ["one", "two", "three", "four"] {
            journal.push(text);
        }
        assert!(matches!(follow.next().await, Some(Followed::Missed(2))));
        for expected in [(3, "three"), (4, "four")] {
            let Some(Followed::Entry(next)) = follow.next().await else { panic!("there is one") };
            assert_eq!((next.number, next.entry), expected);
        }
        journal.push("longer than all that is kept");
        drop(journal);
        assert!(matches!(follow.next().await, Some(Followed::Missed(1))));
        assert!(follow.next().await.is_none());
    }

    impl Weigh for Arc<()> {
        fn bytes(&self) -> usize {
            1
        }
    }

    #[tokio::test]
    async fn a_follower_that_does_not_read_has_nothing_kept_for_it() {
        let (journal, entry) = (Journal::new(Limit { entries: 10, bytes: 3 }), Arc::new(()));
        let (_, _follow) = journal.follow();
        for _ in 0..100 {
            journal.push(Arc::clone(&entry));
        }
        assert_eq!(Arc::strong_count(&entry) - 1, 3, "what the journal keeps, and no more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_is_woken_by_what_comes_while_it_waits() {
        let journal = Journal::new(Limit { entries: 2, bytes: 10 });
        let (_, mut follow) = journal.follow();
        let push = async {
            tokio::task::yield_now().await;
            journal.push("one");
        };
        let (followed, ()) = tokio::join!(follow.next(), push);
        assert!(matches!(followed, Some(Followed::Entry(Numbered { number: 1, entry: "one" }))));
    }
}
