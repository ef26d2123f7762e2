//! The store: keys, values and when they expire, within a number of entries and a number of bytes.
//!
//! It knows nothing of gRPC, and time is an argument. When there is no room, the entries unused for longest go.
//!
//! # Two bounds from one
//!
//! moka bounds one number, the sum of the entries' weights. Here an entry weighs what it takes in memory, but never
//! less than one share, which is `max_bytes / max_entries`; the sum may reach `max_entries` shares. So there are
//! never more than `max_entries` entries and never more than `max_bytes` bytes. With entries smaller than a share it
//! is the entries that fill the cache, with larger ones the bytes. A mixture may reach neither limit; it never
//! passes one. [`Stats`] counts bytes in the same way, so that a cache is full when they reach the capacity.
//!
//! moka works off its writes in batches, so there could be tens of values too many for a while. [`Store::settle`]
//! makes it do so at once.
//!
//! # Entries that have expired
//!
//! An entry carries its end, and [`Store::get`] compares; moka is told to drop it [`REMEMBERED`] after that. In
//! between, the store can say that the key has expired and not only that it is not there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cache_proto::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

/// How much a cache may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most entries; at least 1.
    pub max_entries: u64,
    /// The most bytes of keys and values, with 512 added for each entry; at least 1.
    pub max_bytes: u64,
}

/// What a lookup has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// `remaining` is more than zero; `None`: it never expires.
    Hit { value: Bytes, remaining: Option<Duration> },
    /// The key was there and its time has run out.
    Expired,
    /// The key was never set, or was removed or dropped.
    NotFound,
}

/// What a store holds, and what has happened to it since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    pub(crate) entries: u64,
    /// The sum of the entries' weights.
    pub(crate) bytes: u64,
    /// The most that `bytes` may be.
    pub(crate) capacity_bytes: u64,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) evictions: u64,
    pub(crate) expirations: u64,
}

type Entries = Cache<Box<str>, Entry>;

/// A bounded map from keys to values that expire. All methods may be called at the same time.
pub(crate) struct Store {
    /// Replaced when everything is removed.
    entries: RwLock<Entries>,
    shares: Shares,
    counters: Arc<Counters>,
}

impl Store {
    pub(crate) fn new(limits: Limits) -> Self {
        let shares = Shares::new(limits);
        let counters = Arc::new(Counters::default());
        let entries = RwLock::new(Self::no_entries(shares, Arc::clone(&counters)));
        Self { entries, shares, counters }
    }

    fn no_entries(shares: Shares, counters: Arc<Counters>) -> Entries {
        Entries::builder()
            .max_capacity(shares.capacity_bytes())
            .weigher(move |key, entry: &Entry| {
                u32::try_from(shares.weigh(key, &entry.value)).unwrap_or(u32::MAX)
            })
            // Not moka's default, which may refuse a new entry in favour of an old one that is asked for more often,
            // even if that one has expired. What was just stored is what will be asked for.
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(WhenForgotten)
            .eviction_listener(move |_, entry, cause| {
                counters.dropped(entry.is_expired(Instant::now()), cause);
            })
            .build()
    }

