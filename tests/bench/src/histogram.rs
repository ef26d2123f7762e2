//! Latencies, counted in buckets that are 1.6 % wide, so that a run of any length takes the same memory.

use std::time::Duration;

/// Buckets per doubling, as a power of two.
const BITS: u32 = 6;
const STEPS: u64 = 1 << BITS;

/// Counts of durations up to 64 bits of nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; bucket(u64::MAX) + 1], total: 0 }
    }

    pub(crate) fn add(&mut self, duration: Duration) {
        self.counts[bucket(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))] += 1;
        self.total += 1;
    }

    /// The duration that this share of all does not pass; zero if there is none.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let rank = (self.total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        found.map_or(Duration::ZERO, |bucket| Duration::from_nanos(largest(bucket)))
    }
}

fn bucket(nanos: u64) -> usize {
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(BITS + 1);
    // At most 64 doublings of 64 steps.
    (u64::from(shift) * STEPS + (nanos >> shift)) as usize
}

/// The largest number that is counted in a bucket.
fn largest(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * STEPS {
        return bucket;
    }
    let shift = bucket / STEPS - 1;
    let first = (bucket - shift * STEPS) << shift;
    first + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_in_a_bucket_that_is_hardly_larger() {
        for power in 0..64 {
            for nanos in [(1_u64 << power) - 1, 1 << power, (1 << power) + (1 << power) / 3] {
                let largest = largest(bucket(nanos));
                assert!(largest >= nanos, "{nanos}");
                assert!((largest - nanos) as f64 <= nanos as f64 / STEPS as f64, "{nanos}: {largest}");
            }
        }
        assert_eq!(largest(bucket(u64::MAX)), u64::MAX);
    }

    #[test]
    fn buckets_follow_one_another() {
        for index in 0..bucket(u64::MAX) {
            assert_eq!(bucket(largest(index)), index);
            assert_eq!(bucket(largest(index) + 1), index + 1);
        }
    }

    #[test]
    fn quantiles_count_from_the_fastest() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.quantile(0.5), Duration::ZERO);
        for nanos in 1..=100 {
            histogram.add(Duration::from_nanos(nanos));
        }
        for (share, nanos) in [(0.0, 1), (0.5, 50), (0.99, 99), (1.0, 100)] {
            assert_eq!(histogram.quantile(share), Duration::from_nanos(nanos), "{share}");
        }
    }
}
