//! Guest memory: one sealed memfd a region, mapped here and shared with every backend.
//!
//! The file is sealed against growing, shrinking and further seals: a backend that holds it can
//! never make our mapping fault by truncating it. It is not sealed against writing, which would
//! make the backend's own mapping fail.

mod advice;
mod error;
mod host;

use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use vm_memory::mmap::{MmapRegion, MmapRegionError};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap};

pub use error::MemoryError;

use crate::arch::x86_64::layout;
use crate::config::MemoryConfig;

/// The name that a region's file has in `/proc/PID/maps`.
const NAME: &str = "outboard-ram";

/// The memory of one VM. Cheap to share: hand out `Arc<GuestRam>` or [`GuestRam::mmap`].
#[derive(Debug)]
pub struct GuestRam {
    mmap: Arc<GuestMemoryMmap>,
    regions: Vec<RamRegion>,
}

/// One region, as KVM and the vhost-user memory table describe it.
#[derive(Debug, Clone)]
pub struct RamRegion {
    /// Guest-physical address of its first byte.
    pub guest_addr: u64,
    /// Length in bytes; a multiple of the page size.
    pub size: u64,
    /// Where it is mapped in this process (vhost-user's "user address").
    pub host_addr: u64,
    /// The memfd. Close-on-exec.
    pub fd: Arc<File>,
    /// Where in the memfd it begins; 0 for all regions made here.
    pub offset: u64,
}

impl GuestRam {
    /// Makes the memory: one region from 0, and one from 4 GiB for what does not fit below the
    /// hole. All zero.
    ///
    /// # Errors
    /// The host cannot give this much, or not as huge pages; the text says what it has.
    pub fn new(config: &MemoryConfig) -> Result<Self, MemoryError> {
        Self::unless(&|| false, config)
    }

    /// The same, but gives up soon after `cancelled` says so: to take all pages takes its time.
    ///
    /// # Errors
    /// As for `new`, or [`MemoryError::Cancelled`].
    pub fn unless(
        cancelled: &dyn Fn() -> bool,
        config: &MemoryConfig,
    ) -> Result<Self, MemoryError> {
        if config.prefault && !config.hugepages {
            enough(config.size)?;
        }
        room_for_tables(config.size)?;
        let (low, high) = layout::ram_ranges(config.size);
        let mappings = std::iter::once(low)
            .chain(high)
            .map(|range| map(&range, config, cancelled))
            .collect::<Result<Vec<_>, _>>()?;
        let regions = mappings.iter().map(RamRegion::of).collect();
        let mmap = GuestMemoryMmap::from_regions(mappings).map_err(MemoryError::Layout)?;
        Ok(Self {
            mmap: Arc::new(mmap),
            regions,
        })
    }

    /// For reading and writing guest memory, with every access checked.
    pub fn mmap(&self) -> &Arc<GuestMemoryMmap> {
        &self.mmap
    }

    /// The regions in ascending order: KVM's slots, and what `SET_MEM_TABLE` tells a backend.
    pub fn regions(&self) -> &[RamRegion] {
        &self.regions
    }
}

impl RamRegion {
    fn of(mapping: &GuestRegionMmap) -> Self {
        use vm_memory::GuestMemoryRegion;
        // `map` gives every mapping a file.
        let file = mapping.file_offset().map(|at| at.arc().clone());
        Self {
            guest_addr: mapping.start_addr().0,
            size: mapping.len(),
            host_addr: mapping.as_ptr() as u64,
            fd: file.unwrap_or_else(|| unreachable!("guest memory is always backed by a memfd")),
            offset: 0,
        }
    }
}

/// Asks whether processors with `bits` physical address bits reach all of `size` bytes.
///
/// # Errors
/// They do not; the text says how many bits there are and what they reach.
pub fn reached_by(bits: u8, size: u64) -> Result<(), MemoryError> {
    let limit = 1u64.checked_shl(bits.into()).unwrap_or(u64::MAX);
    let (low, high) = layout::ram_ranges(size);
    let end = high.map_or(low.end, |high| high.end);
    if end <= limit {
        return Ok(());
    }
    let hole = layout::HIGH_RAM_START - layout::LOW_RAM_END;
    Err(MemoryError::OutOfReach {
        size,
        bits,
        most: limit.saturating_sub(hole),
    })
}

/// KVM keeps 8 bytes of its own for each page of 4 KiB, and takes its time over them.
fn room_for_tables(size: u64) -> Result<(), MemoryError> {
    let tables = size / 4096 * 8;
    match host::available_memory() {
        Some(available) if tables > available / 4 => Err(MemoryError::Tables {
            size,
            tables,
            available,
        }),
        _ => Ok(()),
    }
}

