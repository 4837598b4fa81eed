//! The VM description: what a person writes, and what the VMM builds from it.
//!
//! Flags and the TOML file fill the same [`Description`]; [`Description::resolve`] checks it
//! once, fills every default, and yields a [`VmConfig`], the only form the rest of the VMM sees.

mod description;
mod devices;
mod edit;
mod foreign;
mod handed;
mod hosts;
mod keyvals;
mod logs;
mod mac;
mod net;
mod new_device;
mod plugin;
mod port;
#[cfg(test)]
mod reference;
mod resolve;
mod shorthand;
mod slots;
mod subnet;
mod twice;
mod values;
mod virtio_id;

pub use description::{Cpus, Description, Disk, Net, Ram, RawDevice};
pub use devices::{Behind, DeviceConfig, Host, Listen, OnExit};
pub(crate) use foreign::FD;
pub use handed::Handed;
pub(crate) use hosts::console_args;
pub use keyvals::from_keyvals;
pub(crate) use keyvals::of_keys;
pub use mac::Mac;
pub use new_device::{NewConfig, NewDevice, Taken};
pub use plugin::{PluginConfig, PluginDevice, PluginHost};
pub use port::Port;
pub use resolve::check_name;
pub(crate) use resolve::{DEFAULT_NAME, is_name, runtime_base};
pub use subnet::Subnet;
pub use values::{OnOff, Size};
pub use virtio_id::VirtioId;

use std::path::PathBuf;

/// A virtual machine, checked and complete.
#[derive(Debug, Clone)]
pub struct VmConfig {
    /// The VM as described, its defaults filled in.
    pub description: Box<Description>,
    /// Letters, digits, `-`, `_` and `.`; 1 to 64 characters.
    pub name: String,
    /// The virtual CPUs.
    pub cpus: CpuConfig,
    /// Guest memory.
    pub memory: MemoryConfig,
    /// What the guest starts from.
    pub boot: BootConfig,
    /// Where the bytes of ttyS0 go.
    pub serial: Port,
    /// Where the bytes of the virtio console go; `None` leaves the device out.
    pub console: Option<Port>,
    /// Every virtio device, the console included, in slot order; those of plugins are in `plugins`.
    pub devices: Vec<DeviceConfig>,
    /// Devices of plugins.
    pub plugins: Vec<PluginConfig>,
    /// Sockets of this VM live here, mode 0700; removed at the end.
    pub runtime_dir: PathBuf,
    /// Where what it and its daemons say is kept, also after its end; `None` keeps nothing.
    pub logs: Option<LogConfig>,
    /// A reboot ends the VMM instead.
    pub no_reboot: bool,
    /// Notifications exit to the VMM instead of going through KVM: for tests that must fail.
    pub no_ioeventfd: bool,
}

/// Where logs are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// The VM's own folder.
    pub folder: PathBuf,
    /// Somebody has asked for this place; else it is the usual one, which need not be usable.
    pub asked: bool,
}

/// The virtual CPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuConfig {
    /// 1 to [`CpuConfig::MAX`]; the host may allow fewer.
    pub count: u32,
    /// Features switched by name, in the order given.
    pub features: Vec<FeatureToggle>,
}

impl CpuConfig {
    /// The most vCPUs that 8-bit APIC ids can name (0xFF is the broadcast id, and one is left
    /// for the IOAPIC).
    pub const MAX: u32 = 254;
}

/// One `+name` or `-name` of `--cpu host,...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureToggle {
    /// As QEMU spells it: `smap`, `xsave`, `avx512f`.
    pub name: String,
    /// `true` demands the feature, `false` hides it.
    pub on: bool,
}

/// Guest memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryConfig {
    /// Bytes; at least 32 MiB and a multiple of 2 MiB.
    pub size: u64,
    /// Back the memory with the host's huge pages.
    pub hugepages: bool,
    /// Touch every page before the guest starts.
    pub prefault: bool,
}

/// What the guest starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootConfig {
    /// Where the kernel is.
    pub from: BootFrom,
    /// The initial RAM disk; of an ISO image the entry's own when absent.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line; when absent, empty, or that of the ISO image's entry.
    pub cmdline: Option<String>,
    /// What goes behind the command line, whoever gave it.
    pub append: Option<String>,
}

/// Where the kernel is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootFrom {
    /// A file: a bzImage or an ELF image.
    Kernel(PathBuf),
    /// On an ISO image, by its boot menu.
    Iso {
        /// The image.
        image: PathBuf,
        /// The menu's entry, by name, title or number; its default when absent.
        entry: Option<String>,
    },
}

impl std::fmt::Display for BootFrom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kernel(path) => write!(f, "{}", path.display()),
            Self::Iso { image, entry: None } => write!(f, "{}", image.display()),
            Self::Iso {
                image,
                entry: Some(entry),
            } => write!(f, "{} ({entry})", image.display()),
        }
    }
}
