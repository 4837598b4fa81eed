//! A VM in Cloud Hypervisor's words: the body of `vm.create`, and `config` in the answer to `vm.info`.
//!
//! Every field that Cloud Hypervisor has is here; one whose type is of [`fixed`](super::fixed) can
//! have one value.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::devices::{DiskConfig, FsConfig, GenericVhostUserConfig, NetConfig};
use super::fixed::{
    Absent, Acpi, Bits46, Bits64, CoresOfVm, HostCpu, NoConsole, Off, On, One, Urandom, Zero, list,
};

/// A VM.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct VmConfig {
    pub(super) cpus: CpusConfig,
    pub(super) memory: MemoryConfig,
    pub(super) payload: Option<PayloadConfig>,
    #[serde(deserialize_with = "list")]
    pub(super) disks: Vec<DiskConfig>,
    #[serde(deserialize_with = "list")]
    pub(super) net: Vec<NetConfig>,
    #[serde(deserialize_with = "list")]
    pub(super) fs: Vec<FsConfig>,
    #[serde(deserialize_with = "list")]
    pub(super) generic_vhost_user: Vec<GenericVhostUserConfig>,
    pub(super) serial: SerialConfig,
    pub(super) console: ConsoleConfig,
    pub(super) rng: RngConfig,
    pub(super) debug_console: DebugConsoleConfig,
    pub(super) platform: Option<PlatformConfig>,
    pub(super) rate_limit_groups: Absent,
    pub(super) balloon: Absent,
    pub(super) pmem: Absent,
    pub(super) devices: Absent,
    pub(super) user_devices: Absent,
    pub(super) vdpa: Absent,
    pub(super) vsock: Absent,
    pub(super) numa: Absent,
    pub(super) rtc: Absent,
    pub(super) pci_segments: Absent,
    pub(super) tpm: Absent,
    pub(super) landlock_rules: Absent,
    pub(super) iommu: Off,
    pub(super) watchdog: Off,
    pub(super) pvpanic: Off,
    pub(super) landlock_enable: Off,
}

/// Virtual CPUs, none of which can be added later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CpusConfig {
    /// 1 to 254.
    pub(super) boot_vcpus: u32,
    /// The same number.
    pub(super) max_vcpus: u32,
    pub(super) topology: Option<CpuTopology>,
    pub(super) affinity: Absent,
    pub(super) features: CpuFeatures,
    pub(super) kvm_hyperv: Off,
    pub(super) max_phys_bits: Bits46,
    pub(super) nested: On,
    pub(super) core_scheduling: CoresOfVm,
    pub(super) profile: HostCpu,
}

impl Default for CpusConfig {
    fn default() -> Self {
        Self::of(1)
    }
}

impl CpusConfig {
    pub(super) fn of(count: u32) -> Self {
        Self {
            boot_vcpus: count,
            max_vcpus: count,
            topology: None,
            affinity: Absent,
            features: CpuFeatures::default(),
            kvm_hyperv: Off,
            max_phys_bits: Bits46,
            nested: On,
            core_scheduling: CoresOfVm,
            profile: HostCpu,
        }
    }
}

/// Where the vCPUs are: each a core of one thread, all in one package. It can be said, not chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CpuTopology {
    threads_per_core: u32,
    /// As many as there are vCPUs.
    cores_per_die: u32,
    dies_per_package: u32,
    packages: u32,
}

impl CpuTopology {
    /// That of a guest with so many.
    pub(super) fn of(count: u32) -> Self {
        Self {
            threads_per_core: 1,
            cores_per_die: count,
            dies_per_package: 1,
            packages: 1,
        }
    }
}

/// Nothing of it can be switched.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CpuFeatures {
    pub(super) amx: Off,
}

/// Guest memory, which is always shared with the daemons.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools)] // as there
pub(crate) struct MemoryConfig {
    /// In bytes; at least 32 MiB, in steps of 2 MiB.
    pub(super) size: u64,
    /// From the host's huge pages of 2 MiB.
    pub(super) hugepages: bool,
    pub(super) prefault: bool,
    /// Either is fine: it is.
    pub(super) shared: bool,
    /// Either is fine: the host decides.
    pub(super) thp: bool,
    pub(super) mergeable: Off,
    pub(super) reserve: Off,
    pub(super) hotplug_method: Acpi,
    pub(super) hotplug_size: Absent,
    pub(super) hotplugged_size: Absent,
    pub(super) hugepage_size: Absent,
    pub(super) zones: Absent,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            size: 512 << 20,
            hugepages: false,
            prefault: false,
            shared: true,
            thp: true,
            mergeable: Off,
            reserve: Off,
            hotplug_method: Acpi,
            hotplug_size: Absent,
            hotplugged_size: Absent,
            hugepage_size: Absent,
            zones: Absent,
        }
    }
}

