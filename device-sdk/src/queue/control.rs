//! What the worker's loop does with a queue: starting, changing, watching and stopping it.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fs::File;
use std::sync::Arc;

use tracing::warn;

use super::split::SplitRing;
use super::{Phase, Queue, RingAddresses, RingError};
use crate::memory::{Memory, Window};

/// How a ring is started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingStart {
    /// Entries, a power of two.
    pub(crate) size: u16,
    /// Where its parts lie.
    pub(crate) addresses: RingAddresses,
    /// Free-running available index of the first chain to take.
    pub(crate) base: u16,
    /// `RING_EVENT_IDX` was negotiated.
    pub(crate) event_idx: bool,
    /// `RING_INDIRECT_DESC` was negotiated.
    pub(crate) indirect: bool,
}

impl Queue {
    /// Sets the ring up. It runs once it is also [enabled](Self::set_enabled).
    pub(crate) fn start(&mut self, start: RingStart) -> Result<(), RingError> {
        let ring = SplitRing::new(self.leases.memory(), start.size, start.addresses)?;
        self.used = ring.used_index();
        self.next = start.base;
        self.filled = start.base;
        self.looked = start.base;
        self.unpublished.clear();
        self.phase = Phase::Serving;
        self.kicks = true;
        self.notify.start(start.event_idx);
        self.foresight.start(start.size);
        self.ring = Some(ring);
        self.start = Some(start);
        Ok(())
    }

    /// The ring's parts have moved, or memory was mapped anew: translates them again and goes on
    /// where it was. On failure the ring stands still until it is told better addresses.
    fn relocate(&mut self) -> Result<(), RingError> {
        let Some(start) = self.start else {
            return Ok(());
        };
        self.ring = None;
        let ring = SplitRing::new(self.leases.memory(), start.size, start.addresses)?;
        let old = self.used;
        for (head, written) in self.unpublished.drain(..) {
            ring.write_used(self.used, head, written);
            self.used = self.used.wrapping_add(1);
        }
        self.ring = Some(ring);
        self.publish(old);
        Ok(())
    }

    pub(crate) fn set_memory(&mut self, memory: Arc<Memory>) -> Result<(), RingError> {
        self.window = Window::default();
        self.leases.replace(memory);
        self.relocate()
    }

    pub(crate) fn set_addresses(&mut self, addresses: RingAddresses) -> Result<(), RingError> {
        if let Some(start) = &mut self.start {
            start.addresses = addresses;
        }
        self.relocate()
    }

    pub(crate) fn set_enabled(&mut self, enabled: bool) {
        self.enabled = enabled;
    }

    /// The eventfd to interrupt the driver with; `None`: it polls.
    pub(crate) fn set_call(&mut self, call: Option<File>) {
        self.notify.set_call(call);
    }

    /// Whether the driver has made anything available since the last look: the worker is to be
    /// called. Buffers that were seen before and left alone do not count.
    #[inline]
    pub(crate) fn look(&mut self) -> bool {
        if !self.enabled || self.phase == Phase::Broken || !self.kicks {
            return false;
        }
        let Some(ring) = &self.ring else {
            return false;
        };
        let index = ring.avail_index();
        let news = index != self.looked;
        self.looked = index;
        news
    }

    /// Asks the driver for a kick at its next news, and looks once more: true when something came
    /// in the meantime and the worker must not sleep.
    pub(crate) fn arm(&mut self) -> bool {
        let Some(ring) = &self.ring else {
            return false;
        };
        if !self.enabled || self.phase == Phase::Broken || !self.kicks {
            self.notify.disarm(ring);
            return false;
        }
        self.notify.arm(ring, self.looked);
        self.look()
    }

    /// The worker is awake and looks by itself.
    pub(crate) fn disarm(&mut self) {
        if let Some(ring) = &self.ring {
            self.notify.disarm(ring);
        }
    }

    /// No chain is popped any more; those in flight may be completed or given back.
    pub(crate) fn begin_drain(&mut self) {
        if self.phase == Phase::Serving {
            self.phase = Phase::Draining;
        }
    }

    /// Ends the ring's run. Returns the available index from which whoever comes next must go on:
    /// behind the last chain completed, before those given back.
    pub(crate) fn stop(&mut self) -> u16 {
        while let Some(last) = self.returned.pop_back() {
            let last = last.chain;
            if last.position == self.next.wrapping_sub(1) {
                self.next = last.position;
            } else {
                warn!(
                    queue = self.index,
                    head = last.head,
                    "a request given back behind a completed one is lost"
                );
            }
            self.leases.release(last.generation);
        }
        if let Some(ring) = &self.ring {
            // Leave the flags as a driver expects to find them.
            self.notify.arm(ring, self.next);
        }
        self.ring = None;
        self.start = None;
        self.next
    }
}

/// For the fuzz targets: a queue that no session has set up.
#[cfg(fuzzing)]
impl Queue {
    /// An enabled queue on a ring. `base`: the free-running available index of the first chain.
    pub fn on_ring(
        memory: Arc<Memory>,
        (size, addresses): (u16, RingAddresses),
        base: u16,
        (event_idx, indirect): (bool, bool),
    ) -> Result<Self, RingError> {
        let mut queue = Self::new(0, memory);
        queue.start(RingStart {
            size,
            addresses,
            base,
            event_idx,
            indirect,
        })?;
        queue.set_enabled(true);
        Ok(queue)
    }

    /// What a worker does around its sleep: asks for kicks, looks, and wants none again.
    pub fn rest(&mut self) -> bool {
        let more = self.arm() || self.look();
        self.disarm();
        more
    }
}
