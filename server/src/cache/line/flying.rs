//! The batches of one stream that are on their way. No I/O; time is an argument.

use std::time::Duration;

use cache_proto::PipeResponse;
use tokio::time::Instant;

use super::{
    Unavailable,
    batch::{Get, Gets, Miscounted, Set, Sets},
};

/// Calls of one kind that travel as one. Lookups and stores never share a batch: no lookup waits for a store.
#[derive(Debug)]
pub(super) enum Batch {
    Gets(Gets),
    Sets(Sets),
}

impl Batch {
    pub(super) fn fail(self, why: Unavailable) {
        match self {
            Self::Gets(gets) => gets.fail(why),
            Self::Sets(sets) => sets.fail(why),
        }
    }
}

/// Batches under way, by their number. There are a few at most.
#[derive(Debug, Default)]
pub(super) struct Flying {
    last_number: u64,
    /// Oldest first.
    batches: Vec<Departed>,
}

#[derive(Debug)]
struct Departed {
    number: u64,
    at: Instant,
    batch: Batch,
}

/// What an answer was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Landing {
    /// To lookups, and each has its own.
    Gets,
    /// To stores.
    Sets,
    /// To a batch that was answered or given up before. Ignored.
    Late,
    /// To none that was ever sent. Ignored.
    Unasked,
    /// Not one for each key. The lookups have failed.
    Miscounted(Miscounted),
}

impl Flying {
    /// Takes note of a batch that leaves now, and gives its number.
    pub(super) fn depart(&mut self, batch: Batch, now: Instant) -> u64 {
        self.last_number += 1;
        self.batches.push(Departed { number: self.last_number, at: now, batch });
        self.last_number
    }

    /// Hands an answer to those who wait for it.
    pub(super) fn land(&mut self, response: PipeResponse) -> Landing {
        let Some(index) = self.batches.iter().position(|departed| departed.number == response.batch) else {
            let was_sent = (1..=self.last_number).contains(&response.batch);
            return if was_sent { Landing::Late } else { Landing::Unasked };
        };
        match self.batches.remove(index).batch {
            Batch::Gets(gets) => match gets.answer(response.gets) {
                Ok(()) => Landing::Gets,
                Err(miscounted) => Landing::Miscounted(miscounted),
            },
            Batch::Sets(sets) => {
                sets.answer(response.set_errors);
                Landing::Sets
            }
        }
    }

    /// Gives up the batches that have been under way for `limit`, and says how many of them were lookups.
    pub(super) fn give_up(&mut self, limit: Duration, now: Instant) -> u32 {
        let mut lookups = 0;
        while self.batches.first().is_some_and(|departed| departed.at + limit <= now) {
            let batch = self.batches.remove(0).batch;
            lookups += u32::from(matches!(batch, Batch::Gets(_)));
            batch.fail(Unavailable::TimedOut);
        }
        lookups
    }

    /// Fails all.
    pub(super) fn fail(&mut self, why: Unavailable) {
        self.batches.drain(..).for_each(|departed| departed.batch.fail(why));
    }

    /// Takes all calls back, to be made in another way.
    pub(super) fn take_back(&mut self) -> Calls {
        let mut taken = Calls::default();
        for departed in self.batches.drain(..) {
            taken.add(departed.batch);
        }
        taken
    }

    /// When the oldest left.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.batches.first().map(|departed| departed.at)
    }

    /// How many batches of lookups are under way.
    pub(super) fn gets(&self) -> usize {
        self.batches.iter().filter(|departed| matches!(departed.batch, Batch::Gets(_))).count()
    }

    /// How many batches of stores are under way.
    pub(super) fn sets(&self) -> usize {
        self.batches.len() - self.gets()
    }
}

/// Calls that wait to be sent, for the first time or another way.
#[derive(Debug, Default)]
pub(super) struct Calls {
    pub(super) gets: Vec<Get>,
    pub(super) sets: Vec<Set>,
}

impl Calls {
    pub(super) fn add(&mut self, batch: Batch) {
        match batch {
            Batch::Gets(gets) => self.gets.extend(gets.into_calls()),
            Batch::Sets(sets) => self.sets.extend(sets.into_calls()),
        }
    }

    /// Puts calls back, before the others: they have waited for longer.
    pub(super) fn put_back(&mut self, mut calls: Self) {
        calls.gets.append(&mut self.gets);
        calls.sets.append(&mut self.sets);
        *self = calls;
    }

    pub(super) fn fail(&mut self, why: Unavailable) {
        self.gets.drain(..).for_each(|call| call.fail(why));
        self.sets.drain(..).for_each(|call| call.fail(why));
    }
}
