//! Who is told, and when: the interrupt to the driver, and the driver's kicks.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fs::File;
use std::io::Write;

use super::ring::{Ring, Wish};

/// The decisions of one queue about notifications, by `EVENT_IDX` or by flags.
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
    /// What flags the ring was told, if that is known.
    told: Option<Wish>,
    /// The event index of a split ring, while the driver may not have passed it.
    armed: Option<u16>,
}

impl Notify {
    pub(super) fn start(&mut self, event_idx: bool) {
        self.event_idx = event_idx;
        self.fresh = true;
        self.missed = false;
        // Whoever served the ring before may have left it so.
        self.told = None;
        self.armed = None;
    }

    /// Interrupts the driver if it asked for it, after the used position went from `old` to `new`.
    /// Whether it was.
    pub(super) fn published(&mut self, ring: &Ring, old: u16, new: u16) -> bool {
        // What was used must be visible before the driver's wish is read, or both sides may
        // decide that the other one will look.
        Ring::full_barrier();
        let wanted = match ring.driver_wish(self.event_idx) {
            Wish::Always => true,
            Wish::Never => false,
            Wish::At(event) => ring.count().passed(event, old, new),
        };
        let due = wanted || self.fresh;
        if due {
            self.fresh = false;
            self.interrupt();
        }
        due
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
    pub(super) fn arm(&mut self, ring: &Ring, seen: u16) {
        if self.event_idx {
            ring.tell(Wish::At(seen));
            self.told = None;
            self.armed = Some(seen);
        } else {
            self.tell(ring, Wish::Always);
        }
        Ring::full_barrier();
    }

    /// The worker is awake, or wants no kicks; it has seen the ring up to `seen`. On a split ring with
    /// `EVENT_IDX` the driver passes an event index that is behind no more; one that was not passed,
    /// because something else than a kick has woken the worker, is put there.
    pub(super) fn disarm(&mut self, ring: &Ring, seen: u16) {
        if !self.event_idx || matches!(ring, Ring::Packed(_)) {
            self.tell(ring, Wish::Never);
        } else if self.armed.take() == Some(seen) {
            ring.tell(Wish::At(seen.wrapping_sub(1)));
        }
    }

    fn tell(&mut self, ring: &Ring, wish: Wish) {
        if self.told != Some(wish) {
            ring.tell(wish);
            self.told = Some(wish);
        }
    }
}
