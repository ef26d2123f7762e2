//! What is known of the instance that calls go to, and what follows for those that wait: how they travel, and whether they
//! are sent at all. No I/O; time is an argument.

use tokio::time::Instant;

use super::{Unavailable, flying::Stores, patience::Patience};

/// Batches of lookups under way at a time: one is on the wire while the other is worked on. More were measured to be no
/// faster, and one to give a tenth fewer answers at 16 connections, a fifth fewer where the plugin asks Redis.
const GET_BATCHES: usize = 2;

/// Batches of stores under way at a time.
const SET_BATCHES: usize = 1;

/// How calls travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Pipe,
    Many,
    Alone,
}

/// What is known. Of an instance that has just come nothing is, and it is trusted.
#[derive(Debug)]
pub(super) struct Known {
    /// Where calls go.
    instance: Option<u64>,
    /// The last instance that they went to, which the rest but `patience` is about. They are counted from 1.
    last: u64,
    gets: Way,
    sets: Way,
    /// Nonsense of its has been logged.
    is_strange: bool,
    /// With what calls go to now, an instance or none: it is over with that.
    patience: Patience,
}

impl Known {
    pub(super) fn nothing() -> Self {
        Self {
            instance: None,
            last: 0,
            gets: Way::Pipe,
            sets: Way::Pipe,
            is_strange: false,
            patience: Patience::NEW,
        }
    }

    /// Takes note of where calls go. Says whether they went elsewhere before.
    pub(super) fn follow(&mut self, instance: Option<u64>) -> bool {
        if instance == self.instance {
            return false;
        }
        match instance {
            Some(another) if another != self.last => {
                *self = Self { instance, last: another, ..Self::nothing() };
            }
            // Not well, or well again.
            _ => (self.instance, self.patience) = (instance, Patience::NEW),
        }
        true
    }

    pub(super) fn instance(&self) -> Option<u64> {
        self.instance
    }

    /// How lookups travel.
    pub(super) fn gets(&self) -> Way {
        // Whoever comes may have it.
        if self.instance.is_some() { self.gets } else { Way::Pipe }
    }

    /// How stores travel.
    pub(super) fn sets(&self) -> Way {
        if self.instance.is_some() { self.sets } else { Way::Pipe }
    }

    /// The instance has no such method.
    pub(super) fn has_no_pipe(&mut self) {
        (self.gets, self.sets) = (Way::Many, Way::Many);
    }

    pub(super) fn has_no_get_many(&mut self) {
        self.gets = Way::Alone;
    }

    pub(super) fn has_no_set_many(&mut self) {
        self.sets = Way::Alone;
    }

    /// It has said what makes no sense. Says whether it has not done so before.
    pub(super) fn is_newly_strange(&mut self) -> bool {
        !std::mem::replace(&mut self.is_strange, true)
    }

    /// Whether lookups that wait go on, to be sent or turned away, while so many batches are under way.
    pub(super) fn gets_may_leave(&self, under_way: usize) -> bool {
        match self.gets() {
            // If they are to be turned away, then at once.
            Way::Pipe | Way::Many => under_way < GET_BATCHES || !self.patience.is_trusting(),
            Way::Alone => true,
        }
    }

    /// Whether a batch of lookups is sent while so many are under way. If so, it has to be: it may be the trial.
    pub(super) fn admits_gets(&mut self, under_way: usize, now: Instant) -> bool {
        under_way < GET_BATCHES && self.patience.admits(now)
    }

    /// Whether stores that wait go on.
    pub(super) fn sets_may_leave(&self, stores: Stores) -> bool {
        match stores {
            Stores::UnderWay(number) if number < SET_BATCHES => true,
            _ => self.sets() == Way::Alone || self.turns_sets_away(stores).is_some(),
        }
    }

    /// Why stores are turned away, if they are.
    pub(super) fn turns_sets_away(&self, stores: Stores) -> Option<Unavailable> {
        match stores {
            _ if !self.patience.is_trusting() => Some(Unavailable::Down),
            Stores::Stuck => Some(Unavailable::Overloaded),
            Stores::UnderWay(_) => None,
        }
    }

    /// Something was heard of it, if only that it has failed: it does not hang.
    pub(super) fn heard(&mut self) {
        self.patience.restore();
    }

    /// So many batches of lookups got no answer in time. Says whether it is left alone for a while now; the stream has to be
    /// given up then, if there is one, with all that is on it.
    pub(super) fn missed(&mut self, batches: u32, now: Instant) -> bool {
        self.patience.missed(batches, now)
    }
}
