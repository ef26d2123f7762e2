//! How long to wait before the next attempt to connect.

use std::hash::BuildHasher;
use std::time::Duration;

/// The delay before attempt `attempt`, counted from 0. The first comes at once, as most connections end because Redis
/// was restarted; the others after a time that doubles, of which a random half is left out, so that many plugins do not
/// all return at the same moment.
pub(crate) fn delay(attempt: u32) -> Duration {
    let Some(doublings) = attempt.checked_sub(1) else { return Duration::ZERO };
    let limit = INITIAL.saturating_mul(1 << doublings.min(MAX_DOUBLINGS)).min(MAX);
    limit.mul_f64(0.5 + 0.5 * random())
}

/// A number from 0 to 1, random enough: each of these hashers has keys of its own.
fn random() -> f64 {
    let number = std::hash::RandomState::new().hash_one(0);
    // A `u32` fits into an `f64`.
    f64::from((number >> 32) as u32) / f64::from(u32::MAX)
}

const INITIAL: Duration = Duration::from_millis(25);

/// What a restart of Redis costs at the most beyond its own time; short, as an attempt costs next to nothing.
pub(crate) const MAX: Duration = Duration::from_secs(2);

/// Beyond it only [`MAX`] counts.
const MAX_DOUBLINGS: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit_and_at_least_half_of_each_is_waited() {
        assert_eq!(delay(0), Duration::ZERO);
        for (attempt, millis) in [(1, 25), (2, 50), (5, 400), (7, 1600), (8, 2000), (u32::MAX, 2000)] {
            let limit = Duration::from_millis(millis);
            for _ in 0..100 {
                let delay = delay(attempt);
                assert!(limit / 2 <= delay && delay <= limit, "{attempt}: {delay:?}");
            }
        }
    }
}
