//! A span of guest memory, and the only way into it.
//!
//! The device writes to this memory at any moment, so it is never seen as a Rust slice: bytes move in
//! and out by volatile copies, and ring fields by atomics.

// Ring fields are atomics in memory shared with another process: there is no safe way to name
// them. Everything here is bounds-checked before a pointer is made.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use vm_memory::{MmapRegion, VolatileSlice};

/// A span of guest memory within one region, kept mapped for as long as the window lives.
///
/// Offsets are in bytes from the window's start. All ring fields are little-endian on the wire;
/// this driver runs on little-endian hosts only, as the rest of Outboard does.
#[derive(Clone, Debug)]
pub struct Window {
    start: NonNull<u8>,
    len: usize,
    addr: u64,
    mapping: Arc<MmapRegion>,
}

// SAFETY: a window is an address in a shared mapping that its Arc keeps alive. All access goes
// through atomics and volatile copies, which other threads and processes may race with freely.
unsafe impl Send for Window {}
// SAFETY: as for Send: no method gives out a reference into the memory.
unsafe impl Sync for Window {}

macro_rules! atomic_access {
    ($load:ident, $store:ident, $int:ty, $atomic:ty) => {
        #[doc = concat!("Loads a `", stringify!($int), "`.")]
        ///
        /// # Panics
        /// If the field is not inside the window or not naturally aligned.
        #[inline]
        pub fn $load(&self, offset: usize, order: Ordering) -> $int {
            let field = self.field::<$atomic>(offset);
            // SAFETY: field() checked bounds and alignment, and the mapping outlives the reference.
            <$int>::from_le(unsafe { &*field }.load(order))
        }

        #[doc = concat!("Stores a `", stringify!($int), "`.")]
        ///
        /// # Panics
        /// If the field is not inside the window or not naturally aligned.
        #[inline]
        pub fn $store(&self, offset: usize, value: $int, order: Ordering) {
            let field = self.field::<$atomic>(offset);
            // SAFETY: field() checked bounds and alignment, and the mapping outlives the reference.
            unsafe { &*field }.store(value.to_le(), order);
        }
    };
}

impl Window {
    /// All of a mapping that the guest has at `addr`.
    pub(super) fn whole(addr: u64, mapping: &Arc<MmapRegion>) -> Option<Self> {
        Some(Self {
            start: NonNull::new(mapping.as_ptr())?,
            len: mapping.size(),
            addr,
            mapping: Arc::clone(mapping),
        })
    }

    /// The guest physical address of the window's first byte.
    pub fn addr(&self) -> u64 {
        self.addr
    }

    /// The window's length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the window has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The window's first byte in this process: what vhost-user calls a user address.
    pub fn user_addr(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    /// A window of `len` bytes at `offset` in this one.
    ///
    /// # Panics
    /// If that is not inside this window.
    #[must_use]
    pub fn part(&self, offset: usize, len: usize) -> Window {
        let start = self.range(offset, len);
        Window {
            start,
            len,
            addr: self.addr + offset as u64,
            mapping: Arc::clone(&self.mapping),
        }
    }

    /// Copies `data` into the window.
    ///
    /// # Panics
    /// If it does not fit.
    pub fn write(&self, offset: usize, data: &[u8]) {
        self.volatile(offset, data.len()).copy_from(data);
    }

    /// Copies bytes out of the window.
    ///
    /// # Panics
    /// If the window does not have that many.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        self.volatile(offset, data.len()).copy_to(data);
    }

    /// Copies `len` bytes out of the window.
    ///
    /// # Panics
    /// If the window does not have that many.
    pub fn to_vec(&self, offset: usize, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.read(offset, &mut data);
        data
    }

    /// Sets every byte of the window.
    pub fn fill(&self, byte: u8) {
        self.write(0, &vec![byte; self.len]);
    }

    atomic_access!(load_u16, store_u16, u16, AtomicU16);
    atomic_access!(load_u32, store_u32, u32, AtomicU32);
    atomic_access!(load_u64, store_u64, u64, AtomicU64);

    fn volatile(&self, offset: usize, len: usize) -> VolatileSlice<'_> {
        let start = self.range(offset, len);
        // SAFETY: range() checked the bounds; the mapping outlives the borrow of self.
        unsafe { VolatileSlice::new(start.as_ptr(), len) }
    }

    /// The place of a naturally aligned field.
    #[inline]
    #[allow(clippy::cast_ptr_alignment)] // The assertion is just that.
    fn field<T>(&self, offset: usize) -> *const T {
        let field = self.range(offset, size_of::<T>()).as_ptr();
        assert!(
            (field as usize).is_multiple_of(size_of::<T>()),
            "unaligned ring field at offset {offset:#x}"
        );
        field.cast::<T>()
    }

    #[inline]
    fn range(&self, offset: usize, len: usize) -> NonNull<u8> {
        assert!(
            offset <= self.len && len <= self.len - offset,
            "{offset:#x}+{len:#x} is outside a window of {:#x} bytes",
            self.len
        );
        // SAFETY: offset is at most len, so the result stays in the mapping or one past its end.
        unsafe { self.start.add(offset) }
    }
}
