//! What a few noisy rounds allow to be said: medians, and between what the true one lies.

/// A median and an interval that holds the true one with a given confidence.
///
/// By order statistics (the sign test turned round): each round lies above the true median or below it
/// with equal chance, and nothing else is assumed of how rounds scatter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The median of what was measured.
    pub median: f64,
    /// Where the interval begins.
    pub low: f64,
    /// Where it ends.
    pub high: f64,
    /// The chance that the true median is in it: 0.95 and more, where there are rounds enough (6).
    pub confidence: f64,
}

/// The confidence wanted of an interval.
const WANTED: f64 = 0.95;

impl Interval {
    /// Of some values; `None` of none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (first, last) = (*values.first()?, *values.last()?);
        let count = values.len();
        let upper = *values.get(count / 2)?;
        let median = if count.is_multiple_of(2) {
            f64::midpoint(*values.get(count / 2 - 1)?, upper)
        } else {
            upper
        };
        // The narrowest that is as sure as wanted; from the first value to the last, if none is.
        let mut interval = Self {
            median,
            low: first,
            high: last,
            confidence: confidence(count, 0),
        };
        for cut in 1..count / 2 {
            let confidence = confidence(count, cut);
            if confidence < WANTED {
                break;
            }
            interval = Self {
                median,
                low: *values.get(cut)?,
                high: *values.get(count - 1 - cut)?,
                confidence,
            };
        }
        Some(interval)
    }
}

/// The chance that the true median lies between the values that remain when `cut` are left out at each
/// end: that of more than `cut` heads and more than `cut` tails in `count` throws.
fn confidence(count: usize, cut: usize) -> f64 {
    let all = (count as f64).exp2();
    let mut ways = 1.0;
    let mut fewer = 0.0;
    for heads in 0..=cut {
        fewer += ways;
        ways = ways * (count - heads) as f64 / (heads + 1) as f64;
    }
    1.0 - 2.0 * fewer / all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_as_sure_as_the_rounds_allow() {
        let seven = Interval::of([5.0, 1.0, 3.0, 2.0, 4.0, 7.0, 6.0]).unwrap();
        assert_eq!((seven.median, seven.low, seven.high), (4.0, 1.0, 7.0));
        assert!((seven.confidence - (1.0 - 2.0 / 128.0)).abs() < 1e-12);
        // With 15, three may be left out at each end: 1 - 2 (1 + 15 + 105 + 455) / 2^15.
        let fifteen = Interval::of((1..=15).map(f64::from)).unwrap();
        assert_eq!(
            (fifteen.median, fifteen.low, fifteen.high),
            (8.0, 4.0, 12.0)
        );
        assert!((fifteen.confidence - 0.964_843_75).abs() < 1e-12);
        let two = Interval::of([1.0, 2.0]).unwrap();
        assert_eq!(
            (two.median, two.low, two.high, two.confidence),
            (1.5, 1.0, 2.0, 0.5)
        );
        assert!(Interval::of([3.0]).unwrap().confidence.abs() < 1e-12);
        assert!(Interval::of([]).is_none());
    }
}
