//! One calculation per number, whoever comes and goes, in whatever order.

use std::{
    future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use models::{
    compute::{Answer, FlightError, Flights, Work},
    fib::{FibIndex, LAST_INDEX},
    in_any_order,
    time::ANY_MOMENT,
};
use shuttle::future::{JoinHandle, spawn, yield_now};

/// What the calculations do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Script {
    Succeed,
    /// The first one does not, the others do.
    FailFirst,
    NeverEnd,
}

#[derive(Default)]
struct Log {
    started: AtomicUsize,
    running: AtomicUsize,
    most_running: AtomicUsize,
    stored: AtomicUsize,
}

/// Calculates in a few steps, and stores in one more.
struct Scripted {
    script: Script,
    log: Arc<Log>,
}

struct Running<'a>(&'a Log);

impl<'a> Running<'a> {
    fn new(log: &'a Log) -> Self {
        let now = log.running.fetch_add(1, Ordering::SeqCst) + 1;
        log.most_running.fetch_max(now, Ordering::SeqCst);
        Self(log)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Work for Scripted {
    async fn calculate(&self, n: FibIndex) -> Result<u64, FlightError> {
        let _running = Running::new(&self.log);
        let is_first = self.log.started.fetch_add(1, Ordering::SeqCst) == 0;
        yield_now().await;
        yield_now().await;
        match self.script {
            Script::NeverEnd => future::pending().await,
            Script::FailFirst if is_first => Err(FAILURE),
            _ => Ok(value_of(n)),
        }
    }

    async fn store(&self, _: FibIndex, _: u64) {
        yield_now().await;
        self.log.stored.fetch_add(1, Ordering::SeqCst);
    }
}

const FAILURE: FlightError = FlightError::TimedOut { after: Duration::from_secs(7) };

/// Never reached.
const PATIENCE: Duration = Duration::from_secs(60);

fn index(n: u8) -> FibIndex {
    FibIndex::new(n, LAST_INDEX).expect("small enough")
}

fn value_of(n: FibIndex) -> u64 {
    u64::from(n.get()) * 10
}

type Caller = JoinHandle<Result<Answer, FlightError>>;

/// A server's flights, for one scenario.
struct Server {
    flights: Arc<Flights<Scripted>>,
    log: Arc<Log>,
    /// When all callers have looked into the cache, and found nothing.
    looked_at: Instant,
}

impl Server {
    fn new(script: Script, patience: Duration) -> Self {
        let log = Arc::default();
        let work = Scripted { script, log: Arc::clone(&log) };
        Self { flights: Arc::new(Flights::new(work, patience)), log, looked_at: Instant::now() }
    }

    fn call(&self, n: u8) -> Caller {
        let (flights, looked_at) = (Arc::clone(&self.flights), self.looked_at);
        spawn(async move { flights.value(index(n), looked_at).await })
    }

    /// A caller that tries once more if it fails. Says whether it did, and what came of it.
    fn call_again(&self, n: u8) -> JoinHandle<(bool, Result<Answer, FlightError>)> {
        let (flights, looked_at) = (Arc::clone(&self.flights), self.looked_at);
        spawn(async move {
            match flights.value(index(n), looked_at).await {
                Err(_) => (true, flights.value(index(n), looked_at).await),
                answer => (false, answer),
            }
        })
    }

    /// Ends once nothing runs any more, as it must when all have been answered or have left.
    async fn rest(&self) {
        self.flights.finish().await;
        assert_eq!(self.log.running.load(Ordering::SeqCst), 0);
    }

    fn started(&self) -> usize {
        self.log.started.load(Ordering::SeqCst)
    }

    fn stored(&self) -> usize {
        self.log.stored.load(Ordering::SeqCst)
    }

    fn most_running(&self) -> usize {
        self.log.most_running.load(Ordering::SeqCst)
    }
}

#[test]
fn callers_share_one_calculation_however_late_they_come() {
    in_any_order(async || {
        let server = Server::new(Script::Succeed, PATIENCE);
        let mut first = 0;
        for caller in [7, 7, 7, 7].map(|n| server.call(n)) {
            let Answer { value, collapsed } = caller.await.unwrap().unwrap();
            assert_eq!(value, 70);
            first += usize::from(!collapsed);
        }
        server.rest().await;
        assert_eq!((first, server.started(), server.stored()), (1, 1, 1));
    });
}

#[test]
fn whoever_waits_gets_an_answer_whichever_callers_leave() {
    in_any_order(async || {
        let server = Server::new(Script::Succeed, PATIENCE);
        let [leaving, staying, also_leaving, also_staying] = [7, 7, 7, 7].map(|n| server.call(n));
        leaving.abort();
        also_leaving.abort();
        for caller in [staying, also_staying] {
            assert_eq!(caller.await.unwrap().unwrap().value, 70);
        }
        // Those who leave too late have their answer, too.
        for caller in [leaving, also_leaving] {
            assert!(caller.await.map_or(true, |answer| answer.unwrap().value == 70));
        }
        server.rest().await;
    });
}

#[test]
fn calculation_that_nobody_waits_for_is_dropped_and_leaves_nothing() {
    in_any_order(async || {
        let server = Server::new(Script::NeverEnd, PATIENCE);
        for _ in 0..2 {
            let before = server.started();
            let callers = [7, 7, 7].map(|n| server.call(n));
            // In the second round, no flight of the first is found.
            until(|| server.started() > before).await;
            callers.iter().for_each(JoinHandle::abort);
            for caller in callers {
                assert!(caller.await.is_err());
            }
            server.rest().await;
        }
    });
}

#[test]
fn failure_reaches_those_who_waited_for_it_and_nobody_later() {
    in_any_order(async || {
        let server = Server::new(Script::FailFirst, PATIENCE);
        let mut failed = 0;
        for caller in [7, 7, 7].map(|n| server.call_again(n)) {
            let (has_failed, answer) = caller.await.unwrap();
            assert_eq!(answer.unwrap().value, 70);
            failed += usize::from(has_failed);
        }
        server.rest().await;
        assert!(failed > 0);
        assert_eq!((server.started(), server.most_running()), (2, 1));
    });
}

#[test]
fn caller_whose_patience_ends_takes_nobody_with_it() {
    in_any_order(async || {
        let server = Server::new(Script::Succeed, ANY_MOMENT);
        for caller in [7, 7, 7].map(|n| server.call(n)) {
            match caller.await.unwrap() {
                Ok(answer) => assert_eq!(answer.value, 70),
                Err(error) => assert_eq!(error, FlightError::TimedOut { after: ANY_MOMENT }),
            }
        }
        server.rest().await;
    });
}

#[test]
fn numbers_have_flights_of_their_own() {
    in_any_order(async || {
        let server = Server::new(Script::Succeed, PATIENCE);
        let [one, leaving, two] = [1, 1, 2].map(|n| server.call(n));
        leaving.abort();
        assert_eq!(one.await.unwrap().unwrap().value, 10);
        assert_eq!(two.await.unwrap().unwrap().value, 20);
        server.rest().await;
    });
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        yield_now().await;
    }
}
