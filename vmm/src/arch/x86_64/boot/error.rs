//! Why a kernel cannot be booted, in words for the person who gave it.

use std::io;

use thiserror::Error;
use vm_memory::GuestMemoryError;

/// Why [`load`](super::load) failed. The caller adds which file was meant.
#[derive(Debug, Error)]
pub enum BootError {
    /// Reading the kernel image failed.
    #[error("Cannot read the kernel image")]
    ReadKernel(#[source] io::Error),
    /// Reading the initial RAM disk failed.
    #[error("Cannot read the initrd")]
    ReadInitrd(#[source] io::Error),
    /// The bytes are no kernel that any protocol here knows.
    #[error(
        "Not a kernel: the file {found}; give the vmlinuz (bzImage) or vmlinux (ELF) of an x86-64 \
         Linux, or another ELF kernel with a PVH note"
    )]
    NotAKernel {
        /// What the bytes look like.
        found: String,
    },
    /// The image ends before what its headers promise.
    #[error(
        "The kernel image is truncated: its headers speak of {expected} bytes, the file has \
         {actual}; copy or download it again"
    )]
    Truncated {
        /// Length that the headers ask for.
        expected: u64,
        /// Length there is.
        actual: u64,
    },
    /// A kernel for another kind of CPU.
    #[error("The kernel is built for {found}; this machine is x86-64 and needs an x86-64 kernel")]
    OtherArchitecture {
        /// The architecture it is built for.
        found: String,
    },
    /// A bzImage of a protocol that nothing has been built with since 2005.
    #[error(
        "The kernel speaks version {}.{:02} of the boot protocol, and 2.04 (Linux 2.6.14) is the \
         oldest that can be booted; give a newer kernel",
        version >> 8,
        version & 0xff
    )]
    TooOld {
        /// The header's `version`.
        version: u16,
    },
    /// A 32-bit ELF image.
    #[error(
        "The kernel is a 32-bit ELF image, which cannot be booted; give the same kernel's bzImage \
         (vmlinuz)"
    )]
    Elf32,
    /// An ELF image without an entry that could be used.
    #[error(
        "The ELF kernel has no entry to boot by: no PVH note (XEN_ELFNOTE_PHYS32_ENTRY, \
         CONFIG_PVH in Linux), and its entry address {entry:#x} lies in none of its segments"
    )]
    NoEntry {
        /// `e_entry`.
        entry: u64,
    },
    /// The headers contradict themselves.
    #[error("The kernel image is damaged: {0}")]
    Damaged(&'static str),
    /// The kernel does not fit into RAM.
    #[error(
        "The kernel needs memory from {start:#x} to {end:#x}, and the machine's RAM there ends at \
         {ram_end:#x}; give it more memory (--memory)"
    )]
    KernelTooLarge {
        /// Load address.
        start: u64,
        /// End of what it needs to start.
        end: u64,
        /// End of the RAM it could use.
        ram_end: u64,
    },
    /// A segment would overwrite what the VMM puts there, or lies in no RAM.
    #[error(
        "The kernel wants to be loaded at {0:#x}, below the first MiB's end, where boot \
         structures are; link it at 0x100000 or above"
    )]
    LoadAddress(u64),
    /// The initial RAM disk does not fit above the kernel.
    #[error(
        "Its {size} bytes do not fit: {available} bytes are free above the kernel; \
         give the machine more memory (--memory) or a smaller initrd"
    )]
    InitrdTooLarge {
        /// Its length.
        size: u64,
        /// The room between the kernel's end and the end of usable RAM.
        available: u64,
    },
    /// The command line is longer than the kernel takes.
    #[error("The kernel command line has {length} bytes, and this kernel takes at most {max}")]
    CmdlineTooLong {
        /// Its length in bytes.
        length: usize,
        /// The most there may be.
        max: usize,
    },
    /// The command line holds a zero byte, where the kernel would stop reading.
    #[error("The kernel command line holds a zero byte; remove it")]
    CmdlineZero,
    /// The machine's RAM does not reach where boot structures go.
    #[error("Cannot copy {what} into guest memory")]
    Write {
        /// What was to be written.
        what: &'static str,
        /// Why not.
        #[source]
        source: GuestMemoryError,
    },
}

impl BootError {
    /// For `map_err`: writing `what` failed.
    pub(super) fn write(what: &'static str) -> impl FnOnce(GuestMemoryError) -> Self {
        move |source| Self::Write { what, source }
    }
}
