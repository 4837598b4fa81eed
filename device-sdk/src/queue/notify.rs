//! Who is told, and when: the interrupt to the driver, and the driver's kicks.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fs::File;
use std::io::Write;

use super::split::SplitRing;

/// The decisions of one queue about notifications, by `EVENT_IDX` or by the rings' flags.
#[derive(Debug, Default)]
pub(super) struct Notify {
    /// `RING_EVENT_IDX` was negotiated.
    pub(super) event_idx: bool,
    /// The eventfd that interrupts the driver, if it wants any.
    call: Option<File>,
    /// An interrupt was due, and there was nothing to signal.
    missed: bool,
    /// Nothing has been published since the start: an earlier server of this ring may have died
    /// between publishing and interrupting.
    fresh: bool,
    /// What the used ring's flags ask for, once they were written (without `EVENT_IDX`).
    kicks: Option<bool>,
}

impl Notify {
    pub(super) fn start(&mut self, event_idx: bool) {
        self.event_idx = event_idx;
        self.fresh = true;
        self.missed = false;
        // Whoever served the ring before may have left it so.
        self.kicks = None;
    }

    /// Interrupts the driver if it asked for it, after the used index went from `old` to `new`.
    pub(super) fn published(&mut self, ring: &SplitRing, old: u16, new: u16) {
        // The used index must be visible before the driver's wish is read, or both sides may
        // decide that the other one will look.
        SplitRing::full_barrier();
        let wanted = if self.event_idx {
            crossed(ring.used_event(), old, new)
        } else {
            ring.driver_wants_interrupts()
        };
        if wanted || self.fresh {
            self.fresh = false;
            self.interrupt();
        }
    }

    /// Interrupts go there from now on, and at once one that was due while they went nowhere: a
    /// frontend may name the eventfd after the ring has started.
    pub(super) fn set_call(&mut self, call: Option<File>) {
        self.call = call;
        if std::mem::take(&mut self.missed) {
            self.interrupt();
        }
    }

    /// Signals the call eventfd. A full counter (EAGAIN) is as good as one more.
    fn interrupt(&mut self) {
        match &mut self.call {
            Some(call) => drop(call.write(&1u64.to_ne_bytes())),
            None => self.missed = true,
        }
    }

    /// The worker is about to sleep: ask for a kick behind `seen`. The caller must look at the
    /// ring once more afterwards.
    pub(super) fn arm(&mut self, ring: &SplitRing, seen: u16) {
        if self.event_idx {
            ring.set_avail_event(seen);
        } else {
            self.ask(ring, true);
        }
        SplitRing::full_barrier();
    }

    /// The worker is awake, or wants no kicks. With `EVENT_IDX` there is nothing to do: the event
    /// index stays behind and the driver does not pass it again.
    pub(super) fn disarm(&mut self, ring: &SplitRing) {
        if !self.event_idx {
            self.ask(ring, false);
        }
    }

    fn ask(&mut self, ring: &SplitRing, kicks: bool) {
        if self.kicks != Some(kicks) {
            ring.want_kicks(kicks);
            self.kicks = Some(kicks);
        }
    }
}

/// Whether an index that went from `old` to `new` has passed `event` (virtio 1.2, 2.7.10.2).
fn crossed(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use super::crossed;

    #[test]
    fn an_event_index_is_crossed_once() {
        // One entry published at 5: the driver waits for index 5 to be passed.
        assert!(crossed(5, 5, 6));
        assert!(!crossed(6, 5, 6));
        assert!(!crossed(4, 5, 6));
        // A batch over the wrap-around.
        assert!(crossed(0xffff, 0xfffe, 2));
        assert!(crossed(1, 0xfffe, 2));
        assert!(!crossed(2, 0xfffe, 2));
        assert!(!crossed(0, 7, 7));
    }
}
