//! An image in memory (tmpfs), mapped: a transfer is a copy between it and guest memory, and no system
//! call.
//!
//! What a system call does better is left to it: making pages (`presence`), and saying what is wrong
//! when one is lost (`copy`). So each transfer either is whole or has not been, and is then made by a
//! system call, whose outcome counts: space that has run out, a file that has become shorter, guest
//! memory that is no more end as they would without a mapping.
//!
//! Where somebody cuts the file, the page that it now ends in is still there, and holds zeroes behind the
//! end. So each transfer looks at the file's last page first, which is gone then, and a file that was cut is
//! left to system calls from there on. (That page is made where there was a hole: a sparse image takes one
//! page more. A cut within the last page is not seen.)
//!
//! A mapping never changes; another size of the image is another mapping.
#![allow(unsafe_code)] // mmap, and the pointers that come of it.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

#[cfg(target_arch = "x86_64")]
mod copy;
#[cfg(not(target_arch = "x86_64"))]
#[path = "elsewhere.rs"]
mod copy;
mod presence;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use outboard_device::Segment;

pub use copy::arm;
use presence::{GROUP, Presence};

/// Bytes of a page of memory, where there is a copy.
const PAGE: u64 = 4096;

/// The most that is mapped, in bytes: more than a tmpfs holds. What lies behind it is not.
const MOST: u64 = 1 << 40;

/// Pages that the kernel enters together lie in such a part of memory, in bytes, aligned to it
/// (`fault_around_bytes`, unless somebody has changed it).
const WINDOW: u64 = 1 << 16;

/// The beginning of a file, mapped for as long as this value lives.
#[derive(Debug)]
pub struct Mapping {
    map: *mut u8,
    map_len: usize,
    /// Bytes of the file, and those of them that may be touched.
    size: u64,
    len: u64,
    writable: bool,
    presence: Presence,
    /// The file was found to be shorter.
    cut: AtomicBool,
}

