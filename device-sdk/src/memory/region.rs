//! One region of guest memory: a part of a file, mapped into this process.
#![allow(unsafe_code)] // mmap, and the pointers that come of it.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::ptr;

use super::MemoryError;

/// A region as the frontend describes it. All values are in bytes and come from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionLayout {
    /// Guest physical address of the first byte.
    pub guest_addr: u64,
    /// Where the frontend has it mapped: the ring addresses it sends are of this kind.
    pub user_addr: u64,
    /// Length.
    pub size: u64,
    /// Where in the file the region begins.
    pub file_offset: u64,
}

/// One region, mapped for as long as this value lives.
#[derive(Debug)]
pub struct Region {
    layout: RegionLayout,
    /// Start and length of the mapping, which may begin before the region and end behind it.
    map: *mut libc::c_void,
    map_len: usize,
    /// Address of the region's first byte.
    host: *mut u8,
}

// SAFETY: the mapping belongs to the process, not to a thread; the value is immutable.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Maps `file` shared, readable and writable. The file is not needed afterwards.
    ///
    /// The file must keep its length: touching a page behind the end of a file that was cut is
    /// fatal to the process (SIGBUS). A frontend that does this ends its own device.
    pub fn map(layout: RegionLayout, file: &File) -> Result<Self, MemoryError> {
        let refuse = |why| MemoryError::Layout {
            region: layout,
            why,
        };
        let fail = |source| MemoryError::Map {
            region: layout,
            source,
        };
        if layout.size == 0 {
            return Err(refuse("it is empty"));
        }
        for start in [layout.guest_addr, layout.user_addr] {
            start
                .checked_add(layout.size)
                .ok_or_else(|| refuse("its addresses wrap around"))?;
        }
        let end = layout
            .file_offset
            .checked_add(layout.size)
            .ok_or_else(|| refuse("its file offsets wrap around"))?;
        let meta = file.metadata().map_err(fail)?;
        if meta.file_type().is_file() && meta.len() < end {
            return Err(refuse(
                "the file is shorter; touching the rest would be fatal",
            ));
        }
        // Huge page files want offset and length in whole huge pages, which is their block size.
        let page = meta.blksize().next_power_of_two().max(4096);
        let before = layout.file_offset & page.wrapping_sub(1);
        let map_len = layout
            .size
            .checked_add(before)
            .and_then(|len| len.checked_next_multiple_of(page))
            .and_then(|len| usize::try_from(len).ok())
            .ok_or_else(|| refuse("it is larger than the address space"))?;
        let offset = libc::off_t::try_from(layout.file_offset.wrapping_sub(before))
            .map_err(|_| refuse("its file offset is out of range"))?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let map = unsafe {
            libc::mmap(
                ptr::null_mut(),
                map_len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                file.as_raw_fd(),
                offset,
            )
        };
        if map == libc::MAP_FAILED {
            return Err(fail(io::Error::last_os_error()));
        }
        // SAFETY: the mapping is the process's own; guest memory has no place in a core dump.
        unsafe { libc::madvise(map, map_len, libc::MADV_DONTDUMP) };
        Ok(Self {
            layout,
            map,
            map_len,
            host: map.cast::<u8>().wrapping_add(before as usize),
        })
    }

    /// What the region was mapped from.
    pub fn layout(&self) -> RegionLayout {
        self.layout
    }

    /// Where its first byte is in this process.
    pub(super) fn host(&self) -> *mut u8 {
        self.host
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` and nothing else unmaps it; whoever holds
        // pointers into it also holds the `Memory` that owns this value.
        unsafe { libc::munmap(self.map, self.map_len) };
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;

    use super::*;
    use crate::memory::Memory;

    pub(in crate::memory) fn file(len: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        file
    }

    pub(in crate::memory) fn layout(guest: u64, user: u64, size: u64, offset: u64) -> RegionLayout {
        RegionLayout {
            guest_addr: guest,
            user_addr: user,
            size,
            file_offset: offset,
        }
    }

    #[test]
    fn regions_that_make_no_sense_are_refused() {
        let file = file(0x10000);
        for bad in [
            layout(0, 0, 0, 0),
            layout(u64::MAX - 0xfff, 0, 0x1000, 0),
            layout(0, u64::MAX - 0xfff, 0x1000, 0),
            layout(0, 0, 0x1000, u64::MAX - 0x10),
            layout(0, 0, 0x10001, 0),
            layout(0, 0, 0x1000, 0x10000),
            layout(0, 0, 1 << 63, 0),
        ] {
            let error = Region::map(bad, &file).unwrap_err();
            assert!(matches!(error, MemoryError::Layout { .. }), "{error}");
        }
    }

    #[test]
    fn an_offset_inside_a_page_is_honoured() {
        let file = file(0x3000);
        file.write_all_at(b"here", 0x1010).unwrap();
        let region = Region::map(layout(0x8000, 0x100, 0x1000, 0x1010), &file).unwrap();
        let memory = Memory::new(vec![Arc::new(region)]).unwrap();
        let host = memory.guest(0x8000, 4).unwrap();
        // SAFETY: just translated, and `memory` lives.
        assert_eq!(unsafe { host.cast::<[u8; 4]>().read_volatile() }, *b"here");
        assert_eq!(memory.user(0x100, 4), Some(host));
    }
}
