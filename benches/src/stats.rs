//! The little statistics there is: medians, their spread, percentiles.

/// What rounds gave: the middle and the extremes. Means are left out on purpose, one disturbed round would move them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Summary {
    /// None of nothing.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self { median, min, max })
    }
}

/// How many times `of` the value is; none against nothing.
pub(crate) fn ratio(value: Option<Summary>, of: Option<Summary>) -> Option<f64> {
    let (value, of) = (value?.median, of?.median);
    (of > 0.0).then(|| value / of)
}

/// The smallest value that at least `share` (above 0, at most 1) of all values don't exceed.
pub(crate) fn percentile(sorted: &[u32], share: f64) -> Option<u32> {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the length, which was a usize"
    )]
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(values: &[f64]) -> Option<(f64, f64, f64)> {
        Summary::of(values.iter().copied()).map(|one| (one.median, one.min, one.max))
    }

    #[test]
    fn medians_with_their_extremes() {
        assert_eq!(summary(&[]), None);
        assert_eq!(summary(&[7.0]), Some((7.0, 7.0, 7.0)));
        assert_eq!(summary(&[9.0, 1.0, 2.0]), Some((2.0, 1.0, 9.0)));
        assert_eq!(summary(&[4.0, 1.0, 3.0, 100.0]), Some((3.5, 1.0, 100.0)));
    }

    #[test]
    fn ratios_are_between_medians() {
        let (three, two) = (Summary::of([3.0, 1.0, 9.0]), Summary::of([2.0]));
        assert_eq!(ratio(three, two), Some(1.5));
        assert_eq!(ratio(three, None), None);
        assert_eq!(ratio(three, Summary::of([0.0])), None);
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let hundred: Vec<u32> = (1..=100).collect();
        let cases = [(0.5, 50), (0.99, 99), (0.991, 100), (1.0, 100), (0.001, 1)];
        for (share, want) in cases {
            assert_eq!(percentile(&hundred, share), Some(want), "share {share}");
        }
        assert_eq!(percentile(&[42], 0.5), Some(42));
        assert_eq!(percentile(&[], 0.5), None);
    }
}
