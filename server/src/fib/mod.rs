//! Arithmetic only: which numbers may be asked for, and two ways to calculate them. No I/O, no clock, no threads.

mod doubling;
mod index;
mod naive;

pub use doubling::doubling;
pub use index::{FibIndex, ParseIndexError};
pub use naive::naive;

/// The last n whose Fibonacci number fits into 64 bits: F(93) = 12200160415121876738.
pub const LAST_INDEX: u8 = 93;

/// How a number is calculated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Algorithm {
    /// The deliberately slow double recursion: time grows by 1.6 for each step of n.
    Naive,
    /// Fast doubling: a handful of multiplications for any n.
    Doubling,
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn both_algorithms_agree() {
        for n in 0..=30 {
            let index = FibIndex::new(n, LAST_INDEX).unwrap();
            assert_eq!(naive(index, &AtomicBool::new(false)), Some(doubling(index)), "n = {n}");
        }
    }
}
