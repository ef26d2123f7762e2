//! The double recursion, with a way out.

use std::sync::atomic::{AtomicBool, Ordering};

use super::FibIndex;

/// Calls above this n look at the cancel flag. A subtree below it takes well under a millisecond, which is how late
/// a cancel can be noticed; and there are some 200,000 calls in it for each look, so looking costs nothing.
const LOOK_ABOVE: u8 = 25;

/// F(n) by double recursion, or `None` as soon as `cancel` is seen to be set.
pub fn naive(n: FibIndex, cancel: &AtomicBool) -> Option<u64> {
    looking(n.get(), cancel)
}

fn looking(n: u8, cancel: &AtomicBool) -> Option<u64> {
    if n <= LOOK_ABOVE {
        return Some(plain(n));
    }
    if cancel.load(Ordering::Relaxed) {
        return None;
    }
    Some(looking(n - 1, cancel)? + looking(n - 2, cancel)?)
}

fn plain(n: u8) -> u64 {
    if n < 2 { u64::from(n) } else { plain(n - 1) + plain(n - 2) }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread, time::Duration};

    use super::*;
    use crate::fib::LAST_INDEX;

    #[test]
    fn known_values() {
        for (n, value) in
            [(0, 0), (1, 1), (2, 1), (3, 2), (10, 55), (26, 121_393), (27, 196_418), (32, 2_178_309)]
        {
            let index = FibIndex::new(n, LAST_INDEX).unwrap();
            assert_eq!(naive(index, &AtomicBool::new(false)), Some(value), "n = {n}");
        }
    }

    #[test]
    fn a_calculation_of_years_ends_when_cancelled() {
        let index = FibIndex::new(LAST_INDEX, LAST_INDEX).unwrap();
        assert_eq!(naive(index, &AtomicBool::new(true)), None);

        let cancel = Arc::new(AtomicBool::new(false));
        let calculation = thread::spawn({
            let cancel = cancel.clone();
            move || naive(index, &cancel)
        });
        // Gives the thread a chance to be deep in its recursion; the outcome does not depend on it.
        thread::sleep(Duration::from_millis(5));
        cancel.store(true, Ordering::Relaxed);
        assert_eq!(calculation.join().unwrap(), None);
    }
}
