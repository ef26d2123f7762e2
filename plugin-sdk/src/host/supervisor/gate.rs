//! Counts the calls to one instance, and can be closed to new ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

use crate::clock::later;

/// The way in for calls. Cheap to clone; all clones are one gate.
#[derive(Debug, Clone)]
pub(super) struct Gate(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Calls inside, and [`CLOSED`].
    state: AtomicUsize,
    empty: Notify,
    since: Instant,
    /// When the last call came or went, in milliseconds after `since`.
    used: AtomicU64,
}

const CLOSED: usize = 1 << (usize::BITS - 1);

/// A call inside. It leaves when this is dropped.
#[derive(Debug)]
pub(super) struct Inside(Arc<Shared>);

impl Gate {
    pub(super) fn new() -> Self {
        Self(Arc::new(Shared {
            state: AtomicUsize::new(0),
            empty: Notify::new(),
            since: Instant::now(),
            used: AtomicU64::new(0),
        }))
    }

    /// Lets a call in; `None` if the gate is closed.
    pub(super) fn enter(&self) -> Option<Inside> {
        let before = self.0.state.fetch_add(1, Ordering::AcqRel);
        // From here on the drop of `inside` takes it back.
        let inside = Inside(Arc::clone(&self.0));
        if before & CLOSED == 0 { Some(inside) } else { None }
    }

    /// Calls inside.
    pub(super) fn count(&self) -> usize {
        self.0.state.load(Ordering::Acquire) & !CLOSED
    }

    /// Lets no more calls in.
    pub(super) fn close(&self) {
        self.0.state.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Lets no more calls in if there are none inside and the last one left at least `idle` ago; else says when that may be
    /// true.
    pub(super) fn close_if_idle(&self, idle: Duration, now: Instant) -> Result<(), Instant> {
        let used = self.0.since + Duration::from_millis(self.0.used.load(Ordering::Acquire));
        let due = later(used, idle);
        if now < due {
            return Err(due);
        }
        let closed = self.0.state.compare_exchange(0, CLOSED, Ordering::AcqRel, Ordering::Acquire);
        closed.map(|_| ()).map_err(|_| later(now, idle))
    }

    /// Waits until nobody is inside. Of use once it is closed.
    pub(super) async fn emptied(&self) {
        loop {
            let empty = self.0.empty.notified();
            tokio::pin!(empty);
            empty.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            empty.await;
        }
    }
}

impl Inside {
    /// Lets one more in with this one, through a closed gate as well.
    pub(super) fn another(&self) -> Self {
        self.0.state.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let used = u64::try_from(self.0.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.used.store(used, Ordering::Release);
        if self.0.state.fetch_sub(1, Ordering::AcqRel) & !CLOSED == 1 {
            self.0.empty.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_gate_lets_nobody_in_and_empties() {
        let gate = Gate::new();
        let (first, second) = (gate.enter().unwrap(), gate.enter().unwrap());
        gate.close();
        assert!(gate.enter().is_none());
        assert_eq!(gate.count(), 2);
        let emptied = tokio::spawn({
            let gate = gate.clone();
            async move { gate.emptied().await }
        });
        let third = second.another();
        drop((first, second));
        tokio::task::yield_now().await;
        assert!(!emptied.is_finished());
        drop(third);
        emptied.await.unwrap();
        gate.emptied().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_gate_is_idle_some_time_after_the_last_call_left() {
        let idle = Duration::from_secs(10);
        let gate = Gate::new();
        tokio::time::advance(Duration::from_secs(9)).await;
        let inside = gate.enter().unwrap();
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(gate.close_if_idle(idle, Instant::now()).is_err(), "a call is inside");
        drop(inside);
        assert_eq!(gate.close_if_idle(idle, Instant::now()), Err(Instant::now() + idle));
        tokio::time::advance(idle).await;
        gate.close_if_idle(idle, Instant::now()).unwrap();
        assert!(gate.enter().is_none());
    }
}
