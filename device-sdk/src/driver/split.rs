//! The driver's side of a split ring (virtio 1.2, section 2.7).
//!
//! The hot path is [`SplitRing::add`], [`SplitRing::publish`], [`SplitRing::needs_kick`] and
//! [`SplitRing::pop`]: none allocates, and each touches only the cache lines it must. What the
//! device writes is checked before it is believed.

use std::sync::atomic::{Ordering, fence};

use super::descriptor::{DESC_INDIRECT, Descriptor, Segment, Used, describe};
use super::layout::{DESCRIPTOR_SIZE, RingLayout};
use super::memory::Window;
use super::ring::{IndirectTables, RingError};

/// What the driver remembers of an outstanding chain, by its head.
#[derive(Clone, Copy, Debug, Default)]
struct Outstanding {
    token: u64,
    /// Descriptors taken from the table; 0 means not outstanding.
    descriptors: u16,
}

/// The driver's half of a split ring.
#[derive(Debug)]
pub struct SplitRing {
    memory: Window,
    layout: RingLayout,
    event_idx: bool,
    indirect: Option<IndirectTables>,
    /// The free descriptors, as a list through `next`.
    free_head: u16,
    free: u16,
    next: Box<[u16]>,
    chains: Box<[Outstanding]>,
    outstanding: u16,
    /// The next slot of the available ring to fill.
    available: u16,
    /// The available index when a kick was last decided on.
    decided: u16,
    /// The next element of the used ring to read, and the used index last seen.
    used: u16,
    used_seen: u16,
}

impl SplitRing {
    /// Lays out an empty ring of `layout.size` entries in `memory`, its indices all at `base`.
    pub fn new(
        memory: Window,
        layout: RingLayout,
        event_idx: bool,
        indirect: Option<IndirectTables>,
        base: u16,
    ) -> Self {
        memory.part(0, layout.len).fill(0);
        memory.store_u16(layout.available_index(), base, Ordering::Relaxed);
        memory.store_u16(layout.used_index(), base, Ordering::Relaxed);
        memory.store_u16(layout.used_event(), base, Ordering::Relaxed);
        memory.store_u16(layout.avail_event(), base, Ordering::Relaxed);
        let size = layout.size;
        Self {
            memory,
            layout,
            event_idx,
            indirect,
            free_head: 0,
            free: size,
            next: (0..size).map(|i| i.wrapping_add(1)).collect(),
            chains: vec![Outstanding::default(); usize::from(size)].into(),
            outstanding: 0,
            available: base,
            decided: base,
            used: base,
            used_seen: base,
        }
    }

    /// The ring's memory, for tests that write it by hand.
    pub fn memory(&self) -> &Window {
        &self.memory
    }

    /// Where the parts of the ring are.
    pub fn layout(&self) -> &RingLayout {
        &self.layout
    }

    /// How many chains the device has.
    pub fn outstanding(&self) -> u16 {
        self.outstanding
    }

    /// How many descriptors are free.
    pub fn free(&self) -> u16 {
        self.free
    }

    /// The available index: the number of chains ever added, modulo 65536.
    pub fn available(&self) -> u16 {
        self.available
    }

    /// The index of the next used element to read: chains taken back so far, modulo 65536.
    pub fn used(&self) -> u16 {
        self.used
    }

    /// The used index as the device has published it.
    pub fn device_used(&self) -> u16 {
        self.memory
            .load_u16(self.layout.used_index(), Ordering::Acquire)
    }

    /// Adds a chain; the device sees it after [`SplitRing::publish`]. `token` comes back with it.
    #[inline]
    pub fn add(&mut self, chain: &[Segment], token: u64) -> Result<(), RingError> {
        if chain.is_empty() {
            return Err(RingError::Empty);
        }
        let head = self.free_head;
        let descriptors = if let Some(tables) = &self.indirect
            && chain.len() > 1
            && chain.len() <= usize::from(tables.entries)
        {
            if self.free == 0 {
                return Err(RingError::Full { needed: 1, free: 0 });
            }
            let len = chain.len() * DESCRIPTOR_SIZE;
            let start = usize::from(head) * usize::from(tables.entries) * DESCRIPTOR_SIZE;
            for (i, segment) in chain.iter().enumerate() {
                let last = i + 1 == chain.len();
                let next = if last { 0 } else { i as u16 + 1 };
                let entry = describe(segment, !last, next);
                entry.store(&tables.window, start / DESCRIPTOR_SIZE + i);
            }
            let table = Descriptor {
                addr: tables.window.addr() + start as u64,
                len: len as u32,
                flags: DESC_INDIRECT,
                next: 0,
            };
            table.store(&self.memory, usize::from(head));
            self.free_head = self.next[usize::from(head)];
            1
        } else {
            if chain.len() > usize::from(self.free) {
                let free = usize::from(self.free);
                return Err(RingError::Full {
                    needed: chain.len(),
                    free,
                });
            }
            let mut at = head;
            for (i, segment) in chain.iter().enumerate() {
                let next = self.next[usize::from(at)];
                let last = i + 1 == chain.len();
                describe(segment, !last, if last { 0 } else { next })
                    .store(&self.memory, usize::from(at));
                at = next;
            }
            self.free_head = at;
            chain.len() as u16
        };
        self.free -= descriptors;
        self.outstanding += 1;
        self.chains[usize::from(head)] = Outstanding { token, descriptors };
        self.memory.store_u16(
            self.layout.available_slot(self.available),
            head,
            Ordering::Relaxed,
        );
        self.available = self.available.wrapping_add(1);
        Ok(())
    }

