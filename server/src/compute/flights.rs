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
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use tokio::{
    sync::{oneshot, watch},
    time,
};
use tokio_util::task::TaskTracker;

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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::{sync::Semaphore, task::JoinSet};

    use super::*;
    use crate::fib::LAST_INDEX;

    /// Work that goes on when the test says so.
    struct Scripted {
        may_calculate: Arc<Semaphore>,
        may_store: Arc<Semaphore>,
        error: Option<FlightError>,
        log: Arc<Log>,
    }

    impl Default for Scripted {
        fn default() -> Self {
            let closed = || Arc::new(Semaphore::new(0));
            Self { may_calculate: closed(), may_store: closed(), error: None, log: Arc::default() }
        }
    }

    #[derive(Default)]
    struct Log {
        calculations: AtomicUsize,
        dropped: AtomicUsize,
        stored: AtomicUsize,
    }

    struct CountDrop<'a>(&'a AtomicUsize);

    impl Drop for CountDrop<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Work for Scripted {
        async fn calculate(&self, n: FibIndex) -> Result<u64, FlightError> {
            self.log.calculations.fetch_add(1, Ordering::SeqCst);
            let running = CountDrop(&self.log.dropped);
            self.may_calculate.acquire().await.unwrap().forget();
            std::mem::forget(running);
            self.error.clone().map_or(Ok(u64::from(n.get()) * 10), Err)
        }

        async fn store(&self, _n: FibIndex, _value: u64) {
            self.may_store.acquire().await.unwrap().forget();
            self.log.stored.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn seven() -> FibIndex {
        FibIndex::new(7, LAST_INDEX).unwrap()
    }

    async fn until(condition: impl Fn() -> bool) {
        let wait = async {
            while !condition() {
                tokio::task::yield_now().await;
            }
        };
        time::timeout(Duration::from_secs(10), wait).await.expect("the condition never held");
    }

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn sixty_four_callers_share_one_calculation() {
        let work = Scripted::default();
        let (log, may_calculate) = (work.log.clone(), work.may_calculate.clone());
        let flights = Arc::new(Flights::new(work, PATIENCE));
        let mut callers = JoinSet::new();
        for _ in 0..64 {
            let flights = flights.clone();
            callers.spawn(async move { flights.value(seven(), Instant::now()).await.unwrap() });
        }
        until(|| log.calculations.load(Ordering::SeqCst) == 1).await;
        may_calculate.add_permits(1);
        let answers = callers.join_all().await;
        assert!(answers.iter().all(|answer| answer.value == 70));
        assert_eq!(answers.iter().filter(|answer| !answer.collapsed).count(), 1);
        assert_eq!(log.calculations.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_follower_outlives_the_first_caller() {
        let work = Scripted::default();
        let (log, may_calculate) = (work.log.clone(), work.may_calculate.clone());
        let flights = Flights::new(work, PATIENCE);
        let mut follower = Box::pin(flights.value(seven(), Instant::now()));
        {
            let mut leader = Box::pin(flights.value(seven(), Instant::now()));
            tokio::select! { biased; _ = &mut leader => panic!(), () = std::future::ready(()) => () }
            tokio::select! { biased; _ = &mut follower => panic!(), () = std::future::ready(()) => () }
        }
        until(|| log.calculations.load(Ordering::SeqCst) == 1).await;
        may_calculate.add_permits(1);
        assert_eq!(follower.await, Ok(Answer { value: 70, collapsed: true }));
        assert_eq!(log.dropped.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn the_calculation_is_dropped_with_the_last_caller_and_the_next_one_gets_a_new_one() {
        let work = Scripted::default();
        let (log, may_calculate) = (work.log.clone(), work.may_calculate.clone());
        let flights = Flights::new(work, PATIENCE);
        tokio::select! {
            biased;
            _ = flights.value(seven(), Instant::now()) => panic!("nothing may be calculated yet"),
            () = until(|| log.calculations.load(Ordering::SeqCst) == 1) => (),
        }
        // Boards before the flight's task has seen that everybody has gone.
        let next = flights.value(seven(), Instant::now());
        let release = async {
            until(|| log.dropped.load(Ordering::SeqCst) == 1).await;
            may_calculate.add_permits(1);
        };
        let (answer, ()) = tokio::join!(next, release);
        assert_eq!(answer, Ok(Answer { value: 70, collapsed: false }));
        assert_eq!(log.calculations.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_value_is_shared_until_it_is_stored_and_for_looks_before_that() {
        let work = Scripted::default();
        work.may_calculate.add_permits(2);
        let (log, may_store) = (work.log.clone(), work.may_store.clone());
        let flights = Flights::new(work, PATIENCE);

        let early_look = Instant::now();
        assert_eq!(flights.value(seven(), early_look).await, Ok(Answer { value: 70, collapsed: false }));
        // Set is not answered, and no caller holds a ticket.
        for _ in 0..3 {
            assert_eq!(
                flights.value(seven(), Instant::now()).await,
                Ok(Answer { value: 70, collapsed: true })
            );
        }
        may_store.add_permits(2);
        flights.finish().await;
        assert_eq!(log.stored.load(Ordering::SeqCst), 1);

        assert_eq!(flights.value(seven(), early_look).await, Ok(Answer { value: 70, collapsed: true }));
        assert_eq!(log.calculations.load(Ordering::SeqCst), 1);
        // The cache was asked after the value was stored, and does not have it: it has lost it.
        assert_eq!(flights.value(seven(), Instant::now()).await, Ok(Answer { value: 70, collapsed: false }));
        assert_eq!(log.calculations.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_waits_no_longer_than_its_patience() {
        let work = Scripted::default();
        let log = work.log.clone();
        let flights = Flights::new(work, PATIENCE);
        let error = flights.value(seven(), Instant::now()).await.unwrap_err();
        assert_eq!(error, FlightError::TimedOut { after: PATIENCE });
        flights.finish().await;
        assert_eq!(log.dropped.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_failure_reaches_all_and_is_forgotten() {
        let error = FlightError::TimedOut { after: Duration::from_secs(1) };
        let work = Scripted { error: Some(error.clone()), ..Scripted::default() };
        let (log, may_calculate) = (work.log.clone(), work.may_calculate.clone());
        let flights = Flights::new(work, PATIENCE);
        let release = async {
            until(|| log.calculations.load(Ordering::SeqCst) == 1).await;
            may_calculate.add_permits(2);
        };
        let (first, second, ()) = tokio::join!(
            flights.value(seven(), Instant::now()),
            flights.value(seven(), Instant::now()),
            release
        );
        assert_eq!((first, second), (Err(error.clone()), Err(error.clone())));
        assert_eq!(flights.value(seven(), Instant::now()).await, Err(error));
        assert_eq!(log.calculations.load(Ordering::SeqCst), 2);
    }

    struct Panics;

    impl Work for Panics {
        async fn calculate(&self, _n: FibIndex) -> Result<u64, FlightError> {
            panic!("as the test wants it");
        }

        async fn store(&self, _n: FibIndex, _value: u64) {}
    }

    #[tokio::test]
    async fn a_panic_does_not_leave_callers_hanging() {
        let flights = Flights::new(Panics, PATIENCE);
        for _ in 0..2 {
            assert_eq!(flights.value(seven(), Instant::now()).await, Err(FlightError::Lost));
        }
    }
}
