//! Numbers that need not be asked for: the plugin has given them with a *lease*, which lets this process answer from its
//! own memory for a while. Most plugins grant none, and then there is nothing here. No I/O, no clock.
//!
//! ```text
//! look ─┬─ leased: the number                       Question ── the plugin's answer ──▶ keep ─┬─ leased from now on
//!       └─ Question ──▶ the plugin is asked                                                   └─ not if meanwhile the
//!                                                                                                number was stored
//! change ── no lease, and none granted ── stored, or given up ── leases are granted again
//! ```
//!
//! A lease never makes an answer older than it promises:
//!
//! - It is counted from when the question was asked, which is before the plugin has answered.
//! - It ends with the entry, and after [`LONGEST`], whatever the plugin says.
//! - It is good for the instance that was asked, while that serves. Another one has leases of its own. The line takes no
//!   question to an older instance than calls went to when it was asked; so what a new one's lease has is never the old one's.
//! - A store through this process ends it before the store is sent. A question that was asked before the store was
//!   answered may have the old number for an answer, however late that comes: it grants no lease. So whoever asks after a
//!   store was answered gets what was stored.
//! - A store that was given up on may take effect later, unseen: it is then like one by another process, which a lease
//!   hides for as long as it lasts.
//!
//! Nothing in this server removes entries. A route that does would [`change`](Near::change) each n that it names, or all
//! of them.

use std::{
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, Instant},
};

use crate::fib::{FibIndex, LAST_INDEX};

/// The longest lease, whatever the plugin grants. A plugin that means well has no use for more, and one that does not does
/// harm for no longer.
pub(super) const LONGEST: Duration = Duration::from_secs(60);

/// The leases of one plugin. Each n has a lock of its own, held for a few instructions: nobody waits but for the writer of
/// the same n.
#[derive(Debug)]
pub(super) struct Near([RwLock<Slot>; LAST_INDEX as usize + 1]);

/// What is known about one n.
#[derive(Debug, Default)]
struct Slot {
    lease: Option<Lease>,
    /// Changes under way.
    changing: usize,
    /// Changes that have ended.
    changed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    /// The instance that has granted it.
    instance: u64,
    asked: Instant,
    lasts: Duration,
    number: Number,
}

/// A number as the plugin has given it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number {
    pub(super) value: u64,
    /// How long it is valid; `None` if it does not expire.
    pub(super) ttl_remaining: Option<Duration>,
}

/// What is known without asking.
#[derive(Debug)]
pub(super) enum Look {
    /// The number, valid for as long as is left now.
    Leased(Number),
    /// Nothing: ask the plugin.
    Ask(Question),
}

/// A question to the plugin, as of when it was asked.
#[derive(Debug)]
pub(super) struct Question {
    n: FibIndex,
    instance: Option<u64>,
    asked: Instant,
    changed: u64,
}

/// A number is being changed. Dropping it says that this has ended, one way or the other.
#[derive(Debug)]
#[must_use]
pub(super) struct Change<'a> {
    near: &'a Near,
    n: FibIndex,
}

impl Near {
    /// No leases.
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| RwLock::default()))
    }

    /// Looks a number up, while calls go to this instance of the plugin. If it has to be asked, that has to be done
    /// afterwards.
    pub(super) fn look(&self, n: FibIndex, instance: Option<u64>, now: Instant) -> Look {
        let slot = self.read(n);
        match slot.lease.filter(|lease| Some(lease.instance) == instance).and_then(|lease| lease.at(now)) {
            Some(number) => Look::Leased(number),
            None => Look::Ask(Question { n, instance, asked: now, changed: slot.changed }),
        }
    }

    /// Keeps an answer that may be given again for up to `max_age`, if it can still be relied upon.
    pub(super) fn keep(&self, question: Question, number: Number, max_age: Duration) {
        let Question { n, instance: Some(instance), asked, changed } = question else { return };
        let lasts = max_age.min(LONGEST).min(number.ttl_remaining.unwrap_or(LONGEST));
        let mut slot = self.write(n);
        // Of questions that were under way together, the last one has the freshest answer.
        let is_last = slot.lease.is_none_or(|lease| lease.asked <= asked);
        if is_last && slot.changing == 0 && slot.changed == changed {
            slot.lease = Some(Lease { instance, asked, lasts, number });
        }
    }

    /// Ends the lease of a number that is to be stored. The plugin may be called once this has returned; the change must
    /// be kept until it has answered, or nobody waits for that any more.
    pub(super) fn change(&self, n: FibIndex) -> Change<'_> {
        let mut slot = self.write(n);
        slot.lease = None;
        slot.changing += 1;
        Change { near: self, n }
    }

    fn read(&self, n: FibIndex) -> RwLockReadGuard<'_, Slot> {
        self.slot(n).read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, n: FibIndex) -> RwLockWriteGuard<'_, Slot> {
        self.slot(n).write().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, n: FibIndex) -> &RwLock<Slot> {
        // An index is at most `LAST_INDEX`.
        &self.0[usize::from(n.get())]
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        let mut slot = self.near.write(self.n);
        slot.changing -= 1;
        slot.changed += 1;
    }
}

impl Lease {
    /// The number with the time it has left, unless the lease is over.
    fn at(self, now: Instant) -> Option<Number> {
        let age = now.saturating_duration_since(self.asked);
        let ttl_remaining = self.number.ttl_remaining.map(|ttl| ttl.saturating_sub(age));
        (age < self.lasts).then_some(Number { ttl_remaining, ..self.number })
    }
}

#[cfg(test)]
mod tests;
