//! The packed virtqueue in memory (virtio 1.2, section 2.8): one ring of descriptors that both sides
//! write, and two event suppression structures. Nothing here judges what the guest wrote.
//!
//! A position is a slot with the wrap counter it is met with in bit 15. The driver makes a descriptor
//! available by flags that say its wrap counter, and the device uses it by flags that say the same twice.
#![allow(unsafe_code)] // The ring lies in guest memory and is reached through raw pointers.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::atomic::{AtomicU16, Ordering};

use super::descriptor::{DESC_LEN, DESC_WRITE, Format, Table};
use super::ring::{Count, MAX_SIZE, RingAddresses, RingError, WRAP, Wish, part};
use crate::memory::Memory;

/// Descriptor flag: the driver's wrap counter (section 2.8.1).
const AVAIL: u16 = 1 << 7;
/// Descriptor flag: the device's wrap counter, once used.
const USED: u16 = 1 << 15;

/// Event suppression flags (section 2.8.14): notify always, never, or at a position (`EVENT_IDX`).
const ENABLE: u16 = 0;
const DISABLE: u16 = 1;
const DESC: u16 = 2;
/// The two bits of the flags field that mean something.
const FLAGS: u16 = 3;

/// Where a descriptor's flags are, and its id, in u16 from its start.
const FLAGS_AT: usize = 7;
const ID_AT: usize = 6;
/// The flags of an event suppression structure, in u16 from its start; its position is at 0.
const EVENT_FLAGS_AT: usize = 1;

/// A ring that is set up: its parts as host pointers, translated once.
///
/// The pointers are good for as long as the [`Memory`] they were translated in is kept.
#[derive(Debug)]
pub(super) struct PackedRing {
    size: u16,
    ring: *mut u16,
    /// The driver's event suppression, and the device's.
    driver: *mut u16,
    device: *mut u16,
    /// The first answer that was written and is not published: its position and flags. The driver goes
    /// by the ring's order, so that as long as it does not see this one it sees none behind it.
    first: Option<(u16, u16)>,
}

// SAFETY: the pointers lead to memory of the process, shared with the guest in any case; every
// access is volatile or atomic.
unsafe impl Send for PackedRing {}

impl PackedRing {
    /// Translates the ring's addresses. `size` is at least 1 and at most [`MAX_SIZE`].
    pub(super) fn new(
        memory: &Memory,
        size: u16,
        addresses: RingAddresses,
    ) -> Result<Self, RingError> {
        if size == 0 || size > MAX_SIZE {
            return Err(RingError::Size(size));
        }
        let len = u64::from(size).wrapping_mul(u64::from(DESC_LEN));
        let ring = part(memory, "descriptor ring", addresses.descriptors, len, 16)?;
        let driver = part(memory, "driver area", addresses.available, 4, 4)?;
        let device = part(memory, "device area", addresses.used, 4, 4)?;
        Ok(Self {
            size,
            ring: ring.cast(),
            driver: driver.cast(),
            device: device.cast(),
            first: None,
        })
    }

    pub(super) fn size(&self) -> u16 {
        self.size
    }

    #[inline]
    pub(super) fn count(&self) -> Count {
        Count::Laps { size: self.size }
    }

    /// The descriptors.
    pub(super) fn table(&self) -> Table {
        // SAFETY: `new` translated this many entries.
        unsafe { Table::new(self.ring.cast(), u32::from(self.size), Format::Packed) }
    }

    /// The n-th u16 of the descriptor at a position whose slot is inside the ring.
    #[inline]
    fn field(&self, position: u16, n: usize) -> &AtomicU16 {
        let slot = usize::from(position & !WRAP).min(usize::from(self.size.wrapping_sub(1)));
        // SAFETY: `new` translated `size` descriptors of eight u16, 16-byte aligned, and the slot is one
        // of them; an atomic is the one kind of reference that memory written by others allows.
        unsafe { AtomicU16::from_ptr(self.ring.wrapping_add(slot.wrapping_mul(8).wrapping_add(n))) }
    }

    /// A field of an event suppression structure.
    fn event(part: &*mut u16, n: usize) -> &AtomicU16 {
        // SAFETY: `new` translated two u16 there, aligned; the reference lives as long as the ring is
        // borrowed.
        unsafe { AtomicU16::from_ptr(part.wrapping_add(n)) }
    }

    /// Whether the driver has made a chain available that begins at the position. What it wrote before is
    /// visible after.
    #[inline]
    fn is_available(&self, position: u16) -> bool {
        let flags = u16::from_le(self.field(position, FLAGS_AT).load(Ordering::Acquire));
        let wrap = position & WRAP != 0;
        (flags & AVAIL != 0) == wrap && (flags & USED != 0) != wrap
    }

    /// How many slots from a position on may be the driver's to fill, when the next answer goes to `used`.
    #[inline]
    pub(super) fn room(&self, used: u16, from: u16) -> u16 {
        let taken = self.count().distance(used, from);
        self.size.saturating_sub(taken)
    }

    /// The first position from `from` on that is not available; not more than `room` further.
    #[inline]
    pub(super) fn available(&self, from: u16, room: u16) -> u16 {
        let mut position = from;
        for _ in 0..room {
            if !self.is_available(position) {
                break;
            }
            position = self.count().advance(position, 1);
        }
        position
    }

    /// Writes an answer at a position; it is not visible before [`publish`](Self::publish).
    #[inline]
    pub(super) fn write_used(&mut self, position: u16, id: u16, written: u32) {
        let mut flags = if position & WRAP == 0 {
            0
        } else {
            AVAIL | USED
        };
        if written != 0 {
            flags |= DESC_WRITE;
        }
        self.field(position, ID_AT)
            .store(id.to_le(), Ordering::Relaxed);
        let [low, high] = [written as u16, (written >> 16) as u16];
        self.field(position, ID_AT.wrapping_sub(2))
            .store(low.to_le(), Ordering::Relaxed);
        self.field(position, ID_AT.wrapping_sub(1))
            .store(high.to_le(), Ordering::Relaxed);
        if self.first.is_none() {
            self.first = Some((position, flags));
        } else {
            self.field(position, FLAGS_AT)
                .store(flags.to_le(), Ordering::Relaxed);
        }
    }

    /// Makes all that was written visible to the driver.
    #[inline]
    pub(super) fn publish(&mut self) {
        if let Some((position, flags)) = self.first.take() {
            self.field(position, FLAGS_AT)
                .store(flags.to_le(), Ordering::Release);
        }
    }

    /// When the driver wants to be interrupted.
    pub(super) fn driver_wish(&self, event_idx: bool) -> Wish {
        let flags = Self::event(&self.driver, EVENT_FLAGS_AT).load(Ordering::Acquire);
        match u16::from_le(flags) & FLAGS {
            DISABLE => Wish::Never,
            DESC if event_idx => {
                let event = Self::event(&self.driver, 0).load(Ordering::Relaxed);
                Wish::At(u16::from_le(event))
            }
            // The reserved value too: one interrupt too many does no harm.
            _ => Wish::Always,
        }
    }

    /// Says when the device wants to be kicked.
    pub(super) fn tell(&self, wish: Wish) {
        let flags = match wish {
            Wish::Always => ENABLE,
            Wish::Never => DISABLE,
            Wish::At(position) => {
                Self::event(&self.device, 0).store(position.to_le(), Ordering::Relaxed);
                DESC
            }
        };
        Self::event(&self.device, EVENT_FLAGS_AT).store(flags.to_le(), Ordering::Release);
    }
}
