//! Descriptors and tables of them (virtio 1.2, sections 2.7.5 and 2.8.13), copied out of guest memory
//! one by one. Nothing here judges what the guest wrote.
#![allow(unsafe_code)] // Tables lie in guest memory and are reached through raw pointers.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// The chain goes on at `next` (section 2.7.5).
pub(super) const DESC_NEXT: u16 = 1;
/// The buffer is for the device to write.
pub(super) const DESC_WRITE: u16 = 2;
/// The buffer is a table of descriptors.
pub(super) const DESC_INDIRECT: u16 = 4;
/// Bytes of one descriptor.
pub(super) const DESC_LEN: u32 = 16;

/// One descriptor, copied out of guest memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    pub(super) addr: u64,
    pub(super) len: u32,
    pub(super) flags: u16,
    /// Of a split ring: where the chain goes on. Of a packed one: the buffer's id.
    pub(super) next: u16,
}

/// The two layouts of a descriptor: they differ in where the flags are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Address, length, flags, next.
    Split,
    /// Address, length, id, flags.
    Packed,
}

/// A descriptor table in this process's address space: the ring's own or an indirect one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    base: *const u8,
    entries: u32,
    format: Format,
}

impl Table {
    /// # Safety
    /// `entries` descriptors at `base` must stay mapped while the table is used.
    pub(super) unsafe fn new(base: *const u8, entries: u32, format: Format) -> Self {
        Self {
            base,
            entries,
            format,
        }
    }

    /// How many descriptors it has.
    pub(super) fn entries(&self) -> u32 {
        self.entries
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
        let (low, high) = ((rest >> 32) as u16, (rest >> 48) as u16);
        let (flags, next) = match self.format {
            Format::Split => (low, high),
            Format::Packed => (high, low),
        };
        Some(Descriptor {
            addr: u64::from_le(addr),
            len: rest as u32,
            flags,
            next,
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
