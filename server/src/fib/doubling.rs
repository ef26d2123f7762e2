//! Fast doubling: F(2k) and F(2k+1) from F(k) and F(k+1), bit by bit from the top of n.

use super::FibIndex;

/// F(n) in a few multiplications.
pub fn doubling(n: FibIndex) -> u64 {
    let n = n.get();
    // F(k) and F(k+1). For the last n the latter does not fit into 64 bits any more, hence the wider type.
    let (mut this, mut next) = (0_u128, 1_u128);
    for bit in (0..u8::BITS).rev() {
        let even = this * (2 * next - this);
        let odd = this * this + next * next;
        (this, next) = if n >> bit & 1 == 0 { (even, odd) } else { (odd, even + odd) };
    }
    // An index is at most 93, and F(93) fits.
    this as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fib::LAST_INDEX;

    #[test]
    fn agrees_with_addition_up_to_the_last_index() {
        let (mut this, mut next) = (0_u128, 1_u128);
        for n in 0..=LAST_INDEX {
            let index = FibIndex::new(n, LAST_INDEX).unwrap();
            assert_eq!(u128::from(doubling(index)), this, "n = {n}");
            (this, next) = (next, this + next);
        }
    }

    #[test]
    fn known_values() {
        for (n, value) in
            [(0, 0), (1, 1), (2, 1), (92, 7_540_113_804_746_346_429), (93, 12_200_160_415_121_876_738)]
        {
            assert_eq!(doubling(FibIndex::new(n, LAST_INDEX).unwrap()), value, "n = {n}");
        }
    }
}