// SAFETY: the mapping belongs to the process, not to a thread, and is reached through raw pointers only.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the `size` bytes of `file`, a regular file of a tmpfs; `writable` when it is open for writing.
    /// To be called by who will use it: it depends on the rights of the thread.
    ///
    /// # Errors
    /// The kernel refuses; lost pages would end the process ([`arm`]); or the file is somebody else's, and
    /// nobody tells which of its pages are there.
    pub fn new(file: &File, size: u64, writable: bool) -> io::Result<Self> {
        let unfit = |why| io::Error::new(io::ErrorKind::Unsupported, why);
        if !copy::is_armed() {
            return Err(unfit("a lost page would end the process"));
        }
        let len = size.min(MOST);
        let pages = len.div_ceil(PAGE);
        // With a page behind the end, which is not there.
        let map_len = pages
            .checked_add(1)
            .and_then(|pages| usize::try_from(pages.checked_mul(PAGE)?).ok())
            .ok_or_else(|| unfit("it is larger than the address space"))?;
        let access = if writable {
            libc::PROT_READ | libc::PROT_WRITE
        } else {
            libc::PROT_READ
        };
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let map = unsafe {
            libc::mmap(
                ptr::null_mut(),
                map_len,
                access,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                file.as_raw_fd(),
                0,
            )
        };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapping = Self {
            map: map.cast(),
            map_len,
            size,
            len,
            writable,
            presence: Presence::new(pages),
            cut: AtomicBool::new(false),
        };
        // SAFETY: the mapping is the process's own; a disk has no place in a core dump.
        unsafe { libc::madvise(map, map_len, libc::MADV_DONTDUMP) };
        // To who may not write the file the kernel says of every page that it is there (mincore(2)).
        match mapping.pages_at(pages, 1)? {
            0 => Ok(mapping),
            _ => Err(unfit(
                "the kernel does not say which of its pages are there",
            )),
        }
    }

    /// The size that the file had, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether the file was found to be shorter: nothing is copied any more, also when it has grown again.
    pub fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// Copies from `offset` into the memory of `pieces`; how many bytes, or `None` where not all can be:
    /// then the memory may hold some of them.
    pub fn read(&self, pieces: &[Segment], offset: u64) -> Option<u32> {
        self.transfer(pieces, offset, false, |here, piece| {
            // SAFETY: the pieces are writable guest memory of a request, mapped while it lives; whoever
            // has the pieces has the request. `transfer` gives parts of the mapping.
            unsafe { copy::copy(here, piece.addr(), piece.len()) }
        })
    }

    /// Copies the memory of `pieces` to `offset`; how many bytes, or `None` where not all can be: then the
    /// image may hold some of them.
    pub fn write(&self, pieces: &[Segment], offset: u64) -> Option<u32> {
        if !self.writable {
            return None;
        }
        self.transfer(pieces, offset, true, |here, piece| {
            // SAFETY: as above, the other way; the mapping is writable.
            unsafe { copy::copy(piece.addr(), here, piece.len()) }
        })
    }

    /// Takes note of `len` bytes at `offset` that a system call has written.
    pub fn written(&self, offset: u64, len: u64) {
        self.presence.learn(offset, len);
    }

    /// Takes note of `len` bytes at `offset` whose space is given back: before it is.
    pub fn punched(&self, offset: u64, len: u64) {
        self.presence.forget(offset, len);
    }

    /// Calls `copy` with each piece and the place of its bytes in the mapping, in order, if all of them are
    /// there; it says how many were left.
    fn transfer(
        &self,
        pieces: &[Segment],
        offset: u64,
        writing: bool,
        copy: impl Fn(*mut u8, &Segment) -> usize,
    ) -> Option<u32> {
        let len = pieces
            .iter()
            .try_fold(0u64, |sum, piece| sum.checked_add(piece.len() as u64))?;
        let end = offset.checked_add(len)?;
        if len == 0 || end > self.len {
            return None;
        }
        let ask = |group| self.group(group).unwrap_or(0);
        if self.is_cut() || !self.presence.knows(offset, len, ask) {
            return None;
        }
        if !self.look(self.len.saturating_sub(1)) {
            self.cut.store(true, Ordering::Relaxed);
            return None;
        }
        if writing {
            self.enter(offset, len);
        }
        let mut here = self.map.wrapping_add(usize::try_from(offset).ok()?);
        for piece in pieces {
            if copy(here, piece) != 0 {
                // Not to be tried again and again: a fault takes longer than a system call.
                self.presence.forget(offset, len);
                return None;
            }
            here = here.wrapping_add(piece.len());
        }
        u32::try_from(len).ok()
    }

    /// Looks at the byte at `offset`, which is below `len`; whether its page is there.
    #[inline]
    fn look(&self, offset: u64) -> bool {
        let mut byte = 0u8;
        let here = self.map.wrapping_add(offset as usize);
        // SAFETY: in the mapping; the byte is a local.
        let left = unsafe { copy::copy(here, &raw mut byte, 1) };
        left == 0
    }

    /// Looks at a byte in each [`WINDOW`] of these, which are below `len` and known to be there: the kernel
    /// enters a page that is read into the page tables together with its neighbours, but one that is written
    /// alone.
    #[inline]
    fn enter(&self, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        let mut at = offset;
        while at < end {
            self.look(at);
            at = (at | (WINDOW - 1)).saturating_add(1);
        }
    }

    /// Asks the kernel for a group of pages: those that are there, as bits.
    fn group(&self, group: u64) -> io::Result<u64> {
        let first = group.saturating_mul(GROUP);
        let behind = self.len.div_ceil(PAGE);
        let count = behind.saturating_sub(first).min(GROUP);
        self.pages_at(first, usize::try_from(count).unwrap_or(0))
    }

    /// Asks for `count` pages, at most 64.
    fn pages_at(&self, first: u64, count: usize) -> io::Result<u64> {
        let offset = usize::try_from(first.saturating_mul(PAGE)).unwrap_or(usize::MAX);
        let len = count.saturating_mul(PAGE as usize);
        let end = offset.checked_add(len);
        if count > GROUP as usize || end.is_none_or(|end| end > self.map_len) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut there = [0u8; GROUP as usize];
        // SAFETY: the range lies in the mapping, and the kernel writes a byte for each of its pages, of
        // which there are at most as many as the array has.
        let asked = unsafe {
            libc::mincore(
                self.map.wrapping_add(offset).cast(),
                len,
                there.as_mut_ptr(),
            )
        };
        Errno::result(asked)?;
        Ok(there
            .iter()
            .rev()
            .fold(0, |bits, page| bits << 1 | u64::from(page & 1)))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new`, and nothing else unmaps it; who copies holds this value.
        unsafe { libc::munmap(self.map.cast(), self.map_len) };
    }
}
