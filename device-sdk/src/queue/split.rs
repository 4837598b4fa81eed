//! The split virtqueue in memory (virtio 1.2, section 2.7): where its parts lie, and volatile
//! access to each field. Nothing here judges what the guest wrote.
#![allow(unsafe_code)] // The rings lie in guest memory and are reached through raw pointers.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::atomic::{AtomicU16, Ordering};

use super::descriptor::{Format, Table};
use super::ring::{MAX_SIZE, RingAddresses, RingError, Wish, part};
use crate::memory::Memory;

/// Available ring flag: the driver wants no interrupts (section 2.7.6).
const AVAIL_NO_INTERRUPT: u16 = 1;
/// Used ring flag: the device wants no kicks (section 2.7.8).
const USED_NO_NOTIFY: u16 = 1;

/// A ring that is set up: its parts as host pointers, translated once.
///
/// The pointers are good for as long as the [`Memory`] they were translated in is kept.
#[derive(Debug)]
pub(super) struct SplitRing {
    size: u16,
    table: Table,
    avail: *mut u16,
    used: *mut u16,
}

// SAFETY: the pointers lead to memory of the process, shared with the guest in any case; every
// access is volatile or atomic.
unsafe impl Send for SplitRing {}

impl SplitRing {
    /// Translates the ring's addresses. `size` is a power of two of at most [`MAX_SIZE`].
    pub(super) fn new(
        memory: &Memory,
        size: u16,
        addresses: RingAddresses,
    ) -> Result<Self, RingError> {
        if !size.is_power_of_two() || size > MAX_SIZE {
            return Err(RingError::Size(size));
        }
        // Each ring is two u16, the entries, and the event index.
        let entries = u64::from(size);
        let desc_len = entries.wrapping_mul(16);
        let avail_len = entries.wrapping_mul(2).wrapping_add(6);
        let used_len = entries.wrapping_mul(8).wrapping_add(6);
        let table = part(
            memory,
            "descriptor table",
            addresses.descriptors,
            desc_len,
            16,
        )?;
        let avail = part(memory, "available ring", addresses.available, avail_len, 2)?;
        let used = part(memory, "used ring", addresses.used, used_len, 4)?;
        Ok(Self {
            size,
            // SAFETY: translated just now for this many entries.
            table: unsafe { Table::new(table, u32::from(size), Format::Split) },
            avail: avail.cast(),
            used: used.cast(),
        })
    }

    pub(super) fn size(&self) -> u16 {
        self.size
    }

    pub(super) fn table(&self) -> Table {
        self.table
    }

    /// The n-th u16 of the available ring; `n` is at most `size + 2`.
    #[inline]
    fn avail(&self, n: usize) -> &AtomicU16 {
        // SAFETY: `new` translated size + 3 u16, 2-byte aligned; an atomic is the one kind of
        // reference that memory written by others allows.
        unsafe { AtomicU16::from_ptr(self.avail.wrapping_add(n)) }
    }

    /// The n-th u16 of the used ring; `n` is at most `4 * size + 2`.
    #[inline]
    fn used(&self, n: usize) -> &AtomicU16 {
        // SAFETY: as in `avail`, for 4 * size + 3 u16.
        unsafe { AtomicU16::from_ptr(self.used.wrapping_add(n)) }
    }

    fn slot(&self, position: u16) -> usize {
        usize::from(position & self.size.wrapping_sub(1))
    }

    /// How far the driver has filled the available ring: a free-running index. What it published
    /// before is visible after.
    #[inline]
    pub(super) fn avail_index(&self) -> u16 {
        u16::from_le(self.avail(1).load(Ordering::Acquire))
    }

    /// The head descriptor's index at a free-running position. Any value.
    #[inline]
    pub(super) fn avail_head(&self, position: u16) -> u16 {
        let n = self.slot(position).wrapping_add(2);
        u16::from_le(self.avail(n).load(Ordering::Relaxed))
    }

    /// When the driver wants to be interrupted.
    pub(super) fn driver_wish(&self, event_idx: bool) -> Wish {
        if event_idx {
            let n = usize::from(self.size).wrapping_add(2);
            return Wish::At(u16::from_le(self.avail(n).load(Ordering::Relaxed)));
        }
        let flags = u16::from_le(self.avail(0).load(Ordering::Relaxed));
        if flags & AVAIL_NO_INTERRUPT == 0 {
            Wish::Always
        } else {
            Wish::Never
        }
    }

    pub(super) fn used_index(&self) -> u16 {
        u16::from_le(self.used(1).load(Ordering::Acquire))
    }

    /// Writes one entry; it is not visible before [`publish`](Self::publish).
    #[inline]
    #[allow(clippy::cast_ptr_alignment)] // The used ring is aligned to 4 bytes (checked by `new`).
    pub(super) fn write_used(&self, position: u16, head: u16, written: u32) {
        let at = self
            .used
            .wrapping_add(self.slot(position).wrapping_mul(4).wrapping_add(2));
        let entry = [u32::from(head).to_le(), written.to_le()];
        // SAFETY: the entry lies inside the used ring (the slot is below the size), which is
        // 4-byte aligned and so are its entries.
        unsafe { at.cast::<[u32; 2]>().write_volatile(entry) };
    }

    /// Makes all entries before `index` visible to the driver.
    #[inline]
    pub(super) fn publish(&self, index: u16) {
        self.used(1).store(index.to_le(), Ordering::Release);
    }

    /// Says when the device wants to be kicked.
    pub(super) fn tell(&self, wish: Wish) {
        match wish {
            Wish::Always => self.used(0).store(0, Ordering::Relaxed),
            Wish::Never => self
                .used(0)
                .store(USED_NO_NOTIFY.to_le(), Ordering::Relaxed),
            Wish::At(index) => {
                let n = usize::from(self.size).wrapping_mul(4).wrapping_add(2);
                self.used(n).store(index.to_le(), Ordering::Relaxed);
            }
        }
    }
}
