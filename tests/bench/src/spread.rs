//! What many rounds say together.

use std::fmt;

/// The median of some figures, and how far they are apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Of figures of which one at least is a number.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.into_iter().filter(|figure| figure.is_finite()).collect();
        figures.sort_by(f64::total_cmp);
        let (least, most) = (*figures.first()?, *figures.last()?);
        let middle = figures.len() / 2;
        let median = if figures.len() % 2 == 1 {
            figures[middle]
        } else {
            f64::midpoint(figures[middle - 1], figures[middle])
        };
        Some(Self { median, least, most })
    }

    /// Of the ratios within each round: what disturbs a whole round disturbs both alike.
    pub(crate) fn of_ratios(figures: &[f64], others: &[f64]) -> Option<Self> {
        Self::of(figures.iter().zip(others).map(|(figure, other)| figure / other))
    }
}

/// `2.48 (2.10-2.71)`
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, least, most } = self;
        write!(f, "{median:.2} ({least:.2}-{most:.2})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        for (figures, median, least, most) in [
            (&[3.0][..], 3.0, 3.0, 3.0),
            (&[9.0, 1.0, 2.0], 2.0, 1.0, 9.0),
            (&[4.0, 1.0, 3.0, 2.0], 2.5, 1.0, 4.0),
            (&[f64::NAN, 1.0, f64::INFINITY], 1.0, 1.0, 1.0),
        ] {
            assert_eq!(
                Spread::of(figures.iter().copied()),
                Some(Spread { median, least, most }),
                "{figures:?}"
            );
        }
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([f64::NAN]), None);
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        // The second round was three times slower for both.
        let spread = Spread::of_ratios(&[200.0, 66.0], &[100.0, 33.0]).unwrap();
        assert_eq!(spread.to_string(), "2.00 (2.00-2.00)");
    }
}
