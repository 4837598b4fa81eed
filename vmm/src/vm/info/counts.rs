//! What was counted of a queue.

use outboard_device::counters::QueueCounters;
use serde::{Deserialize, Serialize};

/// What a device of ours has counted of one of its queues since it was made, and how often its driver
/// has kicked. The device wrote it: it is shown, and nothing depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueCounts {
    /// Chains that the device has answered.
    pub requests: u64,
    /// Bytes in them that were the device's to read.
    pub bytes_to_device: u64,
    /// Bytes that the device wrote into them.
    pub bytes_to_guest: u64,
    /// Signals that it has sent for them. Of several that come while the guest is busy it has one
    /// interrupt.
    pub interrupts: u64,
    /// Kicks since the driver enabled the queue; `None` where they cannot be read.
    pub kicks: Option<u64>,
    /// How long the requests that were timed, one in 64, have taken together, in nanoseconds: from the
    /// moment the device took them to the moment their answers were in the ring.
    pub sampled_nanoseconds: u64,
    /// How many of them took less than 1 us, how many others less than 2 us, and so on; the last, longer.
    pub histogram: Vec<u64>,
}

impl QueueCounts {
    pub(super) fn new(counters: &QueueCounters, kicks: Option<u64>) -> Self {
        Self {
            requests: counters.requests,
            bytes_to_device: counters.bytes_to_device,
            bytes_to_guest: counters.bytes_to_guest,
            interrupts: counters.interrupts,
            kicks,
            sampled_nanoseconds: counters.sampled_nanoseconds,
            histogram: counters.histogram.to_vec(),
        }
    }

    /// Those that only grow, by name.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = [
            ("requests", self.requests),
            ("bytes_to_device", self.bytes_to_device),
            ("bytes_to_guest", self.bytes_to_guest),
            ("interrupts", self.interrupts),
        ];
        let kicks = self.kicks.map(|kicks| ("kicks", kicks));
        counts.into_iter().chain(kicks)
    }

    /// What was counted since `before`: nothing of what has begun anew.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let steps = self.histogram.iter().enumerate();
        let histogram = steps.map(|(step, count)| {
            let before = before.histogram.get(step).copied().unwrap_or(0);
            count.saturating_sub(before)
        });
        Self {
            requests: self.requests.saturating_sub(before.requests),
            bytes_to_device: self.bytes_to_device.saturating_sub(before.bytes_to_device),
            bytes_to_guest: self.bytes_to_guest.saturating_sub(before.bytes_to_guest),
            interrupts: self.interrupts.saturating_sub(before.interrupts),
            kicks: self
                .kicks
                .map(|kicks| kicks.saturating_sub(before.kicks.unwrap_or(0))),
            sampled_nanoseconds: self
                .sampled_nanoseconds
                .saturating_sub(before.sampled_nanoseconds),
            histogram: histogram.collect(),
        }
    }

    /// How many requests were timed.
    pub fn sampled(&self) -> u64 {
        let counts = self.histogram.iter();
        counts.fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The time that so large a part of the requests that were timed took at most, in microseconds, as
    /// the histogram has it: the end of a step. `None` where none was timed, or it is the last step,
    /// which has no end.
    pub fn quantile(&self, part: f64) -> Option<u64> {
        #[allow(clippy::cast_precision_loss)] // for people
        let wanted = self.sampled() as f64 * part;
        let mut sum = 0_u64;
        for (step, count) in self.histogram.iter().enumerate() {
            sum = sum.saturating_add(*count);
            #[allow(clippy::cast_precision_loss)] // for people
            if sum > 0 && sum as f64 >= wanted {
                let end = QueueCounters::bound(step)?;
                return u64::try_from(end.as_micros()).ok();
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(histogram: &[u64]) -> QueueCounts {
        QueueCounts {
            histogram: histogram.to_vec(),
            ..QueueCounts::default()
        }
    }

    #[test]
    fn a_quantile_is_the_end_of_a_step() {
        let counts = counts(&[0, 0, 98, 1, 1]);
        assert_eq!(counts.quantile(0.5), Some(4));
        assert_eq!(counts.quantile(0.99), Some(8));
        assert_eq!(counts.quantile(1.0), Some(16));
        assert_eq!(QueueCounts::default().quantile(0.5), None);
        assert_eq!(self::counts(&[0, 0]).quantile(0.5), None);
    }

    #[test]
    fn what_begins_anew_has_counted_nothing() {
        let before = QueueCounts {
            requests: 10,
            kicks: Some(7),
            ..counts(&[1, 2])
        };
        let now = QueueCounts {
            requests: 15,
            kicks: Some(2),
            ..counts(&[1, 5])
        };
        let since = now.since(&before);
        assert_eq!((since.requests, since.kicks), (5, Some(0)));
        assert_eq!(since.histogram, [0, 3]);
        // A queue whose kicks were not to be read before.
        assert_eq!(now.since(&counts(&[])).kicks, Some(2));
    }
}
