//! What the worker's loop does with a queue: starting, changing, watching and stopping it.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fs::File;
use std::sync::Arc;

use tracing::warn;

use super::ring::{Count, Ring, WRAP};
use super::{Phase, Queue, RingAddresses, RingError};
use crate::counters::Counters;
use crate::memory::{Memory, Window};

/// How a ring is started.
#[derive(Clone, Copy, Debug)]
pub struct RingStart {
    /// Entries: at most 32768, and of a split ring a power of two.
    pub size: u16,
    /// Where its parts lie.
    pub addresses: RingAddresses,
    /// Where to go on, as vhost-user's `SET_VRING_BASE` has it. Of a split ring the available index of the
    /// first chain to take, free-running. Of a packed one the available position in the low half and the
    /// used one in the high half, each a slot with the wrap counter in bit 15; with zeros there, both are
    /// the same.
    pub base: u32,
    /// `RING_PACKED` was negotiated.
    pub packed: bool,
    /// `RING_EVENT_IDX` was negotiated.
    pub event_idx: bool,
    /// `RING_INDIRECT_DESC` was negotiated.
    pub indirect: bool,
}

impl RingStart {
    fn count(&self) -> Count {
        if self.packed {
            Count::Laps { size: self.size }
        } else {
            Count::Free
        }
    }
}

impl Queue {
    /// Sets the ring up. It runs once it is also [enabled](Self::set_enabled).
    pub(crate) fn start(&mut self, start: RingStart) -> Result<(), RingError> {
        let RingStart { packed, size, .. } = start;
        let ring = Ring::new(self.leases.memory(), packed, size, start.addresses)?;
        let next = start.base as u16;
        self.used = match &ring {
            Ring::Split(ring) => ring.used_index(),
            Ring::Packed(ring) => {
                // Some frontends (those of DPDK and SPDK) name the available position alone.
                let used = match (start.base >> 16) as u16 {
                    0 => next,
                    used => used,
                };
                let inside = |position: u16| position & !WRAP < size;
                if !inside(used) || !inside(next) || ring.count().distance(used, next) > size {
                    return Err(RingError::Base(start.base));
                }
                used
            }
        };
        self.next = next;
        self.filled = next;
        self.looked = next;
        self.unpublished.clear();
        self.phase = Phase::Serving;
        self.kicks = true;
        self.notify.start(start.event_idx);
        self.foresight.start(start.size);
        if let Some(tally) = &mut self.tally {
            tally.restart();
        }
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
        let RingStart { packed, size, .. } = start;
        let mut ring = Ring::new(self.leases.memory(), packed, size, start.addresses)?;
        let old = self.used;
        for answer in self.unpublished.drain(..) {
            ring.write_used(self.used, answer.id, answer.written);
            self.used = ring.count().advance(self.used, answer.span);
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
        let position = ring.available(self.used, self.looked);
        let news = position != self.looked;
        self.looked = position;
        news
    }

    /// Asks the driver for a kick at its next news, and looks once more: true when something came
    /// in the meantime and the worker must not sleep.
    pub(crate) fn arm(&mut self) -> bool {
        let Some(ring) = &self.ring else {
            return false;
        };
        if !self.enabled || self.phase == Phase::Broken || !self.kicks {
            self.notify.disarm(ring, self.looked);
            return false;
        }
        self.notify.arm(ring, self.looked);
        self.look()
    }

    /// The worker is awake and looks by itself.
    pub(crate) fn disarm(&mut self) {
        if let Some(ring) = &self.ring {
            self.notify.disarm(ring, self.looked);
        }
    }

    /// No chain is popped any more; those in flight may be completed or given back.
    pub(crate) fn begin_drain(&mut self) {
        if self.phase == Phase::Serving {
            self.phase = Phase::Draining;
        }
    }

    /// How positions are counted.
    pub(super) fn count(&self) -> Count {
        self.start.map_or(Count::Free, |start| start.count())
    }

    /// Ends the ring's run. Returns the base from which whoever comes next must go on: behind the last
    /// chain completed, before those given back.
    pub(crate) fn stop(&mut self) -> u32 {
        let count = self.count();
        while let Some(last) = self.returned.pop_back() {
            let last = last.chain;
            if count.advance(last.position, last.span) == self.next {
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
        match count {
            Count::Free => u32::from(self.next),
            Count::Laps { .. } => u32::from(self.next) | u32::from(self.used) << 16,
        }
    }
}

/// For fuzzing and measuring the engine alone: a queue that no session has set up.
impl Queue {
    /// An enabled queue on a ring.
    pub fn on_ring(memory: Arc<Memory>, start: RingStart) -> Result<Self, RingError> {
        let mut queue = Self::new(0, memory);
        queue.start(start)?;
        queue.set_enabled(true);
        Ok(queue)
    }

    /// The same, counted on a page.
    #[must_use]
    pub fn counted_on(self, page: &Counters) -> Self {
        let row = page.row(self.index());
        self.counted(row)
    }

    /// What a worker does around its sleep: asks for kicks, looks, and wants none again.
    pub fn rest(&mut self) -> bool {
        let more = self.arm() || self.look();
        self.disarm();
        more
    }
}
