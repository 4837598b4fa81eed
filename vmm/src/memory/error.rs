//! Why guest memory cannot be made.

use std::io;

use vm_memory::GuestRegionCollectionError;
use vm_memory::mmap::MmapRegionError;

use super::host;

/// Bytes as mebibytes, for messages.
struct Mib(u64);

impl std::fmt::Display for Mib {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} MiB", self.0 >> 20)
    }
}

/// Why guest memory cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// `memfd_create` failed.
    #[error(
        "guest memory needs memfd_create, which failed; check the limit of open files (ulimit -n)"
    )]
    Create(#[source] nix::Error),
    /// The file cannot have the size.
    #[error("guest memory of {} cannot be made; ask for less with --memory, or raise ulimit -f", Mib(*.size))]
    Resize {
        /// Bytes asked for.
        size: u64,
        /// What the kernel said.
        #[source]
        error: io::Error,
    },
    /// The seals were refused.
    #[error("the guest memory file cannot be sealed; this needs Linux 4.16 or later")]
    Seal(#[source] nix::Error),
    /// `mmap` failed.
    #[error("guest memory of {} cannot be mapped; ask for less with --memory, or raise ulimit -v", Mib(*.size))]
    Map {
        /// Bytes asked for.
        size: u64,
        /// What the kernel said.
        #[source]
        error: MmapRegionError,
    },
    /// Address arithmetic fails.
    #[error("guest memory of {} goes past the end of the address space; ask for less with --memory", Mib(*.size))]
    TooLarge {
        /// Bytes asked for.
        size: u64,
    },
    /// KVM's own tables would take much of the host.
    #[error(
        "guest memory of {} takes {} of the host for KVM's tables alone, and the host has {} left; ask for less with --memory",
        Mib(*.size), Mib(*.tables), Mib(*.available)
    )]
    Tables {
        /// Bytes asked for.
        size: u64,
        /// Bytes of KVM's own.
        tables: u64,
        /// Bytes the host has.
        available: u64,
    },
    /// The host has less than `prefault=on` would take.
    #[error(
        "prefault=on takes {} at once and the host has {} left; ask for less with --memory or leave prefault off",
        Mib(*.size), Mib(*.available)
    )]
    NotAvailable {
        /// Bytes asked for.
        size: u64,
        /// Bytes the host has.
        available: u64,
    },
    /// `fallocate` failed.
    #[error("prefault=on could not take {} from the host; ask for less with --memory or leave prefault off", Mib(*.size))]
    Prefault {
        /// Bytes asked for.
        size: u64,
        /// What the kernel said.
        #[source]
        error: nix::Error,
    },
    /// Whoever wanted it has changed their mind.
    #[error("guest memory is no longer wanted")]
    Cancelled,
    /// The processors' addresses end below.
    #[error(
        "guest memory of {} goes past what the guest's {bits} address bits reach; ask for at most {} with --memory",
        Mib(*.size), Mib(*.most)
    )]
    OutOfReach {
        /// Bytes asked for.
        size: u64,
        /// Physical address bits.
        bits: u8,
        /// Bytes that they reach.
        most: u64,
    },
    /// Not enough huge pages.
    #[error(
        "hugepages=on needs {wanted} free huge pages of 2 MiB and the host has {free}; \
         reserve them with: sysctl vm.nr_hugepages={wanted} (or leave hugepages off)"
    )]
    NoHugepages {
        /// Pages needed.
        wanted: u64,
        /// Pages free.
        free: u64,
    },
    /// The regions overlap: a mistake in the address map.
    #[error("guest memory regions do not fit together; this is a bug in the address map")]
    Layout(#[source] GuestRegionCollectionError),
}

impl MemoryError {
    pub(super) fn no_hugepages(size: u64) -> Self {
        Self::NoHugepages {
            wanted: size.div_ceil(2 << 20),
            free: host::free_hugepages(),
        }
    }
}