/// What the guest starts from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PayloadConfig {
    /// A bzImage, or an ELF file with a PVH note.
    #[schema(value_type = Option<String>)]
    pub(super) kernel: Option<PathBuf>,
    /// An ELF file with a PVH note, in place of `kernel`.
    #[schema(value_type = Option<String>)]
    pub(super) firmware: Option<PathBuf>,
    pub(super) cmdline: Option<String>,
    #[schema(value_type = Option<String>)]
    pub(super) initramfs: Option<PathBuf>,
    pub(super) igvm: Absent,
    pub(super) host_data: Absent,
    /// Of older clients.
    pub(super) mrconfigid: Absent,
}

/// The entropy device: the guest has its processor's random numbers, and none of these.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RngConfig {
    pub(super) src: Urandom,
    pub(super) id: Absent,
    pub(super) iommu: Off,
    pub(super) pci_segment: Zero,
    pub(super) pci_device_id: Absent,
}

/// Where the bytes of a console go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) enum ConsoleMode {
    /// There is no such console; of the serial port: as `Null`.
    Off,
    /// A pseudo-terminal; `vm.info` says which.
    Pty,
    /// The VMM's standard input and output.
    Tty,
    /// A file that is appended to.
    File,
    /// A Unix socket that people attach to.
    Socket,
    /// Nowhere.
    Null,
}

/// ttyS0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SerialConfig {
    pub(super) mode: ConsoleMode,
    /// With `File`; of a running VM the pseudo-terminal, with `Pty`.
    #[schema(value_type = Option<String>)]
    pub(super) file: Option<PathBuf>,
    /// With `Socket`.
    #[schema(value_type = Option<String>)]
    pub(super) socket: Option<PathBuf>,
    /// Of clients to whom every console is one.
    pub(super) iommu: Off,
}

impl Default for SerialConfig {
    fn default() -> Self {
        Self {
            mode: ConsoleMode::Null,
            file: None,
            socket: None,
            iommu: Off,
        }
    }
}

/// The virtio console, hvc0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ConsoleConfig {
    pub(super) mode: ConsoleMode,
    /// As of the serial port.
    #[schema(value_type = Option<String>)]
    pub(super) file: Option<PathBuf>,
    /// With `Socket`.
    #[schema(value_type = Option<String>)]
    pub(super) socket: Option<PathBuf>,
    pub(super) id: Absent,
    pub(super) iommu: Off,
    pub(super) pci_segment: Zero,
    pub(super) pci_device_id: Absent,
}

impl ConsoleConfig {
    pub(super) fn of(serial: SerialConfig) -> Self {
        Self {
            mode: serial.mode,
            file: serial.file,
            socket: serial.socket,
            id: Absent,
            iommu: Off,
            pci_segment: Zero,
            pci_device_id: Absent,
        }
    }
}

impl Default for ConsoleConfig {
    fn default() -> Self {
        Self::of(SerialConfig {
            mode: ConsoleMode::Tty,
            ..SerialConfig::default()
        })
    }
}

/// There is none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DebugConsoleConfig {
    pub(super) mode: NoConsole,
    pub(super) file: Absent,
    pub(super) iobase: Option<u16>,
}

/// Nothing of it can be chosen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PlatformConfig {
    pub(super) num_pci_segments: One,
    pub(super) iommu_segments: Absent,
    pub(super) iommu_address_width_bits: Bits64,
    #[serde(alias = "serial_number")]
    pub(super) system_serial_number: Absent,
    #[serde(alias = "uuid")]
    pub(super) system_uuid: Absent,
    pub(super) oem_strings: Absent,
    pub(super) system_manufacturer: Absent,
    pub(super) system_product_name: Absent,
    pub(super) system_version: Absent,
    pub(super) system_family: Absent,
    pub(super) system_sku_number: Absent,
    pub(super) chassis_asset_tag: Absent,
    pub(super) tdx: Off,
    pub(super) sev_snp: Off,
    pub(super) iommufd: Off,
    pub(super) vfio_p2p_dma: On,
}