/// Makes one sealed memfd and maps it.
fn map(
    range: &Range<u64>,
    config: &MemoryConfig,
    cancelled: &dyn Fn() -> bool,
) -> Result<GuestRegionMmap, MemoryError> {
    let size = range.end - range.start;
    let file = memfd(size, config)?;
    if config.prefault {
        prefault(&file, size, config, cancelled)?;
    }
    // Huge pages are reserved by mmap, so that a lack of them is an error here and not a SIGBUS
    // later: no MAP_NORESERVE for them.
    let mut flags = libc::MAP_SHARED;
    flags |= if config.hugepages {
        0
    } else {
        libc::MAP_NORESERVE
    };
    let mapping = MmapRegion::build(
        Some(FileOffset::new(file, 0)),
        size as usize,
        libc::PROT_READ | libc::PROT_WRITE,
        flags,
    )
    .map_err(|error| match error {
        MmapRegionError::Mmap(_) if config.hugepages => MemoryError::no_hugepages(size),
        error => MemoryError::Map { size, error },
    })?;
    advice::keep_out_of_dumps(&mapping);
    if config.prefault {
        advice::populate(&mapping, cancelled)?;
    }
    GuestRegionMmap::new(mapping, GuestAddress(range.start)).ok_or(MemoryError::TooLarge { size })
}

fn memfd(size: u64, config: &MemoryConfig) -> Result<File, MemoryError> {
    let mut flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    if config.hugepages {
        flags |= MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB;
    }
    let fd: OwnedFd = memfd_create(NAME, flags).map_err(|error| {
        if config.hugepages {
            MemoryError::no_hugepages(size)
        } else {
            MemoryError::Create(error)
        }
    })?;
    let file = File::from(fd);
    file.set_len(size)
        .map_err(|error| MemoryError::Resize { size, error })?;
    let seals = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).map_err(MemoryError::Seal)?;
    Ok(file)
}

/// Asks whether the host has `size` bytes left. Without this look ahead the kernel would find out by
/// killing somebody.
fn enough(size: u64) -> Result<(), MemoryError> {
    match host::available_memory() {
        Some(available) if available < size => Err(MemoryError::NotAvailable { size, available }),
        _ => Ok(()),
    }
}

/// What is taken from the host between two looks at whether it is still wanted.
const PIECE: u64 = 64 << 20;

/// Takes every page from the host now. Sealed files may still be allocated within their size.
fn prefault(
    file: &File,
    size: u64,
    config: &MemoryConfig,
    cancelled: &dyn Fn() -> bool,
) -> Result<(), MemoryError> {
    for (offset, length) in pieces(size) {
        if cancelled() {
            return Err(MemoryError::Cancelled);
        }
        let too_large = |_| MemoryError::TooLarge { size };
        let offset = i64::try_from(offset).map_err(too_large)?;
        let length = i64::try_from(length).map_err(too_large)?;
        fallocate(file, FallocateFlags::empty(), offset, length).map_err(|error| {
            tracing::debug!(fd = file.as_raw_fd(), %error, "fallocate of guest memory");
            if config.hugepages {
                MemoryError::no_hugepages(size)
            } else {
                MemoryError::Prefault { size, error }
            }
        })?;
    }
    Ok(())
}

/// Offsets and lengths of at most [`PIECE`] bytes, of `size` in all.
fn pieces(size: u64) -> impl Iterator<Item = (u64, u64)> {
    let offsets = (0..size).step_by(PIECE as usize);
    offsets.map(move |offset| (offset, PIECE.min(size - offset)))
}

#[cfg(test)]
mod tests {
    use vm_memory::Bytes;

    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn plain(size: u64) -> MemoryConfig {
        MemoryConfig {
            size,
            hugepages: false,
            prefault: false,
        }
    }

    #[test]
    fn small_memory_is_one_region_from_zero() {
        let ram = GuestRam::new(&plain(32 * MIB)).unwrap();
        let [region] = ram.regions() else {
            panic!("{:?}", ram.regions())
        };
        assert_eq!(
            (region.guest_addr, region.size, region.offset),
            (0, 32 * MIB, 0)
        );
        assert_eq!(region.fd.metadata().unwrap().len(), 32 * MIB);
    }

