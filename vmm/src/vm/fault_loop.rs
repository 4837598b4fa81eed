//! Triple faults in a row.

use std::time::{Duration, Instant};

/// A guest that faults sooner after its boot has got nowhere.
const NOWHERE: Duration = Duration::from_secs(1);
/// As many such boots in a row are enough: the next one would end in the same way.
const ENOUGH: u32 = 5;

/// Tells a guest that a reset may help from one that would fault for ever, at the cost of a whole
/// CPU. Made at the guest's boot.
pub(super) struct FaultLoop {
    last: Instant,
    in_a_row: u32,
}

impl FaultLoop {
    pub(super) fn new(boot: Instant) -> Self {
        Self {
            last: boot,
            in_a_row: 0,
        }
    }

    /// Counts a triple fault, after which the machine is reset; `true` when it should not be.
    pub(super) fn is_closed_by_fault_at(&mut self, now: Instant) -> bool {
        let quick = now.saturating_duration_since(self.last) < NOWHERE;
        self.last = now;
        self.in_a_row = if quick {
            self.in_a_row.saturating_add(1)
        } else {
            0
        };
        self.in_a_row >= ENOUGH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many faults, this far apart, the VM ends.
    fn ends_after(apart: Duration) -> Option<u32> {
        let mut now = Instant::now();
        let mut faults = FaultLoop::new(now);
        (1..=100).find(|_| {
            now += apart;
            faults.is_closed_by_fault_at(now)
        })
    }

    #[test]
    fn a_guest_that_gets_nowhere_ends() {
        assert_eq!(ends_after(Duration::from_millis(3)), Some(ENOUGH));
        assert_eq!(ends_after(NOWHERE), None, "it had time to do something");
    }

    #[test]
    fn a_boot_that_gets_somewhere_begins_the_count_anew() {
        let mut now = Instant::now();
        let mut faults = FaultLoop::new(now);
        for round in 0..20 {
            for _ in 1..ENOUGH {
                now += Duration::from_millis(1);
                assert!(!faults.is_closed_by_fault_at(now), "round {round}");
            }
            now += NOWHERE;
            assert!(!faults.is_closed_by_fault_at(now), "round {round}");
        }
    }
}
