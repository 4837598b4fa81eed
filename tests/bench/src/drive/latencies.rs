//! How long requests took.

use hdrhistogram::Histogram;
use quanta::Clock;

use crate::error::{Error, Result};

/// The longest latency that is told apart from longer ones, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;

/// A histogram of latencies. Requests that began in one batch and came back in one have the same times: they
/// are entered together, for a request of the bare ring takes little longer than an entry.
#[derive(Debug)]
pub(super) struct Latencies {
    clock: Clock,
    histogram: Histogram<u64>,
    /// When the last ones began and came back, in ticks, and how many they are, not entered yet.
    times: (u64, u64),
    count: u64,
}

impl Latencies {
    pub(super) fn new(clock: Clock) -> Result<Self> {
        let histogram = Histogram::new_with_bounds(1, LONGEST, 3).map_err(|_| {
            Error::Unfit("no histogram of a minute in nanoseconds can be made".into())
        })?;
        Ok(Self {
            clock,
            histogram,
            times: (0, 0),
            count: 0,
        })
    }

    /// A request took from one tick of the clock to another.
    #[inline]
    pub(super) fn note(&mut self, begun: u64, arrived: u64) {
        if self.times != (begun, arrived) {
            self.enter();
            self.times = (begun, arrived);
        }
        self.count += 1;
    }

    fn enter(&mut self) {
        let count = std::mem::take(&mut self.count);
        if count > 0 {
            let (begun, arrived) = self.times;
            let nanos = self.clock.delta_as_nanos(begun, arrived);
            self.histogram.saturating_record_n(nanos.max(1), count);
        }
    }

    /// All that were noted, in nanoseconds.
    pub(super) fn finish(mut self) -> Histogram<u64> {
        self.enter();
        self.histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_is_entered_once() {
        let clock = Clock::new();
        let mut latencies = Latencies::new(clock.clone()).unwrap();
        // Alone, together, in between, and together with none before.
        let times = [
            (10, 5_000),
            (10, 9_000),
            (10, 9_000),
            (20, 9_000),
            (10, 9_000),
        ];
        let mut one_by_one = Histogram::<u64>::new_with_bounds(1, LONGEST, 3).unwrap();
        for (begun, arrived) in times {
            latencies.note(begun, arrived);
            one_by_one.saturating_record(clock.delta_as_nanos(begun, arrived).max(1));
        }
        assert_eq!(latencies.finish(), one_by_one);
        assert_eq!(Latencies::new(clock).unwrap().finish().len(), 0);
    }
}
