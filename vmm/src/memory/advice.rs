//! What the kernel is told of guest memory's mappings.
#![allow(unsafe_code)] // madvise

use nix::errno::Errno;
use vm_memory::mmap::MmapRegion;

use super::{MemoryError, pieces};

/// A core dump of ours is for looking at the VMM, and the guest's secrets are not to be in it.
pub(super) fn keep_out_of_dumps(mapping: &MmapRegion) {
    if let Err(error) = advise(mapping, 0, mapping.size() as u64, libc::MADV_DONTDUMP) {
        tracing::debug!(%error, "core dumps will have guest memory in them");
    }
}

/// Zeroes every page and maps it here, in pieces.
pub(super) fn populate(
    mapping: &MmapRegion,
    cancelled: &dyn Fn() -> bool,
) -> Result<(), MemoryError> {
    let size = mapping.size() as u64;
    for (offset, length) in pieces(size) {
        if cancelled() {
            return Err(MemoryError::Cancelled);
        }
        match advise(mapping, offset, length, libc::MADV_POPULATE_WRITE) {
            Ok(()) => {}
            // Before Linux 5.14. The pages are there, and are mapped as they are used.
            Err(Errno::EINVAL) => return Ok(()),
            Err(error) => return Err(MemoryError::Prefault { size, error }),
        }
    }
    Ok(())
}

/// Advice that changes no content, for a part of the mapping.
fn advise(mapping: &MmapRegion, offset: u64, length: u64, advice: i32) -> Result<(), Errno> {
    let start = mapping.as_ptr().wrapping_add(offset as usize);
    // SAFETY: the range is within a mapping that lives as long as the borrow (the kernel refuses
    // one that is not), and neither kind of advice used here changes what is in it.
    let result = unsafe { libc::madvise(start.cast(), length as usize, advice) };
    Errno::result(result).map(drop)
}
