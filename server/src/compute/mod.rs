//! Calculating numbers without harm to anybody else: off the asynchronous threads, bounded in number and time, one
//! calculation per number at a time, and none that nobody waits for.
//!
//! ```text
//! callers ──▶ Flights (one per n) ──▶ Refill ──▶ Pool ──▶ fib::naive
//!                                        └─────▶ Cache::set
//! ```

mod flights;
mod pool;

// Flights take their locks from here: `tests/models` gives them others.
use std::sync;

pub use flights::{Answer, FlightError, Flights, Work};
pub use pool::Pool;

use crate::{cache::Cache, fib::FibIndex};

/// The work of the server's flights: calculate in the pool, store in the cache.
#[derive(Debug)]
pub struct Refill {
    pool: Pool,
    cache: Cache,
}

impl Refill {
    /// Calculates in `pool` and stores in `cache`.
    pub fn new(pool: Pool, cache: Cache) -> Self {
        Self { pool, cache }
    }
}

impl Work for Refill {
    async fn calculate(&self, n: FibIndex) -> Result<u64, FlightError> {
        self.pool.run(n).await
    }

    async fn store(&self, n: FibIndex, value: u64) {
        self.cache.set(n, value).await;
    }
}

#[cfg(test)]
mod tests;
