//! Requests at a given rate.
//!
//! Each is due at a time of its own, whether or not the device keeps up, and its latency counts from
//! then: one that could not be begun in time has waited like one that was (no coordinated omission).

use std::time::Duration;

use quanta::Clock;

/// When requests are due.
#[derive(Debug)]
pub(super) struct Pace {
    clock: Clock,
    start: u64,
    nanos_each: f64,
    ticks_per_nano: f64,
    count: u64,
}

impl Pace {
    pub(super) fn new(rate: u64, clock: Clock) -> Self {
        // Ticks are counted off against the clock's own scale: it converts in one direction only.
        let ticks = 1u64 << 40;
        let ticks_per_nano = ticks as f64 / clock.delta_as_nanos(0, ticks).max(1) as f64;
        Self {
            start: clock.raw(),
            clock,
            nanos_each: 1e9 / rate as f64,
            ticks_per_nano,
            count: 0,
        }
    }

    /// When the next is due, in nanoseconds from the start.
    fn due(&self) -> u64 {
        (self.count as f64 * self.nanos_each) as u64
    }

    fn elapsed(&self) -> u64 {
        self.clock.delta_as_nanos(self.start, self.clock.raw())
    }

    /// Counts off the next request, if it is due; since when, in ticks.
    pub(super) fn next_due(&mut self) -> Option<u64> {
        let due = self.due();
        if self.elapsed() < due {
            return None;
        }
        self.count += 1;
        Some(self.start + (due as f64 * self.ticks_per_nano) as u64)
    }

    /// How long until the next is due.
    pub(super) fn left(&self) -> Duration {
        Duration::from_nanos(self.due().saturating_sub(self.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_their_time_and_not_before() {
        let (clock, mock) = Clock::mock();
        let mut pace = Pace::new(1000, clock.clone());
        let start = clock.raw();
        assert_eq!(pace.next_due(), Some(start));
        assert_eq!(pace.next_due(), None);
        assert_eq!(pace.left(), Duration::from_millis(1));
        // Nobody asked for a while: all of them were due, each since its own time.
        mock.increment(Duration::from_micros(3500));
        let late: Vec<_> = std::iter::from_fn(|| pace.next_due()).collect();
        let wanted: Vec<_> = (1..=3).map(|n| start + n * 1_000_000).collect();
        assert_eq!(late, wanted);
    }
}
