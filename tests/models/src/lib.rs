//! The parts of `fib-server` that many tasks meet in, under [shuttle]: it runs their tasks one at a time, picks at
//! each lock and each await which goes on, and does so thousands of times, each time in another order. A failure
//! prints the order that led to it.
//!
//! The code is the server's own, included file by file. Its channels are tokio's own, too. What takes a run time or a
//! clock is replaced: tasks are shuttle's ([`task`]), and so is the lock; time runs out when shuttle lets it ([`time`]).
//!
//! | model | of | what is modelled beside it |
//! |---|---|---|
//! | [`compute`] | `server/src/compute/flights.rs` | the work |
//! | [`mod@line`] | `server/src/cache/line/batch.rs`, `flying.rs` | the driver, in short, and the plugin |

// What is included looks for tokio, and finds what is below.
extern crate self as tokio;
extern crate self as tokio_util;

use std::future::Future;

use shuttle::future;

pub mod compute;
pub mod line;
pub mod task;
pub mod time;

pub use real_tokio::select;

/// As tokio has it: no run time is needed.
pub mod sync {
    pub use real_tokio::sync::{mpsc, oneshot, watch};
}

/// As in the server.
pub mod fib {
    pub use fib_server::fib::{FibIndex, LAST_INDEX};
}

/// Runs a scenario in thousands of orders: half of them drawn evenly, half with few changes of who goes on, which finds what
/// takes one task to be slow.
pub fn in_any_order<F: Future<Output = ()> + 'static>(
    scenario: impl Fn() -> F + Clone + Send + Sync + 'static,
) {
    let scenario = move || future::block_on(scenario());
    shuttle::check_random(scenario.clone(), ORDERS / 2);
    shuttle::check_pct(scenario, ORDERS / 2, CHANGES);
}

const ORDERS: usize = 3_000;

/// How often a task is put behind all others.
const CHANGES: usize = 3;
