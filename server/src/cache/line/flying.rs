//! The batches of one stream that are on their way. No I/O; time is an argument.

use std::time::Duration;

use cache_proto::{PipeResponse, SetError};
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
    /// Stores that were given up, and when. The plugin has not answered them, and may still be at work on them.
    stuck: Vec<(u64, Instant)>,
}

#[derive(Debug)]
struct Departed {
    number: u64,
    at: Instant,
    batch: Batch,
}

/// What an answer was.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Landing {
    /// To lookups, and each has its own.
    Gets,
    /// To stores, whether somebody still waits for them or not. These were not made.
    Sets(Vec<SetError>),
    /// To lookups that were given up before, or to what was answered. Ignored.
    Late,
    /// To none that was ever sent. Whoever it is for, the stream is of no use.
    Unasked,
    /// Not one for each key. The lookups have failed.
    Miscounted(Miscounted),
}

/// The stores that are under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stores {
    /// So many batches.
    UnderWay(usize),
    /// One was given up that has not been answered. Another would only wait behind it, and take the place of lookups.
    Stuck,
}

/// Batches that were given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct GivenUp {
    pub(super) gets: u32,
    pub(super) sets: u32,
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
            return self.land_late(response);
        };
        match self.batches.remove(index).batch {
            Batch::Gets(gets) => match gets.answer(response.gets) {
                Ok(()) => Landing::Gets,
                Err(miscounted) => Landing::Miscounted(miscounted),
            },
            Batch::Sets(sets) => {
                sets.answer(&response.set_errors);
                Landing::Sets(response.set_errors)
            }
        }
    }

    /// An answer to what nobody waits for.
    fn land_late(&mut self, response: PipeResponse) -> Landing {
        if let Some(index) = self.stuck.iter().position(|(number, _)| *number == response.batch) {
            self.stuck.remove(index);
            return Landing::Sets(response.set_errors);
        }
        let was_sent = (1..=self.last_number).contains(&response.batch);
        if was_sent { Landing::Late } else { Landing::Unasked }
    }

    /// Gives up the batches that have been under way for `limit`.
    pub(super) fn give_up(&mut self, limit: Duration, now: Instant) -> GivenUp {
        let mut given_up = GivenUp::default();
        while self.batches.first().is_some_and(|departed| departed.at + limit <= now) {
            let Departed { number, batch, .. } = self.batches.remove(0);
            match batch {
                Batch::Gets(_) => given_up.gets += 1,
                Batch::Sets(_) => {
                    given_up.sets += 1;
                    self.stuck.push((number, now));
                }
            }
            batch.fail(Unavailable::TimedOut);
        }
        given_up
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

    /// When the first stores were given up that may still be worked on.
    pub(super) fn stuck_since(&self) -> Option<Instant> {
        self.stuck.first().map(|(_, at)| *at)
    }

    /// How many batches of lookups are under way.
    pub(super) fn gets(&self) -> usize {
        self.batches.iter().filter(|departed| matches!(departed.batch, Batch::Gets(_))).count()
    }

    /// The stores that are under way.
    pub(super) fn sets(&self) -> Stores {
        if self.stuck.is_empty() { Stores::UnderWay(self.batches.len() - self.gets()) } else { Stores::Stuck }
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
