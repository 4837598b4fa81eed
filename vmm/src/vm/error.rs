//! Why a VM could not start or go on.

use std::io;
use std::path::PathBuf;

use crate::arch::x86_64::acpi::AcpiError;
use crate::arch::x86_64::cpuid::CpuidError;
use crate::bus::BusError;
use crate::frontend::ConnectError;
use crate::image::ImageError;
use crate::kvm::KvmError;
use crate::memory::MemoryError;
use crate::pci::PciError;
use crate::supervisor;
use crate::transport::TransportError;

/// Why a VM could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// KVM refused.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// `--cpu` asks for what there is not.
    #[error(transparent)]
    Cpuid(#[from] CpuidError),
    /// No memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The boot files cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The ACPI tables cannot be written.
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    /// A device did not come up.
    #[error(transparent)]
    Device(#[from] ConnectError),
    /// A plugin's device cannot be part of the VM.
    #[error(transparent)]
    Plugin(#[from] crate::plugin::PluginsError),
    /// A daemon could not be spawned.
    #[error(transparent)]
    Supervisor(#[from] supervisor::Error),
    /// A device cannot be shown to the guest.
    #[error("Device '{id}' cannot be put on PCI")]
    Pci {
        /// The device.
        id: String,
        /// Why.
        #[source]
        source: PciError,
    },
    /// A device cannot be shown to the guest.
    #[error("Device '{id}' cannot be made a PCI function")]
    Transport {
        /// The device.
        id: String,
        /// Why.
        #[source]
        source: TransportError,
    },
    /// The PCI root cannot be made.
    #[error("There is no PCI bus")]
    PciRoot(#[source] PciError),
    /// Two fixed devices want the same address: a mistake in the address map.
    #[error("The machine's own devices do not fit together; this is a bug, please report it")]
    Layout(#[from] BusError),
    /// The VM's own folder cannot be made.
    #[error("The VM's folder {} cannot be made; name the sockets (--serial socket=PATH), or set XDG_RUNTIME_DIR", path.display())]
    RuntimeDir {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A VMM cannot be reached where it was to be.
    #[error("Cannot listen on {}; {remedy}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// What the user can do.
        remedy: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The folder that the logs were to be kept in.
    #[error("Logs cannot be kept in {}; choose another folder with --log-dir DIR, or --log-dir off", path.display())]
    Logs {
        /// The VM's folder in it.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another VM has this name.
    #[error("A VM called '{name}' runs already and has its sockets in {}; give this one a name of its own, as in --name {name}2", path.display())]
    NameInUse {
        /// The name.
        name: String,
        /// The folder of both.
        path: PathBuf,
    },
    /// Something of the host's failed.
    #[error("{what} failed")]
    Host {
        /// What failed.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Devices did not let go of guest memory at a reset.
    #[error("Devices still use guest memory long after the reset; the VM cannot be started again")]
    NotReset,
}
