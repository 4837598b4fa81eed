//! How long a worker polls before it sleeps.
//!
//! Polling pays only when the next request comes within the time that a sleep and a wake-up
//! cost. So the time is learned: sleeps that turn out short make it longer, polling in vain or a
//! long sleep makes it shorter, down to nothing. With one CPU it would only keep the guest from
//! making the request.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::thread;
use std::time::Duration;

/// Polling starts here...
const FIRST: Duration = Duration::from_micros(8);
/// ...and grows to this, about what a sleep costs.
const LONGEST: Duration = Duration::from_micros(32);

/// The learned time of one worker.
#[derive(Debug)]
pub(super) struct Spin {
    allowed: bool,
    budget: Duration,
}

impl Spin {
    pub(super) fn new() -> Self {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        Self::on(cpus)
    }

    fn on(cpus: usize) -> Self {
        Self {
            allowed: cpus > 1,
            budget: Duration::ZERO,
        }
    }

    /// How long to poll now.
    pub(super) fn budget(&self) -> Duration {
        self.budget
    }

    /// The whole budget was spent and nothing came.
    pub(super) fn in_vain(&mut self) {
        self.budget = Duration::ZERO;
    }

    /// A sleep ended after this time, for work and not for control.
    pub(super) fn slept(&mut self, time: Duration) {
        if !self.allowed || time > LONGEST {
            self.budget = Duration::ZERO;
        } else {
            self.budget = self.budget.saturating_mul(2).clamp(FIRST, LONGEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_sleeps_teach_to_poll() {
        let mut spin = Spin::on(2);
        assert_eq!(spin.budget(), Duration::ZERO);
        spin.slept(Duration::from_micros(5));
        assert_eq!(spin.budget(), FIRST);
        for _ in 0..9 {
            spin.slept(Duration::from_micros(5));
        }
        assert_eq!(spin.budget(), LONGEST);
        spin.in_vain();
        assert_eq!(spin.budget(), Duration::ZERO);
        spin.slept(Duration::ZERO);
        spin.slept(Duration::from_secs(1));
        assert_eq!(spin.budget(), Duration::ZERO);
    }

    #[test]
    fn one_cpu_is_never_spun_on() {
        let mut spin = Spin::on(1);
        spin.slept(Duration::ZERO);
        assert_eq!(spin.budget(), Duration::ZERO);
    }
}
