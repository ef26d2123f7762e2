//! Flights, with work that the test steers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::Semaphore, task::JoinSet, time};

use super::{Answer, FlightError, Flights, Work};
use crate::fib::{FibIndex, LAST_INDEX};

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
        assert_eq!(flights.value(seven(), Instant::now()).await, Ok(Answer { value: 70, collapsed: true }));
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
    let (first, second, ()) =
        tokio::join!(flights.value(seven(), Instant::now()), flights.value(seven(), Instant::now()), release);
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