    /// Shows the device every chain added so far.
    #[inline]
    pub fn publish(&mut self) {
        self.memory.store_u16(
            self.layout.available_index(),
            self.available,
            Ordering::Release,
        );
    }

    /// Whether the device asked to be kicked for what was published since the last call.
    #[inline]
    pub fn needs_kick(&mut self) -> bool {
        // The device re-reads the index after it arms; we read its wish after we store the index.
        fence(Ordering::SeqCst);
        let old = std::mem::replace(&mut self.decided, self.available);
        if old == self.available {
            return false;
        }
        if self.event_idx {
            let event = self
                .memory
                .load_u16(self.layout.avail_event(), Ordering::Relaxed);
            crosses(event, self.available, old)
        } else {
            self.memory.load_u16(self.layout.used, Ordering::Relaxed) & 1 == 0
        }
    }

    /// Takes back one completed chain, in the order the device completed them.
    #[inline]
    pub fn pop(&mut self) -> Result<Option<Used>, RingError> {
        if self.used == self.used_seen {
            let index = self.device_used();
            let ahead = index.wrapping_sub(self.used);
            if ahead == 0 {
                return Ok(None);
            }
            if ahead > self.outstanding {
                return Err(RingError::UsedIndex {
                    index,
                    ahead,
                    outstanding: self.outstanding,
                });
            }
            self.used_seen = index;
        }
        let element = self.layout.used_slot(self.used);
        let id = self.memory.load_u32(element, Ordering::Relaxed);
        let written = self.memory.load_u32(element + 4, Ordering::Relaxed);
        let head = id as usize;
        let Some(chain) = self.chains.get_mut(head).filter(|c| c.descriptors > 0) else {
            return Err(RingError::NotOutstanding(id));
        };
        let Outstanding { token, descriptors } = std::mem::take(chain);
        // The chain's descriptors are still linked through `next`: put the whole list back.
        let mut tail = head;
        for _ in 1..descriptors {
            tail = usize::from(self.next[tail]);
        }
        self.next[tail] = self.free_head;
        self.free_head = id as u16;
        self.free += descriptors;
        self.outstanding -= 1;
        self.used = self.used.wrapping_add(1);
        Ok(Some(Used { token, written }))
    }

    /// Asks to be notified of the next completion. True if one is already there: then poll again
    /// instead of sleeping.
    #[inline]
    pub fn arm(&mut self) -> bool {
        if self.event_idx {
            self.memory
                .store_u16(self.layout.used_event(), self.used, Ordering::Relaxed);
        } else {
            self.memory
                .store_u16(self.layout.available, 0, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
        self.device_used() != self.used
    }

    /// Asks not to be notified, until the next [`SplitRing::arm`]; to be renewed after some thousand
    /// completions, since an index comes round.
    #[inline]
    pub fn disarm(&mut self) {
        if self.event_idx {
            // As far away as an index can be. One just passed might still be crossed by
            // a completion under way.
            let far = self.used.wrapping_add(0x8000);
            self.memory
                .store_u16(self.layout.used_event(), far, Ordering::Relaxed);
        } else {
            self.memory
                .store_u16(self.layout.available, 1, Ordering::Relaxed);
        }
    }

    /// Asks to be notified only once `count` more chains have completed (with `EVENT_IDX`; at the
    /// next completion without). True if they have already.
    pub fn arm_after(&mut self, count: u16) -> bool {
        if !self.event_idx || count == 0 {
            return self.arm();
        }
        let event = self.used.wrapping_add(count - 1);
        self.memory
            .store_u16(self.layout.used_event(), event, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.device_used().wrapping_sub(self.used) >= count
    }
}

/// Whether moving an index from `old` to `new` passes `event` (virtio 1.2, section 2.7.10).
#[inline]
pub fn crosses(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
