//! Whom a worker waits for, and how long it polls for them.
//!
//! A driver that polls replies to answers within microseconds; one that sleeps, in the time of a wake-up; a
//! disk ends a request when it does. What one of them has taught says nothing about the others.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::mem;
use std::time::{Duration, Instant};

use super::service::Service;
use super::spin::Spin;
use crate::device::{Progress, Ready};

/// Whose turn it is when a worker waits; both may be.
pub(super) struct Turn {
    /// The driver has got answers, or nothing is in flight: more requests may be on their way.
    driver: bool,
    /// Requests are in flight: since when they have been waited for.
    device: Option<Instant>,
}

/// What a worker knows about how long it waits.
#[derive(Debug, Default)]
pub(super) struct Learned {
    driver: Spin,
    device: Service,
    /// Chains held in the last wait.
    held: usize,
}

impl Learned {
    /// Whose turn it is in the wait that begins now, in which so many chains are held.
    pub(super) fn turn(&mut self, progress: Progress, held: usize) -> Turn {
        let fewer = held < mem::replace(&mut self.held, held);
        let waiting = progress == Progress::Waiting;
        Turn {
            driver: fewer || !waiting,
            device: waiting.then(Instant::now),
        }
    }

    /// How long to poll.
    pub(super) fn budget(&mut self, turn: &Turn) -> Duration {
        let driver = if turn.driver {
            self.driver.budget()
        } else {
            Duration::ZERO
        };
        match turn.device {
            Some(_) => self.device.budget().max(driver),
            None => driver,
        }
    }

    /// The driver was heard of while polling.
    pub(super) fn heard(&mut self, turn: &Turn) {
        if turn.driver {
            self.driver.paid();
        } else if let Some(since) = turn.device {
            self.device.polled(since.elapsed());
        }
    }

    /// The device was heard of while polling.
    pub(super) fn ended(&mut self, turn: &Turn) {
        if let Some(since) = turn.device {
            self.device.polled(since.elapsed());
            if turn.driver {
                self.driver.in_vain();
            }
        } else {
            self.driver.paid();
        }
    }

    /// Polling was in vain.
    pub(super) fn in_vain(&mut self, turn: &Turn) {
        if turn.driver {
            self.driver.in_vain();
        }
        if turn.device.is_some() {
            self.device.in_vain();
        }
    }

    /// A sleep has ended after `time`, not by the session; for `ready`.
    pub(super) fn slept(&mut self, turn: &Turn, time: Duration, ready: Ready) {
        let kicked = ready.queues != 0;
        match turn.device {
            Some(_) if turn.driver && kicked => self.driver.slept(time),
            Some(since) => self.device.slept(since.elapsed()),
            None if ready.is_empty() => {}
            None => self.driver.slept(time),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_micros(30);

    fn whose(learned: &mut Learned, progress: Progress, held: usize) -> (bool, bool) {
        let turn = learned.turn(progress, held);
        (turn.driver, turn.device.is_some())
    }

    #[test]
    fn a_driver_that_was_answered_has_its_turn_and_one_that_has_replied_has_had_it() {
        let mut learned = Learned::default();
        assert_eq!(whose(&mut learned, Progress::Idle, 0), (true, false));
        // One by one.
        for _ in 0..3 {
            assert_eq!(whose(&mut learned, Progress::Waiting, 1), (false, true));
        }
        assert_eq!(whose(&mut learned, Progress::Idle, 0), (true, false));
        // Many, of which some end.
        assert_eq!(whose(&mut learned, Progress::Waiting, 32), (false, true));
        assert_eq!(whose(&mut learned, Progress::Waiting, 20), (true, true));
        assert_eq!(whose(&mut learned, Progress::Waiting, 32), (false, true));
        // A device that keeps buffers of the driver's, and has nothing to do.
        assert_eq!(whose(&mut learned, Progress::Idle, 64), (true, false));
    }

    #[test]
    fn a_slow_disk_does_not_keep_a_quick_driver_from_being_polled_for() {
        let mut learned = Learned::default();
        let idle = |learned: &mut Learned| learned.turn(Progress::Idle, 0);
        let turn = idle(&mut learned);
        let mut kick = Ready::default();
        kick.set_queue(0);
        learned.slept(&turn, SHORT, kick);
        for _ in 0..100 {
            let turn = learned.turn(Progress::Waiting, 1);
            if !learned.budget(&turn).is_zero() {
                learned.in_vain(&turn);
            }
            learned.slept(&turn, Duration::from_secs(1), Ready::default());
            let turn = idle(&mut learned);
            assert!(!learned.budget(&turn).is_zero());
            learned.heard(&turn);
        }
    }

    #[test]
    fn a_driver_that_lets_the_disk_end_first_is_polled_for_more_and_more_rarely() {
        let mut learned = Learned::default();
        let mut kick = Ready::default();
        kick.set_queue(0);
        let mut polls = 0;
        for _ in 0..100 {
            learned.turn(Progress::Waiting, 32);
            let turn = learned.turn(Progress::Waiting, 31);
            if !learned.budget(&turn).is_zero() {
                polls += 1;
                learned.in_vain(&turn);
            }
            learned.slept(&turn, SHORT, kick);
        }
        assert!((5..20).contains(&polls), "{polls}");
    }
}
