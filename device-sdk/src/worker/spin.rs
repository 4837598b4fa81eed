//! Whether a worker polls before it sleeps.
//!
//! Polling pays when the next request comes within about the time that a sleep and a wake-up cost. That is
//! learned: after a short sleep it is tried, and each time it was in vain it is tried more rarely. So a
//! worker with no CPU of its own, whose polling only keeps the guest from making the request, hardly
//! ever does, and one on a CPU apart from the guest's polls all the time that requests come.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::time::Duration;

/// How long to poll: as long as a wake-up of the guest takes on a slow machine.
pub(super) const BUDGET: Duration = Duration::from_micros(50);
/// A sleep no longer than this was not worth it: there and back took most of it.
pub(super) const SHORT: Duration = Duration::from_micros(120);
/// In vain so often in a row, it is tried after every 63rd short sleep.
const MOST_MISSES: u32 = 6;

/// What one worker has learned.
#[derive(Debug, Default)]
pub(super) struct Spin {
    /// Poll before the next sleep.
    poll: bool,
    /// How often in a row it was in vain.
    misses: u32,
    /// Short sleeps to let pass before the next try.
    wait: u32,
}

impl Spin {
    /// How long to poll now.
    pub(super) fn budget(&self) -> Duration {
        if self.poll { BUDGET } else { Duration::ZERO }
    }

    /// Something came while polling.
    pub(super) fn paid(&mut self) {
        self.misses = 0;
    }

    /// The whole budget was spent and nothing came.
    pub(super) fn in_vain(&mut self) {
        self.poll = false;
        self.wait = (1u32 << self.misses).saturating_sub(1);
        self.misses = self.misses.saturating_add(1).min(MOST_MISSES);
    }

    /// A sleep ended after this time, for work and not for control.
    pub(super) fn slept(&mut self, time: Duration) {
        if time > SHORT {
            self.poll = false;
        } else if self.wait > 0 {
            self.wait = self.wait.saturating_sub(1);
        } else {
            self.poll = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_sleeps_teach_to_poll_and_long_ones_not_to() {
        let mut spin = Spin::default();
        assert_eq!(spin.budget(), Duration::ZERO);
        spin.slept(SHORT);
        assert_eq!(spin.budget(), BUDGET);
        spin.paid();
        assert_eq!(spin.budget(), BUDGET);
        spin.slept(Duration::from_secs(1));
        assert_eq!(spin.budget(), Duration::ZERO);
    }

    #[test]
    fn what_is_in_vain_is_tried_more_and_more_rarely() {
        let mut spin = Spin::default();
        let mut polls = 0;
        for _ in 0..1000 {
            spin.slept(Duration::ZERO);
            if !spin.budget().is_zero() {
                polls += 1;
                spin.in_vain();
            }
        }
        // The first seven within 64 sleeps, and then one in 64.
        assert!((15..25).contains(&polls), "{polls}");
        spin.slept(Duration::ZERO);
        while spin.budget().is_zero() {
            spin.slept(Duration::ZERO);
        }
        spin.paid();
        spin.in_vain();
        spin.slept(Duration::ZERO);
        assert_eq!(
            spin.budget(),
            BUDGET,
            "once it has paid, it is tried again at once"
        );
    }
}
