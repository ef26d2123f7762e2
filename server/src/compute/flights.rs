//! One calculation per number at a time, shared by all who ask for it.
//!
//! ```text
//!            first caller                      value                        Set answered
//!  (nothing) ───────────▶ Flying, no outcome ────────▶ Flying, with outcome ───────────▶ Landed
//!                           │ last ticket dropped, or failed
//!                           ▼
//!                        (nothing)
//! ```
//!
//! A caller holds a *ticket* for as long as it waits. When the last one is dropped the calculation is dropped too,
//! and stops. Callers get the value at once; the flight then stores it, and anybody who asks meanwhile gets it too.
//!
//! A caller comes here because its look into the cache found nothing. If that look was started before the value was
//! stored, what it says is out of date, however late the caller arrives: it gets the value that has landed. Hence
//! no request ever calculates what another one had just stored, and a landed value is never used for a look that
//! came later, which shows that the cache has lost it.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    future::Future,
    time::{Duration, Instant},
};

use tokio::{
    sync::{oneshot, watch},
    time,
};
use tokio_util::task::TaskTracker;

use super::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use crate::fib::FibIndex;

/// What flights do, told apart from how they are shared.
pub trait Work: Send + Sync + 'static {
    /// Calculates a number. Dropping the future stops the calculation.
    fn calculate(&self, n: FibIndex) -> impl Future<Output = Result<u64, FlightError>> + Send;

    /// Stores a number. Ends in bounded time, whatever becomes of it.
    fn store(&self, n: FibIndex, value: u64) -> impl Future<Output = ()> + Send;
}

/// Why there is no number. A later caller may have more luck: a failed flight is forgotten.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlightError {
    /// The calculation, or the wait for it, has lasted too long.
    #[error("the calculation did not end within {}", humantime::format_duration(*after))]
    TimedOut {
        /// The limit.
        after: Duration,
    },
    /// The calculation has ended without a result: a defect of ours, or the server is shutting down.
    #[error("the calculation was lost")]
    Lost,
}

/// A number, and whether somebody else's calculation gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// F(n).
    pub value: u64,
    /// The calculation was started for an earlier caller.
    pub collapsed: bool,
}

/// All flights of the server.
#[derive(Debug)]
pub struct Flights<W> {
    shared: Arc<Shared<W>>,
    tasks: TaskTracker,
    patience: Duration,
}

impl<W: Work> Flights<W> {
    /// Flights that do `work`, for callers that wait up to `patience` each.
    pub fn new(work: W, patience: Duration) -> Self {
        let shared = Arc::new(Shared { work, table: Mutex::default() });
        Self { shared, tasks: TaskTracker::new(), patience }
    }

    /// F(n) for a caller whose look into the cache was started at `looked_at` and found nothing. Dropping the
    /// future gives up, and stops the calculation if nobody else waits for it.
    pub async fn value(&self, n: FibIndex, looked_at: Instant) -> Result<Answer, FlightError> {
        match self.board(n, looked_at) {
            Boarding::Landed(value) => Ok(Answer { value, collapsed: true }),
            Boarding::Wait { seat, collapsed } => {
                let value = seat.wait(self.patience).await?;
                Ok(Answer { value, collapsed })
            }
        }
    }

    /// Waits until no flight is left. Flights end soon once their callers have gone; who stops a server lets the
    /// connections end first.
    pub async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn board(&self, n: FibIndex, looked_at: Instant) -> Boarding {
        let mut table = self.shared.table();
        if let Some(boarding) = table.flights.get(&n).and_then(|flight| flight.board(looked_at)) {
            return boarding;
        }
        table.last_id += 1;
        let id = table.last_id;
        let (held, callers_gone) = oneshot::channel();
        let (announce, outcome) = watch::channel(None);
        let ticket = Arc::new(Ticket { _held: held });
        let flying = Flight::Flying { id, ticket: Arc::downgrade(&ticket), outcome: outcome.clone() };
        table.flights.insert(n, flying);
        drop(table);
        let guard = ForgetOnDrop { shared: self.shared.clone(), n, id };
        self.tasks.spawn(fly(guard, announce, callers_gone));
        Boarding::Wait { seat: Seat { outcome, _ticket: ticket }, collapsed: false }
    }
}

