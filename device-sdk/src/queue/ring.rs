//! A ring of either format, and how positions in it are counted.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::atomic::{Ordering, fence};

use super::packed::PackedRing;
use super::split::SplitRing;
use crate::memory::Memory;

/// Largest ring the specification allows.
pub const MAX_SIZE: u16 = 32768;

/// Addresses of the three parts of a ring, in the frontend's own address space. A packed ring has its
/// descriptors, the driver's and the device's event suppression in their places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingAddresses {
    /// Descriptor table, 16 bytes an entry, 16-byte aligned.
    pub descriptors: u64,
    /// Available ring, 2-byte aligned; of a packed ring the driver area, 4-byte aligned.
    pub available: u64,
    /// Used ring, 4-byte aligned; of a packed ring the device area, 4-byte aligned.
    pub used: u64,
}

/// A part of a ring that is not where it could be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// Zero, larger than the specification allows, or no power of two where it has to be one.
    #[error(
        "{0} is no ring size: it is at least 1, at most 32768, and of a split ring a power of two"
    )]
    Size(u16),
    /// A packed ring's positions are not inside of it, or further apart than it is long.
    #[error("the base {0:#x} is not inside the packed ring")]
    Base(u32),
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

/// When one side wants to hear from the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Always,
    Never,
    /// When this position is passed (`EVENT_IDX`).
    At(u16),
}

/// How positions in a ring are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    /// For ever, modulo 2^16: the indices of a split ring.
    Free,
    /// By slots, with the wrap counter in bit 15: as a packed ring's events and base have it.
    Laps { size: u16 },
}

/// The wrap counter within a packed ring's position.
pub(super) const WRAP: u16 = 1 << 15;

impl Count {
    /// The position `by` further on, which is at most a ring.
    #[inline]
    pub(super) fn advance(self, position: u16, by: u16) -> u16 {
        match self {
            Self::Free => position.wrapping_add(by),
            Self::Laps { size } => {
                let slot = u32::from(position & !WRAP).wrapping_add(u32::from(by));
                let wrap = position & WRAP;
                match slot.checked_sub(u32::from(size)) {
                    None => slot as u16 | wrap,
                    Some(slot) => slot as u16 | (wrap ^ WRAP),
                }
            }
        }
    }

    /// How far it is from one position on to another.
    #[inline]
    pub(super) fn distance(self, from: u16, to: u16) -> u16 {
        match self {
            Self::Free => to.wrapping_sub(from),
            Self::Laps { size } => {
                let lap = u32::from(size).wrapping_mul(2);
                let other_lap = if (from ^ to) & WRAP == 0 {
                    0
                } else {
                    u32::from(size)
                };
                let ahead = u32::from(to & !WRAP)
                    .wrapping_add(other_lap)
                    .wrapping_add(lap)
                    .wrapping_sub(u32::from(from & !WRAP));
                // One subtraction will do, but for what a guest says that is not in the ring.
                let ahead = ahead.checked_sub(lap).unwrap_or(ahead);
                let ahead = if ahead < lap {
                    ahead
                } else {
                    ahead.checked_rem(lap).unwrap_or_default()
                };
                ahead as u16
            }
        }
    }

    /// Whether a step from `old` to `new` has passed `event` (virtio 1.2, section 2.7.10).
    pub(super) fn passed(self, event: u16, old: u16, new: u16) -> bool {
        self.distance(old, event) < self.distance(old, new)
    }
}

/// A ring that is set up: its parts as host pointers, translated once. Good for as long as the
/// [`Memory`] they were translated in is kept.
#[derive(Debug)]
pub(super) enum Ring {
    Split(SplitRing),
    Packed(PackedRing),
}

impl Ring {
    pub(super) fn new(
        memory: &Memory,
        packed: bool,
        size: u16,
        addresses: RingAddresses,
    ) -> Result<Self, RingError> {
        Ok(if packed {
            Self::Packed(PackedRing::new(memory, size, addresses)?)
        } else {
            Self::Split(SplitRing::new(memory, size, addresses)?)
        })
    }

    pub(super) fn size(&self) -> u16 {
        match self {
            Self::Split(ring) => ring.size(),
            Self::Packed(ring) => ring.size(),
        }
    }

