//! Where calculations run: on threads of their own, so many and no more, and none longer than the limit.
//!
//! There are two lanes with the same number of threads each. A cheap number never waits behind two that take for
//! ever; the scheduler of the operating system shares the cores among them.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::Semaphore, task, time};
use tracing::debug;

use super::FlightError;
use crate::{
    config::ComputeConfig,
    fib::{Algorithm, FibIndex, doubling, naive},
};

/// The largest n of the short lane. Its double recursion takes about 10 ms, the next ones soon take seconds.
const LAST_SHORT: u8 = 32;

/// Bounded threads for calculations.
#[derive(Debug)]
pub struct Pool {
    algorithm: Algorithm,
    limit: Duration,
    short: Arc<Semaphore>,
    long: Arc<Semaphore>,
}

impl Pool {
    /// A pool as configured. It starts no thread before there is work.
    pub fn new(config: &ComputeConfig) -> Self {
        let lane = || Arc::new(Semaphore::new(config.threads.get()));
        Self { algorithm: config.algorithm, limit: config.timeout, short: lane(), long: lane() }
    }

    /// The most threads that pools with this setting occupy.
    pub fn max_threads(threads: NonZeroUsize) -> usize {
        threads.get() * 2
    }

    /// Calculates F(n) once a thread is free. Dropping the future gives up: what waits never starts, and what runs
    /// stops within about a millisecond.
    pub async fn run(&self, n: FibIndex) -> Result<u64, FlightError> {
        let started = Instant::now();
        let value = match self.algorithm {
            // Takes less time than waking a thread.
            Algorithm::Doubling => doubling(n),
            Algorithm::Naive => self.run_naive(n).await?,
        };
        debug!(n = n.get(), elapsed = ?started.elapsed(), "calculated");
        Ok(value)
    }

    async fn run_naive(&self, n: FibIndex) -> Result<u64, FlightError> {
        let lane = if n.get() <= LAST_SHORT { &self.short } else { &self.long };
        let Ok(permit) = lane.clone().acquire_owned().await else { return Err(FlightError::Lost) };
        let cancel = CancelOnDrop::default();
        let flag = cancel.0.clone();
        // The permit goes with the thread, not with the caller: the place is free when the thread is.
        let calculation = task::spawn_blocking(move || {
            let _permit = permit;
            naive(n, &flag)
        });
        match time::timeout(self.limit, calculation).await {
            Ok(Ok(Some(value))) => Ok(value),
            // Only the guard above cancels, and it has not been dropped; so the calculation has panicked, or the
            // run time is shutting down.
            Ok(Ok(None) | Err(_)) => Err(FlightError::Lost),
            Err(_) => Err(FlightError::TimedOut { after: self.limit }),
        }
    }
}

#[derive(Default)]
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fib::LAST_INDEX;

    const THREADS: u32 = 2;

    fn pool(algorithm: Algorithm, limit: Duration) -> Pool {
        let threads = NonZeroUsize::new(THREADS as usize).unwrap();
        Pool::new(&ComputeConfig { algorithm, max_n: LAST_INDEX, timeout: limit, threads })
    }

    fn index(n: u8) -> FibIndex {
        FibIndex::new(n, LAST_INDEX).unwrap()
    }

    /// Returns once no thread of the pool is busy.
    async fn idle(pool: &Pool) {
        let wait = async {
            drop(pool.short.acquire_many(THREADS).await.unwrap());
            drop(pool.long.acquire_many(THREADS).await.unwrap());
        };
        time::timeout(Duration::from_secs(10), wait).await.expect("a calculation does not stop");
    }

    #[tokio::test]
    async fn short_ones_do_not_wait_behind_long_ones() {
        let pool = pool(Algorithm::Naive, Duration::from_secs(60));
        let endless = async { tokio::join!(pool.run(index(91)), pool.run(index(92)), pool.run(index(93))) };
        tokio::select! {
            biased;
            _ = endless => panic!("the recursion for 91 cannot have ended"),
            value = pool.run(index(20)) => assert_eq!(value.unwrap(), 6765),
        }
        // The endless ones were dropped with the branch, the two that ran and the one that waited.
        idle(&pool).await;
    }

    #[tokio::test]
    async fn a_calculation_ends_at_its_limit() {
        let limit = Duration::from_millis(20);
        let pool = pool(Algorithm::Naive, limit);
        assert!(matches!(pool.run(index(90)).await, Err(FlightError::TimedOut { after }) if after == limit));
        idle(&pool).await;
    }

    #[tokio::test]
    async fn doubling_needs_no_thread() {
        let pool = pool(Algorithm::Doubling, Duration::from_millis(1));
        assert_eq!(pool.run(index(93)).await.unwrap(), 12_200_160_415_121_876_738);
    }
}
