//! Whether a worker polls while its device works.
//!
//! What a disk takes is not to be hurried: polling for it saves no more than the way into a sleep and out of
//! it. So both are timed, the end of a request while polling and by sleeping, and polling is for devices of
//! which it saves half the time that it burns. The way not taken is tried now and then, so that
//! the worker notices when the device, or the machine, has become another.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::time::Duration;

use super::spin::{BUDGET, SHORT};

/// One wait in so many goes the other way.
const PROBE: u32 = 64;

/// What one worker has learned.
#[derive(Debug, Default)]
pub(super) struct Service {
    polled: Typical,
    slept: Typical,
    waits: u32,
}

impl Service {
    /// How long to poll in the wait that begins now.
    pub(super) fn budget(&mut self) -> Duration {
        self.waits = self.waits.wrapping_add(1);
        let probe = self.waits.is_multiple_of(PROBE);
        if self.pays() == probe {
            Duration::ZERO
        } else {
            BUDGET
        }
    }

    fn pays(&self) -> bool {
        match (self.polled.0, self.slept.0) {
            // To be tried, unless a sleep alone is longer than the budget by far.
            (None, Some(slept)) => u128::from(slept) <= SHORT.as_nanos(),
            (Some(polled), Some(slept)) => {
                u128::from(polled) <= BUDGET.as_nanos()
                    && slept.saturating_sub(polled) >= polled / 2
            }
            (_, None) => false,
        }
    }

    /// A wait has ended by polling after this time.
    pub(super) fn polled(&mut self, time: Duration) {
        self.polled.note(time);
    }

    /// The whole budget was spent and nothing came: it takes longer, nobody knows how long.
    pub(super) fn in_vain(&mut self) {
        self.polled.note(SHORT);
    }

    /// A wait has ended by a sleep after this time, with what was polled before it.
    pub(super) fn slept(&mut self, time: Duration) {
        self.slept.note(time);
    }
}

/// A running median in nanoseconds: a step up for each time above it, a step down for each below, so that one
/// hiccup of a disk is one step.
#[derive(Debug, Default)]
struct Typical(Option<u64>);

impl Typical {
    fn note(&mut self, time: Duration) {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.0 = Some(match self.0 {
            None => time,
            Some(now) if time > now => now.saturating_add((now / 32).max(32)),
            Some(now) => now.saturating_sub(now / 32),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(time: u64) -> Duration {
        Duration::from_micros(time)
    }

    /// How many of 1000 waits poll, once it is known how long they take either way.
    fn polls(service: &mut Service, polled: Duration, slept: Duration) -> usize {
        let one = |service: &mut Service| {
            let budget = service.budget();
            if budget.is_zero() {
                service.slept(slept);
            } else if polled <= budget {
                service.polled(polled);
            } else {
                service.in_vain();
                service.slept(slept.saturating_add(budget));
            }
            !budget.is_zero()
        };
        for _ in 0..10_000 {
            one(service);
        }
        (0..1000).filter(|_| one(service)).count()
    }

    #[test]
    fn polling_is_for_what_a_sleep_would_make_much_slower() {
        let mut service = Service::default();
        assert!(service.budget().is_zero(), "nothing is known yet");
        // Most of the time is the waking up.
        assert!(polls(&mut service, us(10), us(40)) > 900);
        // Most of the time is the disk, which is seen when it changes, both ways.
        assert!(polls(&mut service, us(35), us(43)) < 100);
        assert!(polls(&mut service, us(5), us(12)) > 900);
        assert!(polls(&mut service, us(90), us(100)) < 100);
        assert!(polls(&mut service, us(10), us(40)) > 900);
    }

    #[test]
    fn a_hiccup_teaches_nothing() {
        let mut service = Service::default();
        assert!(polls(&mut service, us(30), us(36)) < 100);
        for _ in 0..3 {
            service.slept(Duration::from_secs(1));
        }
        assert!(!service.pays());
    }

    #[test]
    fn what_takes_long_is_hardly_ever_polled_for() {
        let mut service = Service::default();
        service.slept(us(500));
        let polled = (0..640).filter(|_| {
            let budget = service.budget();
            if !budget.is_zero() {
                service.in_vain();
            }
            service.slept(us(500));
            !budget.is_zero()
        });
        assert_eq!(polled.count(), 10);
    }
}
