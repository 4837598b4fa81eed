//! The guest's memory as its driver sees it: memfd regions at guest physical addresses.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use vhost::VhostUserMemoryRegionInfo;
use vm_memory::{FileOffset, MmapRegion};

pub use super::window::Window;

/// Why guest memory could not be made or reached.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// A memfd could not be made, sized or sealed.
    #[error("cannot make a guest memory file of {size} bytes")]
    Create {
        /// The region's size in bytes.
        size: u64,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The memfd could not be mapped.
    #[error("cannot map {size} bytes of guest memory")]
    Map {
        /// The region's size in bytes.
        size: u64,
        /// Why not.
        #[source]
        source: vm_memory::mmap::MmapRegionError,
    },
    /// A region is empty, wraps, or overlaps another.
    #[error("the memory region {addr:#x}+{size:#x} is empty, overlaps another, or wraps")]
    BadRegion {
        /// The region's guest physical address.
        addr: u64,
        /// Its size in bytes.
        size: u64,
    },
    /// The range is not inside one region.
    #[error("no memory region holds {addr:#x}+{len:#x}")]
    Unmapped {
        /// The range's guest physical address.
        addr: u64,
        /// Its length in bytes.
        len: u64,
    },
    /// The regions have no room left.
    #[error("no region has {len:#x} free bytes; give the driver more memory")]
    Exhausted {
        /// How many bytes were asked for.
        len: u64,
    },
}

/// One memfd at a guest physical address.
#[derive(Debug)]
struct Region {
    addr: u64,
    mapping: Arc<MmapRegion>,
}

impl Region {
    fn new(addr: u64, size: u64) -> Result<Self, MemoryError> {
        let failed = |source: io::Error| MemoryError::Create { size, source };
        let bad = MemoryError::BadRegion { addr, size };
        let Ok(len) = usize::try_from(size) else {
            return Err(bad);
        };
        if size == 0 || addr.checked_add(size).is_none() {
            return Err(bad);
        }
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let memfd = memfd_create(c"outboard-driver", flags).map_err(|e| failed(e.into()))?;
        let file = File::from(memfd);
        file.set_len(size).map_err(failed)?;
        let seals = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).map_err(|e| failed(e.into()))?;
        let mapping = MmapRegion::from_file(FileOffset::new(file, 0), len)
            .map_err(|source| MemoryError::Map { size, source })?;
        Ok(Self {
            addr,
            mapping: Arc::new(mapping),
        })
    }

    fn end(&self) -> u64 {
        self.addr + self.mapping.size() as u64
    }
}

/// All of the guest's memory: what a memory table is made of.
#[derive(Debug, Default)]
pub struct GuestMemory {
    regions: Vec<Region>,
}

impl GuestMemory {
    /// Makes one zeroed memfd for each `(guest physical address, size in bytes)`.
    ///
    /// Regions may touch but not overlap. The files are sealed against resizing, as a VMM's are.
    pub fn new(layout: &[(u64, u64)]) -> Result<Self, MemoryError> {
        let mut memory = Self::default();
        for &(addr, size) in layout {
            memory.add(addr, size)?;
        }
        Ok(memory)
    }

    /// Adds a region; a device learns of it by the next memory table.
    pub fn add(&mut self, addr: u64, size: u64) -> Result<(), MemoryError> {
        let region = Region::new(addr, size)?;
        if self
            .regions
            .iter()
            .any(|r| r.addr < region.end() && region.addr < r.end())
        {
            return Err(MemoryError::BadRegion { addr, size });
        }
        self.regions.push(region);
        Ok(())
    }

    /// Drops the region that starts at `addr`. Windows into it stay usable on this side.
    pub fn remove(&mut self, addr: u64) {
        self.regions.retain(|r| r.addr != addr);
    }

    /// The regions as `(guest physical address, size in bytes)`.
    pub fn layout(&self) -> Vec<(u64, u64)> {
        self.regions
            .iter()
            .map(|r| (r.addr, r.end() - r.addr))
            .collect()
    }

    /// The window at a guest physical address; it must lie in one region.
    pub fn window(&self, addr: u64, len: u64) -> Result<Window, MemoryError> {
        let unmapped = MemoryError::Unmapped { addr, len };
        let Some(end) = addr.checked_add(len) else {
            return Err(unmapped);
        };
        let Some(region) = self
            .regions
            .iter()
            .find(|r| r.addr <= addr && end <= r.end())
        else {
            return Err(unmapped);
        };
        let whole = Window::whole(region.addr, &region.mapping).ok_or(unmapped)?;
        Ok(whole.part((addr - region.addr) as usize, len as usize))
    }

    /// The region that starts at `addr`, as in the [table](Self::table).
    pub fn region(&self, addr: u64) -> Option<VhostUserMemoryRegionInfo> {
        self.table().into_iter().find(|r| r.guest_phys_addr == addr)
    }

    /// The memory table: file descriptors are borrowed from this memory.
    pub fn table(&self) -> Vec<VhostUserMemoryRegionInfo> {
        self.regions
            .iter()
            .filter_map(|region| {
                let file = region.mapping.file_offset()?;
                Some(VhostUserMemoryRegionInfo {
                    guest_phys_addr: region.addr,
                    memory_size: region.mapping.size() as u64,
                    userspace_addr: region.mapping.as_ptr() as u64,
                    mmap_offset: file.start(),
                    mmap_handle: file.file().as_raw_fd(),
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn windows_reach_exactly_their_region() {
        let memory = GuestMemory::new(&[(0x1000, 0x2000), (0x10_0000, 0x1000)]).unwrap();
        assert!(memory.window(0x1000, 0x2000).is_ok());
        assert!(memory.window(0x2fff, 2).is_err());
        assert!(memory.window(0xfff, 1).is_err());
        assert!(memory.window(u64::MAX, 2).is_err());
        let window = memory.window(0x10_0800, 0x10).unwrap();
        assert_eq!(window.addr(), 0x10_0800);
        window.write(4, b"abcd");
        assert_eq!(memory.window(0x10_0804, 4).unwrap().to_vec(0, 4), b"abcd");
        window.store_u32(8, 0x0403_0201, Ordering::Relaxed);
        assert_eq!(window.to_vec(8, 4), [1, 2, 3, 4]);
    }

    #[test]
    fn overlapping_and_empty_regions_are_refused() {
        assert!(GuestMemory::new(&[(0, 0x2000), (0x1000, 0x1000)]).is_err());
        assert!(GuestMemory::new(&[(0, 0x1000), (0x1000, 0x1000)]).is_ok());
        assert!(GuestMemory::new(&[(0, 0)]).is_err());
        assert!(GuestMemory::new(&[(u64::MAX - 0xfff, 0x2000)]).is_err());
    }

    #[test]
    #[should_panic(expected = "outside a window")]
    fn a_window_does_not_reach_past_its_end() {
        let memory = GuestMemory::new(&[(0, 0x1000)]).unwrap();
        memory
            .window(0, 0x10)
            .unwrap()
            .load_u32(0x0e, Ordering::Relaxed);
    }
}