    #[inline]
    pub(super) fn count(&self) -> Count {
        match self {
            Self::Split(_) => Count::Free,
            Self::Packed(ring) => ring.count(),
        }
    }

    /// Writes an answer at a position; it is not visible before [`publish`](Self::publish).
    #[inline]
    pub(super) fn write_used(&mut self, position: u16, id: u16, written: u32) {
        match self {
            Self::Split(ring) => ring.write_used(position, id, written),
            Self::Packed(ring) => ring.write_used(position, id, written),
        }
    }

    /// Makes all answers before `position` visible to the driver.
    #[inline]
    pub(super) fn publish(&mut self, position: u16) {
        match self {
            Self::Split(ring) => ring.publish(position),
            Self::Packed(ring) => ring.publish(),
        }
    }

    /// When the driver wants to be interrupted.
    pub(super) fn driver_wish(&self, event_idx: bool) -> Wish {
        match self {
            Self::Split(ring) => ring.driver_wish(event_idx),
            Self::Packed(ring) => ring.driver_wish(event_idx),
        }
    }

    /// Says when the device wants to be kicked.
    pub(super) fn tell(&self, wish: Wish) {
        match self {
            Self::Split(ring) => ring.tell(wish),
            Self::Packed(ring) => ring.tell(wish),
        }
    }

    /// Up to where chains are available, from `from` on; `used` is the position of the next answer. A
    /// split ring's driver says it, and may say anything. A packed ring's makes no more available than
    /// has been used.
    #[inline]
    pub(super) fn available(&self, used: u16, from: u16) -> u16 {
        match self {
            Self::Split(ring) => ring.avail_index(),
            Self::Packed(ring) => ring.available(from, ring.room(used, from)),
        }
    }

    /// Orders a write to one part of a ring before a read of another: both sides of the notification
    /// protocol need it, and nothing weaker will do.
    pub(super) fn full_barrier() {
        fence(Ordering::SeqCst);
    }
}

/// Where a part of a ring lies in this process.
pub(super) fn part(
    memory: &Memory,
    part: &'static str,
    addr: u64,
    len: u64,
    align: usize,
) -> Result<*mut u8, RingError> {
    let host = memory
        .user(addr, len)
        .ok_or(RingError::Outside { part, addr })?;
    if !host.addr().is_multiple_of(align) {
        return Err(RingError::Misaligned { part, addr, align });
    }
    Ok(host)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_event_is_passed_once() {
        let passed = |event, old, new| Count::Free.passed(event, old, new);
        // One entry published at 5: the driver waits for index 5 to be passed.
        assert!(passed(5, 5, 6));
        assert!(!passed(6, 5, 6));
        assert!(!passed(4, 5, 6));
        // A batch over the wrap-around.
        assert!(passed(0xffff, 0xfffe, 2));
        assert!(passed(1, 0xfffe, 2));
        assert!(!passed(2, 0xfffe, 2));
        assert!(!passed(0, 7, 7));
    }

    proptest! {
        /// Positions of a packed ring are a count modulo two laps, whatever the size.
        #[test]
        fn laps_count_like_numbers(size in 1u16..=MAX_SIZE, from: u32, by: u16, event: u32) {
            let count = Count::Laps { size };
            let lap = 2 * u32::from(size);
            let position = |n: u32| {
                let n = n % lap;
                let second = n >= u32::from(size);
                (n % u32::from(size)) as u16 | if second { 0 } else { WRAP }
            };
            let by = u32::from(by) % (u32::from(size) + 1);
            let (from, event) = (from % lap, event % lap);
            prop_assert_eq!(count.advance(position(from), by as u16), position(from + by));
            let distance = count.distance(position(from), position(event));
            prop_assert_eq!(u32::from(distance), (event + lap - from) % lap);
            let passed = count.passed(position(event), position(from), position(from + by));
            prop_assert_eq!(passed, u32::from(distance) < by);
        }

        /// Nor does what a guest writes there, inside the ring or not, overflow.
        #[test]
        fn any_position_has_a_distance(size in 1u16..=MAX_SIZE, from: u16, to: u16) {
            let distance = Count::Laps { size }.distance(from, to);
            prop_assert!(u32::from(distance) < 2 * u32::from(size));
        }
    }
}