    #[test]
    fn large_memory_leaves_the_hole_free() {
        let ram = GuestRam::new(&plain(5 * GIB)).unwrap();
        let [low, high] = ram.regions() else {
            panic!("{:?}", ram.regions())
        };
        assert_eq!((low.guest_addr, low.size), (0, 3 * GIB));
        assert_eq!((high.guest_addr, high.size), (4 * GIB, 2 * GIB));
        let end = GuestAddress(6 * GIB - 8);
        ram.mmap()
            .write_obj(0x1122_3344_5566_7788_u64, end)
            .unwrap();
        assert_eq!(
            ram.mmap().read_obj::<u64>(end).unwrap(),
            0x1122_3344_5566_7788
        );
        assert!(ram.mmap().write_obj(1u8, GuestAddress(3 * GIB)).is_err());
        assert!(ram.mmap().write_obj(1u8, GuestAddress(6 * GIB)).is_err());
    }

    #[test]
    fn the_file_is_the_memory_and_cannot_change_its_size() {
        use std::os::unix::fs::FileExt;
        let ram = GuestRam::new(&plain(32 * MIB)).unwrap();
        ram.mmap()
            .write_slice(b"outboard", GuestAddress(0x1234))
            .unwrap();
        let file = &ram.regions()[0].fd;
        let mut seen = [0; 8];
        file.read_exact_at(&mut seen, 0x1234).unwrap();
        assert_eq!(&seen, b"outboard");
        assert!(
            file.set_len(MIB).is_err(),
            "a backend must not be able to truncate"
        );
        assert!(file.set_len(64 * MIB).is_err());
        let seals = fcntl(&**file, FcntlArg::F_GET_SEALS).unwrap();
        let want = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
        assert_eq!(SealFlag::from_bits_retain(seals), want, "and no write seal");
    }

    #[test]
    fn prefault_takes_the_pages() {
        use std::os::unix::fs::MetadataExt;
        let lazy = GuestRam::new(&plain(32 * MIB)).unwrap();
        assert_eq!(lazy.regions()[0].fd.metadata().unwrap().blocks(), 0);
        let eager = GuestRam::new(&MemoryConfig {
            prefault: true,
            ..plain(32 * MIB)
        })
        .unwrap();
        assert_eq!(
            eager.regions()[0].fd.metadata().unwrap().blocks() * 512,
            32 * MIB
        );
    }

    #[test]
    fn prefault_stops_when_it_is_no_longer_wanted() {
        let config = MemoryConfig {
            prefault: true,
            ..plain(256 * MIB)
        };
        // Four pieces are allocated, and then populated.
        for wanted in [0, 2, 6] {
            let asked = std::cell::Cell::new(0);
            let cancelled = || {
                asked.set(asked.get() + 1);
                asked.get() > wanted
            };
            let refused = GuestRam::unless(&cancelled, &config).unwrap_err();
            assert!(matches!(refused, MemoryError::Cancelled), "{refused}");
            assert_eq!(asked.get(), wanted + 1);
        }
        assert!(GuestRam::unless(&|| true, &plain(32 * MIB)).is_ok());
    }

    #[test]
    fn a_core_dump_has_no_guest_memory() {
        let ram = GuestRam::new(&plain(32 * MIB)).unwrap();
        let start = format!("{:x}-", ram.regions()[0].host_addr);
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let ours = maps.split_once(&start).unwrap().1;
        let flags = ours.lines().find(|line| line.starts_with("VmFlags:"));
        assert!(flags.unwrap().contains(" dd"), "{flags:?}");
    }

    #[test]
    fn what_no_address_reaches_is_refused() {
        assert!(reached_by(36, 63 * GIB).is_ok());
        assert!(reached_by(52, 2 << 40).is_ok());
        let refused = reached_by(36, 64 * GIB).unwrap_err().to_string();
        assert!(
            refused.contains("36 address bits") && refused.contains("64512 MiB"),
            "{refused}"
        );
    }

    #[test]
    fn more_than_the_host_has_is_refused_before_the_first_page() {
        let config = MemoryConfig {
            prefault: true,
            ..plain(2 << 40)
        };
        let refused = GuestRam::new(&config).unwrap_err();
        assert!(
            matches!(refused, MemoryError::NotAvailable { .. }),
            "{refused}"
        );
        assert!(refused.to_string().contains("--memory"), "{refused}");
    }

    #[test]
    fn a_lack_of_huge_pages_is_said_with_what_there_is() {
        let config = MemoryConfig {
            hugepages: true,
            ..plain(1 << 40)
        };
        let refused = GuestRam::new(&config).unwrap_err().to_string();
        assert!(
            refused.contains("huge pages") && refused.contains("nr_hugepages"),
            "{refused}"
        );
    }
}
