//! Buffers of a chain, and the descriptors that say where they are (virtio 1.2, section 2.7.5).

use std::sync::atomic::Ordering;

use super::layout::DESCRIPTOR_SIZE;
use super::memory::Window;

/// The chain goes on at `next`.
pub const DESC_NEXT: u16 = 1;
/// The device writes the buffer.
pub const DESC_WRITE: u16 = 2;
/// The buffer is a table of descriptors.
pub const DESC_INDIRECT: u16 = 4;

/// One buffer of a chain, by guest physical address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The buffer's guest physical address.
    pub addr: u64,
    /// Its length in bytes.
    pub len: u32,
    /// Whether the device writes it (it reads it otherwise).
    pub writable: bool,
}

impl Segment {
    /// A buffer the device reads.
    pub const fn readable(addr: u64, len: u32) -> Self {
        Self {
            addr,
            len,
            writable: false,
        }
    }

    /// A buffer the device writes.
    pub const fn writable(addr: u64, len: u32) -> Self {
        Self {
            addr,
            len,
            writable: true,
        }
    }
}

/// A descriptor, field by field: for rings that are wrong on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Guest physical address.
    pub addr: u64,
    /// Length in bytes.
    pub len: u32,
    /// [`DESC_NEXT`], [`DESC_WRITE`], [`DESC_INDIRECT`].
    pub flags: u16,
    /// The next descriptor's index, where the flags say so.
    pub next: u16,
}

impl Descriptor {
    /// Stores the descriptor as entry `index` of a table.
    #[inline]
    pub fn store(self, table: &Window, index: usize) {
        let tail = u64::from(self.len) | u64::from(self.flags) << 32 | u64::from(self.next) << 48;
        table.store_u64(index * DESCRIPTOR_SIZE, self.addr, Ordering::Relaxed);
        table.store_u64(index * DESCRIPTOR_SIZE + 8, tail, Ordering::Relaxed);
    }
}

/// A completed chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// What the driver gave with the chain.
    pub token: u64,
    /// How many bytes the device says it wrote.
    pub written: u32,
}

/// The descriptor of one buffer of a chain.
#[inline]
pub(super) fn describe(segment: &Segment, more: bool, next: u16) -> Descriptor {
    let write = if segment.writable { DESC_WRITE } else { 0 };
    let flags = if more { write | DESC_NEXT } else { write };
    Descriptor {
        addr: segment.addr,
        len: segment.len,
        flags,
        next,
    }
}