type Outcome = Option<Result<u64, FlightError>>;

enum Boarding {
    Landed(u64),
    Wait { seat: Seat, collapsed: bool },
}

/// One caller's place on a flight.
struct Seat {
    outcome: watch::Receiver<Outcome>,
    _ticket: Arc<Ticket>,
}

impl Seat {
    async fn wait(mut self, patience: Duration) -> Result<u64, FlightError> {
        match time::timeout(patience, self.outcome.wait_for(Option::is_some)).await {
            Ok(Ok(outcome)) => outcome.clone().unwrap_or(Err(FlightError::Lost)),
            // The flight's task has gone without a word: it panicked, or the run time is shutting down.
            Ok(Err(_)) => Err(FlightError::Lost),
            Err(_) => Err(FlightError::TimedOut { after: patience }),
        }
    }
}

/// Held by each caller. The flight's task has the other end of the channel, and sees the last clone go.
#[derive(Debug)]
struct Ticket {
    _held: oneshot::Sender<Infallible>,
}

/// Locked for a few lines at a time, never over an await.
struct Shared<W> {
    work: W,
    table: Mutex<Table>,
}

/// What is known of each number; there are at most 94.
#[derive(Debug, Default)]
struct Table {
    last_id: u64,
    flights: HashMap<FibIndex, Flight>,
}

#[derive(Debug)]
enum Flight {
    Flying { id: u64, ticket: Weak<Ticket>, outcome: watch::Receiver<Outcome> },
    Landed { value: u64, stored_at: Instant },
}

impl Flight {
    /// A place on this flight, or `None` if a new one is needed.
    fn board(&self, looked_at: Instant) -> Option<Boarding> {
        match self {
            Self::Landed { value, stored_at } => {
                (looked_at <= *stored_at).then_some(Boarding::Landed(*value))
            }
            Self::Flying { ticket, outcome, .. } => match *outcome.borrow() {
                Some(Ok(value)) => Some(Boarding::Landed(value)),
                // A ticket that is gone for good means that the calculation is being dropped just now.
                _ => ticket.upgrade().map(|ticket| Boarding::Wait {
                    seat: Seat { outcome: outcome.clone(), _ticket: ticket },
                    collapsed: true,
                }),
            },
        }
    }
}

impl<W> Shared<W> {
    fn table(&self) -> MutexGuard<'_, Table> {
        // No line under the lock can panic halfway through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W> fmt::Debug for Shared<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("table", &self.table()).finish_non_exhaustive()
    }
}

/// The life of one flight.
async fn fly<W: Work>(
    guard: ForgetOnDrop<W>,
    announce: watch::Sender<Outcome>,
    mut callers_gone: oneshot::Receiver<Infallible>,
) {
    let outcome = tokio::select! {
        biased;
        outcome = guard.shared.work.calculate(guard.n) => outcome,
        _ = &mut callers_gone => return,
    };
    match outcome {
        Ok(value) => {
            announce.send_replace(Some(Ok(value)));
            guard.shared.work.store(guard.n, value).await;
            guard.land(value, Instant::now());
        }
        Err(error) => {
            // First out of the table, so that a caller who tries again starts a new flight.
            drop(guard);
            announce.send_replace(Some(Err(error)));
        }
    }
}

/// Takes a flight out of the table however its task ends. Another flight for the same number, which may have begun
/// while this one was being dropped, stays.
struct ForgetOnDrop<W> {
    shared: Arc<Shared<W>>,
    n: FibIndex,
    id: u64,
}

impl<W> ForgetOnDrop<W> {
    fn land(&self, value: u64, stored_at: Instant) {
        let mut table = self.shared.table();
        if self.is_in(&table) {
            table.flights.insert(self.n, Flight::Landed { value, stored_at });
        }
    }

    fn is_in(&self, table: &Table) -> bool {
        matches!(table.flights.get(&self.n), Some(Flight::Flying { id, .. }) if *id == self.id)
    }
}

impl<W> Drop for ForgetOnDrop<W> {
    fn drop(&mut self) {
        let mut table = self.shared.table();
        if self.is_in(&table) {
            table.flights.remove(&self.n);
        }
    }
}
