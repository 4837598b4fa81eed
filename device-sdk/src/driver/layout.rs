//! Where things lie in the driver's guest memory.

use super::memory::{GuestMemory, MemoryError, Window};

/// Bytes in a descriptor (virtio 1.2, section 2.7.5).
pub const DESCRIPTOR_SIZE: usize = 16;
/// Bytes in a used ring element (virtio 1.2, section 2.7.8).
pub const USED_ELEMENT_SIZE: usize = 8;

/// The three parts of a split ring, as offsets from its start (virtio 1.2, section 2.7).
///
/// The available and used rings each end with their event field, whether it is negotiated or not.
/// Each part begins on a cache line of its own, so the two sides share lines no more than they must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingLayout {
    /// Entries in the ring: a power of two up to 32768.
    pub size: u16,
    /// The descriptor table, 16 bytes an entry.
    pub descriptors: usize,
    /// The available ring: flags, index, `size` heads, `used_event`.
    pub available: usize,
    /// The used ring: flags, index, `size` elements, `avail_event`.
    pub used: usize,
    /// Bytes in all.
    pub len: usize,
}

/// The alignment of every part, in bytes: at least the 16 the descriptor table must have.
pub const RING_ALIGN: usize = 64;

impl RingLayout {
    /// The layout of a ring of `size` entries.
    pub fn new(size: u16) -> Self {
        let entries = usize::from(size);
        let descriptors = 0;
        let available = (entries * DESCRIPTOR_SIZE).next_multiple_of(RING_ALIGN);
        let used = (available + 6 + 2 * entries).next_multiple_of(RING_ALIGN);
        let len = (used + 6 + USED_ELEMENT_SIZE * entries).next_multiple_of(RING_ALIGN);
        Self {
            size,
            descriptors,
            available,
            used,
            len,
        }
    }

    /// The layout of a packed ring of `size` entries: its descriptors, and the driver's and the device's
    /// event suppression in the places of the available and the used ring.
    pub fn packed(size: u16) -> Self {
        let available = (usize::from(size) * DESCRIPTOR_SIZE).next_multiple_of(RING_ALIGN);
        Self {
            size,
            descriptors: 0,
            available,
            used: available + RING_ALIGN,
            len: available + 2 * RING_ALIGN,
        }
    }

    /// The offset of the index in the available ring, from the ring's start.
    pub fn available_index(&self) -> usize {
        self.available + 2
    }

    /// The offset of slot `index` (taken modulo the size) of the available ring.
    pub fn available_slot(&self, index: u16) -> usize {
        self.available + 4 + 2 * self.slot(index)
    }

    /// The offset of `used_event`, by which the driver says when to notify it.
    pub fn used_event(&self) -> usize {
        self.available + 4 + 2 * usize::from(self.size)
    }

    /// The offset of the index in the used ring.
    pub fn used_index(&self) -> usize {
        self.used + 2
    }

    /// The offset of element `index` (taken modulo the size) of the used ring.
    pub fn used_slot(&self, index: u16) -> usize {
        self.used + 4 + USED_ELEMENT_SIZE * self.slot(index)
    }

    /// The offset of `avail_event`, by which the device says when to notify it.
    pub fn avail_event(&self) -> usize {
        self.used + 4 + USED_ELEMENT_SIZE * usize::from(self.size)
    }

    fn slot(&self, index: u16) -> usize {
        usize::from(index) & usize::from(self.size).wrapping_sub(1)
    }
}

/// Hands out guest memory from the bottom of each region up, and never takes it back.
#[derive(Debug, Default)]
pub struct Arena {
    next: Vec<(u64, u64)>,
}

impl Arena {
    /// An arena over every region of `memory`.
    pub fn new(memory: &GuestMemory) -> Self {
        Self {
            next: memory
                .layout()
                .into_iter()
                .map(|(addr, size)| (addr, addr + size))
                .collect(),
        }
    }

    /// Lets the arena also use the region `addr`, of `size` bytes.
    pub fn add(&mut self, addr: u64, size: u64) {
        self.next.push((addr, addr + size));
    }

    /// Stops using what is no longer part of `memory`.
    pub fn remove(&mut self, memory: &GuestMemory) {
        let layout = memory.layout();
        self.next
            .retain(|&(_, end)| layout.iter().any(|&(addr, size)| addr + size == end));
    }

    /// `len` zeroed or previously untouched bytes on a boundary of `align` (a power of two) bytes,
    /// from the first region that has them.
    pub fn take(
        &mut self,
        memory: &GuestMemory,
        len: u64,
        align: u64,
    ) -> Result<Window, MemoryError> {
        for (next, end) in &mut self.next {
            let Some(start) = next.checked_next_multiple_of(align) else {
                continue;
            };
            match start.checked_add(len) {
                Some(after) if after <= *end => {
                    *next = after;
                    return memory.window(start, len);
                }
                _ => {}
            }
        }
        Err(MemoryError::Exhausted { len })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ring_parts_are_aligned_and_do_not_overlap(order in 0u32..=15) {
            let size = 1u16 << order;
            let layout = RingLayout::new(size);
            prop_assert_eq!(layout.descriptors % 16, 0);
            prop_assert_eq!(layout.available % 2, 0);
            prop_assert_eq!(layout.used % 4, 0);
            prop_assert!(layout.descriptors + 16 * usize::from(size) <= layout.available);
            prop_assert!(layout.used_event() + 2 <= layout.used);
            prop_assert!(layout.avail_event() + 2 <= layout.len);
            prop_assert_eq!(layout.available_slot(size - 1) + 2, layout.used_event());
            prop_assert_eq!(layout.used_slot(size - 1) + 8, layout.avail_event());
        }

        #[test]
        fn slots_wrap_with_the_index(order in 0u32..=15, index: u16) {
            let size = 1u16 << order;
            let layout = RingLayout::new(size);
            prop_assert_eq!(layout.available_slot(index), layout.available_slot(index & (size - 1)));
            prop_assert_eq!(layout.used_slot(index), layout.used_slot(index & (size - 1)));
            prop_assert!(layout.used_slot(index) + 8 <= layout.avail_event());
        }

        #[test]
        fn what_the_arena_gives_is_aligned_and_disjoint(
            takes in prop::collection::vec((1u64..0x600, 0u32..=12), 1..40),
        ) {
            let memory = GuestMemory::new(&[(0x1000, 0x4000), (0x8000, 0x4000)]).unwrap();
            let mut arena = Arena::new(&memory);
            let mut given: Vec<(u64, u64)> = Vec::new();
            for (len, order) in takes {
                let Ok(window) = arena.take(&memory, len, 1 << order) else { continue };
                let (start, end) = (window.addr(), window.addr() + len);
                prop_assert_eq!(start % (1 << order), 0);
                prop_assert!(given.iter().all(|&(s, e)| end <= s || e <= start));
                given.push((start, end));
            }
        }
    }
}