    fn entries(&self) -> RwLockReadGuard<'_, Entries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks a key up. Also counts the hit or miss.
    pub(crate) fn get(&self, key: &str, now: Instant) -> Lookup {
        let lookup = self.entries().get(key).map_or(Lookup::NotFound, |entry| entry.lookup(now));
        let counter =
            if matches!(lookup, Lookup::Hit { .. }) { &self.counters.hits } else { &self.counters.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        lookup
    }

    /// Stores a value, replacing what the key had. `None`: it never expires. A `ttl` of more than [`LONGEST_TTL`]
    /// is taken for that. An entry larger than the whole cache is dropped at once, and counted as an eviction.
    ///
    /// Call [`Store::settle`] after one or several.
    pub(crate) fn set(&self, key: &str, value: &[u8], ttl: Option<Duration>, now: Instant) {
        if self.shares.weigh(key, value) > self.shares.capacity_bytes() {
            // Left to moka, it would replace a smaller entry, and everything else would go to make room for it.
            self.entries().invalidate(key);
            self.counters.evictions.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // Where the clock cannot express the end, the entry has none of its time left: a cache may forget early, never
        // late.
        let expires_at = ttl.map(|ttl| now.checked_add(ttl.min(LONGEST_TTL)).unwrap_or(now));
        // Copied, because a value decoded from a message is a window on the message: a few bytes would hold on to
        // all of it, and the limit would count the few.
        let entry = Entry { value: Bytes::copy_from_slice(value), expires_at };
        self.entries().insert(key.into(), entry);
    }

    /// Brings what is held back within the limits, and the counters up to date.
    pub(crate) fn settle(&self) {
        self.entries().run_pending_tasks();
    }

    /// Removes a key; says whether it was there and had not expired.
    pub(crate) fn remove(&self, key: &str, now: Instant) -> bool {
        self.entries().remove(key).is_some_and(|entry| !entry.is_expired(now))
    }

    /// Removes everything, and gives it: to drop it takes the longer the more it is.
    #[must_use]
    pub(crate) fn clear(&self) -> impl Send + use<> {
        let new = Self::no_entries(self.shares, Arc::clone(&self.counters));
        std::mem::replace(&mut *self.entries.write().unwrap_or_else(PoisonError::into_inner), new)
    }

    /// Counts.
    pub(crate) fn stats(&self) -> Stats {
        self.settle();
        let (entries, counters) = (self.entries(), &self.counters);
        Stats {
            entries: entries.entry_count(),
            bytes: entries.weighted_size(),
            capacity_bytes: self.shares.capacity_bytes(),
            hits: counters.hits.load(Ordering::Relaxed),
            misses: counters.misses.load(Ordering::Relaxed),
            evictions: counters.evictions.load(Ordering::Relaxed),
            expirations: counters.expirations.load(Ordering::Relaxed),
        }
    }
}

/// A value and its end. The end is beside the value, not with moka, so that the two are always replaced together.
#[derive(Clone)]
struct Entry {
    value: Bytes,
    expires_at: Option<Instant>,
}

impl Entry {
    fn is_expired(&self, now: Instant) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    fn lookup(self, now: Instant) -> Lookup {
        if self.is_expired(now) {
            return Lookup::Expired;
        }
        Lookup::Hit { value: self.value, remaining: self.expires_at.map(|end| end - now) }
    }

    /// How long moka keeps it from `now` on.
    fn kept_for(&self, now: Instant) -> Option<Duration> {
        self.expires_at.map(|end| end.saturating_duration_since(now) + REMEMBERED)
    }
}

/// Tells moka when to drop an entry.
struct WhenForgotten;

impl moka::Expiry<Box<str>, Entry> for WhenForgotten {
    fn expire_after_create(&self, _: &Box<str>, entry: &Entry, now: Instant) -> Option<Duration> {
        entry.kept_for(now)
    }

    fn expire_after_update(
        &self,
        _: &Box<str>,
        entry: &Entry,
        now: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        entry.kept_for(now)
    }
}

/// The limits as moka has to be told them; see the top of this file.
#[derive(Clone, Copy)]
struct Shares {
    number: u64,
    bytes_each: u64,
}

impl Shares {
    fn new(Limits { max_entries, max_bytes }: Limits) -> Self {
        // No entry takes less than one byte or more than `LARGEST_ENTRY_BYTES`: beyond that, one limit makes the
        // other meaningless.
        let number = max_entries.clamp(1, max_bytes.max(1));
        Self { number, bytes_each: (max_bytes / number).clamp(1, LARGEST_ENTRY_BYTES) }
    }

    fn capacity_bytes(self) -> u64 {
        self.number.saturating_mul(self.bytes_each)
    }

    fn weigh(self, key: &str, value: &[u8]) -> u64 {
        // Lossless: no platform has addresses of more than 64 bits.
        ((key.len() + value.len()) as u64 + ENTRY_OVERHEAD_BYTES).max(self.bytes_each)
    }
}

#[derive(Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
    expirations: AtomicU64,
}

impl Counters {
    /// An entry that had expired counts as an expiration, whatever it was that dropped it in the end.
    fn dropped(&self, expired: bool, cause: RemovalCause) {
        if expired {
            self.expirations.fetch_add(1, Ordering::Relaxed);
        } else if cause == RemovalCause::Size {
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What an entry takes besides its key and value, for moka's bookkeeping and the allocator's. Measured with short
/// entries that expire, moka 0.12 and glibc on a 64-bit machine: about 470, rounded up.
pub(crate) const ENTRY_OVERHEAD_BYTES: u64 = 512;

/// How long the store can still say that a key has expired, unless the room is needed.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(60);

/// Time to live that longer ones are cut down to: 100 years. moka counts nanoseconds in 64 bits, some 580 years.
pub(crate) const LONGEST_TTL: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

const LARGEST_ENTRY_BYTES: u64 = (MAX_KEY_BYTES + MAX_VALUE_BYTES) as u64 + ENTRY_OVERHEAD_BYTES;

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn store(max_entries: u64, max_bytes: u64) -> Store {
        Store::new(Limits { max_entries, max_bytes })
    }

    fn hit(value: &'static str, remaining: Option<Duration>) -> Lookup {
        Lookup::Hit { value: Bytes::from_static(value.as_bytes()), remaining }
    }

    #[test]
    fn an_entry_is_valid_until_its_end_and_remembered_after_it() {
        let (store, start) = (store(10, 10_000), Instant::now());
        store.set("k", b"v", Some(MINUTE), start);
        let nearly = MINUTE - Duration::from_nanos(1);
        assert_eq!(store.get("k", start), hit("v", Some(MINUTE)));
        assert_eq!(store.get("k", start + nearly), hit("v", Some(Duration::from_nanos(1))));
        assert_eq!(store.get("k", start + MINUTE), Lookup::Expired);
        assert_eq!(store.get("other", start), Lookup::NotFound);
    }

    #[test]
    fn a_new_value_replaces_the_time_to_live_both_ways() {
        let (store, start) = (store(10, 10_000), Instant::now());
        store.set("k", b"1", Some(MINUTE), start);
        store.set("k", b"2", None, start);
        assert_eq!(store.get("k", start + 1000 * MINUTE), hit("2", None));
        store.set("k", b"3", Some(MINUTE), start);
        assert_eq!(store.get("k", start + MINUTE), Lookup::Expired);
    }

    #[test]
    fn the_longest_time_to_live_is_kept_and_longer_ones_are_cut() {
        let (store, start) = (store(10, 10_000), Instant::now());
        for ttl in [LONGEST_TTL, LONGEST_TTL + MINUTE, Duration::MAX] {
            store.set("k", b"v", Some(ttl), start);
            store.settle();
            assert_eq!(store.get("k", start), hit("v", Some(LONGEST_TTL)));
        }
    }

    #[test]
    fn moka_drops_an_entry_only_after_the_time_it_is_remembered() {
        let now = Instant::now();
        let entry = |expires_at| Entry { value: Bytes::new(), expires_at };
        assert_eq!(entry(None).kept_for(now), None);
        assert_eq!(entry(Some(now + MINUTE)).kept_for(now), Some(MINUTE + REMEMBERED));
        assert_eq!(entry(Some(now)).kept_for(now + MINUTE), Some(REMEMBERED));
    }

    #[test]
    fn small_entries_are_bounded_by_their_number() {
        let (store, now) = (store(5, 1 << 20), Instant::now());
        for n in 0..100 {
            store.set(&n.to_string(), b"v", None, now);
            store.settle();
            assert!(store.stats().entries <= 5);
        }
        assert_eq!(store.stats().entries, 5);
        assert_eq!(store.stats().evictions, 95);
        assert_eq!(store.get("99", now), hit("v", None));
        assert_eq!(store.get("94", now), Lookup::NotFound);
    }

    #[test]
    fn large_entries_are_bounded_by_their_bytes() {
        let (store, now) = (store(1000, 100_000), Instant::now());
        for n in 0..100 {
            store.set(&n.to_string(), &[0; 10_000], None, now);
            store.settle();
            assert!(store.stats().bytes <= store.stats().capacity_bytes);
        }
        assert_eq!(store.stats().entries, 9);
        assert_eq!(store.stats().evictions, 91);
    }

    #[test]
    fn bytes_and_capacity_are_counted_alike() {
        let (store, now) = (store(10, 10_000), Instant::now());
        for (key, length, bytes) in [("a", 0, 1000), ("b", 100, 2000), ("b", 2000, 3513), ("b", 487, 2000)] {
            store.set(key, &vec![0; length], None, now);
            assert_eq!(store.stats().bytes, bytes, "{key} of {length} bytes");
        }
        for n in 0..8 {
            store.set(&n.to_string(), b"v", None, now);
        }
        let Stats { entries, bytes, capacity_bytes, .. } = store.stats();
        assert_eq!((entries, bytes, capacity_bytes), (10, 10_000, 10_000), "it is full");
    }

    #[test]
    fn what_was_used_last_stays() {
        let (store, now) = (store(2, 10_000), Instant::now());
        store.set("a", b"1", None, now);
        store.set("b", b"2", None, now);
        store.settle();
        store.get("a", now);
        store.set("c", b"3", None, now);
        store.settle();
        assert_eq!(store.get("a", now), hit("1", None));
        assert_eq!(store.get("b", now), Lookup::NotFound);
    }

    #[test]
    fn an_entry_larger_than_the_cache_takes_only_its_own_key_along() {
        let (store, now) = (store(10, 5_000), Instant::now());
        store.set("small", b"1", None, now);
        store.set("k", b"2", None, now);
        store.settle();
        store.set("k", &[0; 6_000], None, now);
        store.settle();
        assert_eq!(store.get("small", now), hit("1", None));
        assert_eq!(store.get("k", now), Lookup::NotFound);
        assert_eq!((store.stats().entries, store.stats().evictions), (1, 1));
    }

    #[test]
    fn shares_never_pass_a_limit() {
        for (max_entries, max_bytes, capacity) in [
            (1, 1, 1),
            (10, 5, 5),
            (3, 1000, 999),
            (1, 1 << 40, LARGEST_ENTRY_BYTES),
            (u64::MAX, u64::MAX, u64::MAX),
            (100_000, 64 << 20, 67_100_000),
        ] {
            let shares = Shares::new(Limits { max_entries, max_bytes });
            assert_eq!(shares.capacity_bytes(), capacity, "{max_entries} entries, {max_bytes} bytes");
            assert!(shares.number <= max_entries && capacity <= max_bytes);
        }
    }

    #[test]
    fn an_expired_entry_is_counted_when_it_is_replaced_and_not_when_it_is_removed_alive() {
        let (store, now) = (store(10, 10_000), Instant::now());
        // moka's listener goes by the clock of the machine, which has passed this end when it is called.
        let instantly = Duration::from_nanos(1);
        store.set("k", b"1", Some(instantly), now);
        store.set("k", b"2", None, now);
        assert!(store.remove("k", now));
        assert!(!store.remove("k", now));
        store.set("k", b"3", Some(instantly), now);
        assert!(!store.remove("k", now + instantly), "it had expired");
        let Stats { entries, bytes, expirations, evictions, .. } = store.stats();
        assert_eq!((entries, bytes, expirations, evictions), (0, 0, 2, 0));
    }

    #[test]
    fn clear_leaves_nothing() {
        let (store, now) = (store(1000, 1 << 20), Instant::now());
        for n in 0..1000 {
            store.set(&n.to_string(), b"v", Some(MINUTE), now);
        }
        drop(store.clear());
        assert_eq!(store.get("1", now), Lookup::NotFound);
        assert_eq!((store.stats().entries, store.stats().bytes), (0, 0));
        store.set("1", b"new", None, now);
        assert_eq!(store.get("1", now), hit("new", None));
    }

    #[test]
    fn values_do_not_hold_on_to_the_message_they_came_in() {
        let (store, now) = (store(10, 10_000), Instant::now());
        let message = Bytes::from(vec![b'x'; 4096]);
        store.set("k", &message.slice(..2), None, now);
        let Lookup::Hit { value, .. } = store.get("k", now) else { panic!("it is there") };
        assert!(!message.as_ptr_range().contains(&value.as_ptr()));
    }
}
