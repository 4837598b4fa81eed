//! The split virtqueue in memory (virtio 1.2, section 2.7): where its parts lie, and volatile
//! access to each field. Nothing here judges what the guest wrote.
#![allow(unsafe_code)] // The rings lie in guest memory and are reached through raw pointers.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::atomic::{AtomicU16, Ordering, fence};

use crate::memory::Memory;

/// Largest ring the specification allows.
pub const MAX_SIZE: u16 = 32768;

/// The chain goes on at `next` (section 2.7.5).
pub(super) const DESC_NEXT: u16 = 1;
/// The buffer is for the device to write.
pub(super) const DESC_WRITE: u16 = 2;
/// The buffer is a table of descriptors.
pub(super) const DESC_INDIRECT: u16 = 4;
/// Bytes of one descriptor.
pub(super) const DESC_LEN: u32 = 16;

/// Available ring flag: the driver wants no interrupts (section 2.7.6).
const AVAIL_NO_INTERRUPT: u16 = 1;
/// Used ring flag: the device wants no kicks (section 2.7.8).
const USED_NO_NOTIFY: u16 = 1;

/// Addresses of the three parts of a ring, in the frontend's own address space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingAddresses {
    /// Descriptor table, 16 bytes an entry, 16-byte aligned.
    pub descriptors: u64,
    /// Available ring, 2-byte aligned.
    pub available: u64,
    /// Used ring, 4-byte aligned.
    pub used: u64,
}

/// One descriptor, copied out of guest memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    pub(super) addr: u64,
    pub(super) len: u32,
    pub(super) flags: u16,
    pub(super) next: u16,
}

/// A descriptor table in this process's address space: the ring's own or an indirect one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    base: *const u8,
    entries: u32,
}

impl Table {
    /// # Safety
    /// `entries` descriptors at `base` must stay mapped while the table is used.
    pub(super) unsafe fn new(base: *const u8, entries: u32) -> Self {
        Self { base, entries }
    }

    /// Asks for the descriptor at `index`, wherever that is: see [`foresight`](super::foresight).
    #[inline]
    pub(super) fn prefetch(&self, index: u16) {
        let offset = usize::from(index).wrapping_mul(DESC_LEN as usize);
        super::foresight::to_read(self.base.addr().wrapping_add(offset));
    }

    /// A copy of the descriptor at `index`, or `None` behind the end.
    #[inline]
    #[allow(clippy::cast_ptr_alignment)] // Looked at before the cast.
    pub(super) fn get(&self, index: u16) -> Option<Descriptor> {
        if u32::from(index) >= self.entries {
            return None;
        }
        let at = self
            .base
            .wrapping_add(usize::from(index).wrapping_mul(DESC_LEN as usize));
        let [addr, rest] = if at.addr().is_multiple_of(8) {
            // SAFETY: inside the table (checked above), aligned, mapped (contract of `new`).
            unsafe { at.cast::<[u64; 2]>().read_volatile() }
        } else {
            Self::misaligned(at)
        };
        let rest = u64::from_le(rest);
        Some(Descriptor {
            addr: u64::from_le(addr),
            len: rest as u32,
            flags: (rest >> 32) as u16,
            next: (rest >> 48) as u16,
        })
    }

    /// Only an indirect table can lie at an odd address, and no known driver puts it there.
    #[cold]
    fn misaligned(at: *const u8) -> [u64; 2] {
        // SAFETY: the same 16 bytes as in `get`; byte arrays have no alignment.
        let bytes = unsafe { at.cast::<[u8; 16]>().read_volatile() };
        let (low, high) = bytes.split_at(8);
        [low, high].map(|half| half.try_into().map_or(0, u64::from_ne_bytes))
    }
}

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

/// A part of a ring that is not where it could be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// Zero, no power of two, or larger than the device allows.
    #[error("the ring size {0} is not a power of two within the device's limit")]
    Size(u16),
    /// A part lies outside of every memory region, or across two of them.
    #[error("the {part} at {addr:#x} is not in guest memory")]
    Outside {
        /// Which part.
        part: &'static str,
        /// The address the frontend gave.
        addr: u64,
    },
    /// A part is not aligned as virtio asks.
    #[error("the {part} at {addr:#x} is not aligned to {align} bytes")]
    Misaligned {
        /// Which part.
        part: &'static str,
        /// The address the frontend gave.
        addr: u64,
        /// The alignment needed.
        align: usize,
    },
}

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
        let find = |part, addr, len, align| {
            let host = memory
                .user(addr, len)
                .ok_or(RingError::Outside { part, addr })?;
            if !host.addr().is_multiple_of(align) {
                return Err(RingError::Misaligned { part, addr, align });
            }
            Ok(host)
        };
        // Each ring is two u16, the entries, and the event index.
        let entries = u64::from(size);
        let desc_len = entries.wrapping_mul(16);
        let avail_len = entries.wrapping_mul(2).wrapping_add(6);
        let used_len = entries.wrapping_mul(8).wrapping_add(6);
        let table = find("descriptor table", addresses.descriptors, desc_len, 16)?;
        let avail = find("available ring", addresses.available, avail_len, 2)?;
        let used = find("used ring", addresses.used, used_len, 4)?;
        Ok(Self {
            size,
            // SAFETY: translated just now for this many entries.
            table: unsafe { Table::new(table, u32::from(size)) },
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

    pub(super) fn driver_wants_interrupts(&self) -> bool {
        u16::from_le(self.avail(0).load(Ordering::Relaxed)) & AVAIL_NO_INTERRUPT == 0
    }

    /// The used index whose passing the driver wants an interrupt for (`EVENT_IDX`).
    pub(super) fn used_event(&self) -> u16 {
        let n = usize::from(self.size).wrapping_add(2);
        u16::from_le(self.avail(n).load(Ordering::Relaxed))
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

    /// Without `EVENT_IDX`: asks for kicks, or for none.
    pub(super) fn want_kicks(&self, wanted: bool) {
        let flags = if wanted { 0 } else { USED_NO_NOTIFY };
        self.used(0).store(flags.to_le(), Ordering::Relaxed);
    }

    /// With `EVENT_IDX`: asks for a kick when the available index passes `index`.
    pub(super) fn set_avail_event(&self, index: u16) {
        let n = usize::from(self.size).wrapping_mul(4).wrapping_add(2);
        self.used(n).store(index.to_le(), Ordering::Relaxed);
    }

    /// Orders a write to one ring before a read of the other: both sides of the notification
    /// protocol need it, and nothing weaker will do.
    pub(super) fn full_barrier() {
        fence(Ordering::SeqCst);
    }
}
