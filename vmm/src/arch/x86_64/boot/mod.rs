//! From the bytes of a kernel to a machine about to run its first instruction.
//!
//! One protocol a file: `bzimage` by its 64-bit or 32-bit entry
//! (Documentation/arch/x86/boot.rst), `pvh` for an ELF image with Xen's PVH note. [`load`] looks at the bytes and picks one, fills guest
//! memory, and returns the [`EntryState`] of the first vCPU. It keeps nothing: at a reboot it is
//! called again, on memory the last kernel has scribbled over.

mod bzimage;
mod elf;
mod entry;
mod error;
mod initrd;
mod memory_map;
mod paging;
mod pvh;
mod zero_page;

use std::io::{Read, Seek, SeekFrom};

use vm_memory::{GuestMemoryMmap, ReadVolatile};

pub use entry::{EntryMode, EntryState};
pub use error::BootError;
pub use memory_map::{MapEntry, MapKind, memory_map};

/// A kernel or initrd as [`load`] reads it: an open file, or bytes in memory.
pub trait Image: Read + Seek + ReadVolatile {}
impl<T: Read + Seek + ReadVolatile> Image for T {}

/// What to boot: the images, read from their start at every call of [`load`].
pub struct Boot<'a, I> {
    /// The kernel: a bzImage or an ELF image.
    pub kernel: &'a mut I,
    /// The initial RAM disk, if any; an empty one counts as none.
    pub initrd: Option<&'a mut I>,
    /// The kernel command line, without a terminating zero. May be empty.
    pub cmdline: &'a str,
    /// Guest-physical address of the RSDP (see [`acpi`](super::acpi)).
    pub rsdp: u64,
}

/// Puts the kernel, the initrd and what the kernel must be told into `ram`, and returns how the
/// first vCPU enters.
///
/// Called at start and at every reboot, with all vCPUs stopped. On an error, `ram` holds whatever
/// was written before it.
pub fn load<I: Image>(ram: &GuestMemoryMmap, boot: Boot<'_, I>) -> Result<EntryState, BootError> {
    let mut magic = [0u8; 4];
    let size = image_size(boot.kernel)?;
    if size >= 4 {
        boot.kernel
            .read_exact(&mut magic)
            .map_err(BootError::ReadKernel)?;
    }
    if magic == elf::MAGIC {
        pvh::load(ram, boot, size)
    } else {
        bzimage::load(ram, boot, size)
    }
}

/// Length of an image in bytes; leaves the position at its start.
fn image_size<I: Image>(image: &mut I) -> Result<u64, BootError> {
    let size = image
        .seek(SeekFrom::End(0))
        .map_err(BootError::ReadKernel)?;
    image.rewind().map_err(BootError::ReadKernel)?;
    Ok(size)
}
