//! What a VM tells of itself.
//!
//! | file | idea |
//! |---|---|
//! | `info/host.rs` | the KVM and the processor under it |
//! | `info/map.rs` | what is where in guest-physical memory |
//! | `info/queue.rs` | how far a queue's rings are |
//! | `info/counts.rs` | what was counted of a queue |

mod counts;
mod host;
mod map;
mod queue;

use std::path::PathBuf;

use outboard_device::abi::host::{Place, Space};
use outboard_device::counters::Page;
use serde::{Deserialize, Serialize};
use vm_memory::GuestMemoryMmap;

use super::State;
use crate::config::{DeviceConfig, Host, Port, VmConfig};
use crate::frontend::Device;
use crate::kvm::VcpuInfo;
use crate::supervisor::Process;
use crate::transport::{Snapshot, feature_names};
pub use counts::QueueCounts;
pub use host::KvmInfo;
pub(super) use map::Layout;
pub use map::MapInfo;
pub use queue::QueueInfo;

/// A VM at one moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Info {
    /// Its name.
    pub name: String,
    /// `created`, `running`, `paused` or `stopped`.
    pub state: State,
    /// The VMM's process.
    pub pid: u32,
    /// Number of vCPUs.
    pub cpus: u32,
    /// Guest memory in bytes.
    pub memory: u64,
    /// What the guest starts from.
    pub kernel: String,
    /// Which KVM, on which processor.
    pub kvm: KvmInfo,
    /// Every vCPU.
    pub vcpus: Vec<VcpuInfo>,
    /// What is where in guest-physical memory, by rising address.
    pub map: Vec<MapInfo>,
    /// Every virtio device, in slot order.
    pub devices: Vec<DeviceInfo>,
    /// Devices of registers, of plugins.
    pub registers: Vec<RegistersInfo>,
    /// Every process that the VMM has started and that is there.
    pub daemons: Vec<DaemonInfo>,
    /// Consoles that people can attach to.
    pub consoles: Vec<ConsoleInfo>,
}

/// A console at a socket, or on a pseudo-terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleInfo {
    /// `ttyS0` or `console0`.
    pub port: String,
    /// Where it listens, or the pseudo-terminal's device.
    pub path: PathBuf,
    /// It is a pseudo-terminal.
    #[serde(default)]
    pub pty: bool,
}

/// One virtio device of a VM.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// Its name.
    pub id: String,
    /// What it is: `block`, `net`, `fs`, ...
    pub kind: String,
    /// Its PCI address.
    pub bdf: String,
    /// `process`, `vmm` or `socket`.
    pub host: String,
    /// The daemon's program, the plugin's path, or the socket's.
    pub program: String,
    /// The daemon's process, if the VMM started it.
    pub pid: Option<i32>,
    /// `connected`; `cut off` where the daemon is there and what stood behind it, passt, is gone; or
    /// `lost` for good.
    pub backend: String,
    /// Where somebody's daemon listens.
    pub socket: Option<PathBuf>,
    /// The plugin it is of.
    pub plugin: Option<PluginInfo>,
    /// The device has been asked to go, and its guest has not let go of it yet.
    pub leaving: bool,
    /// What its driver is up to: `none`, `starting`, `running`, `needs reset` or `failed`.
    pub driver: String,
    /// The features it offers, by name.
    pub offered: Vec<String>,
    /// Those its driver has taken.
    pub taken: Vec<String>,
    /// Its queues.
    pub queues: Vec<QueueInfo>,
}

/// The plugin of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginInfo {
    /// The shared library.
    pub path: PathBuf,
    /// Which of its devices.
    pub device: String,
    /// What it says it is: its name and its version. `None` of a device that came while the VM ran.
    pub version: Option<String>,
}

/// A device of registers, in the VMM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistersInfo {
    /// Its name.
    pub id: String,
    /// The plugin it is of.
    pub plugin: PluginInfo,
    /// `ports` or `memory`.
    pub space: String,
    /// Its first address.
    pub start: u64,
    /// The first address behind it.
    pub end: u64,
    /// Its interrupt line, if it has one.
    pub line: Option<u32>,
}

/// A process that the VMM has started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonInfo {
    /// Of which device it is: `disk0`, `ttyS0`, or `net0: passt` for what stands behind a daemon.
    pub id: String,
    /// The process.
    pub pid: i32,
}

/// Where people can attach. `ptys` says where a pseudo-terminal is; one that it does not know yet is
/// left out.
pub(super) fn consoles(
    config: &VmConfig,
    ptys: impl Fn(&str) -> Option<PathBuf>,
) -> Vec<ConsoleInfo> {
    let of = |port: &'static str, to: &Port| {
        let path = match to {
            Port::Socket(Some(path)) => path.clone(),
            Port::Socket(None) => config.runtime_dir.join(format!("{port}.sock")),
            Port::Pty => ptys(port)?,
            _ => return None,
        };
        Some(ConsoleInfo {
            port: port.to_owned(),
            path,
            pty: *to == Port::Pty,
        })
    };
    let virtio = config.console.as_ref();
    let all = [
        of("ttyS0", &config.serial),
        virtio.and_then(|to| of("console0", to)),
    ];
    all.into_iter().flatten().collect()
}

/// The PCI address of a slot of bus 0.
pub(super) fn bdf(slot: u8) -> String {
    format!("0000:00:{slot:02x}.0")
}

impl Info {
    /// All but the consoles.
    pub(super) fn new<'a>(
        config: &VmConfig,
        state: State,
        vcpus: Vec<VcpuInfo>,
        mut devices: Vec<DeviceInfo>,
        places: impl Iterator<Item = (&'a str, Place)>,
        daemons: &[Process],
        layout: &Layout,
    ) -> Self {
        for device in &mut devices {
            if let Some(plugin) = plugin(config, &device.id) {
                device.plugin = Some(plugin);
            }
        }
        Self {
            name: config.name.clone(),
            state,
            pid: std::process::id(),
            cpus: config.cpus.count,
            memory: config.memory.size,
            kernel: config.boot.from.to_string(),
            kvm: KvmInfo::of_host(),
            vcpus,
            map: layout.map(&devices),
            devices,
            registers: registers(config, places),
            daemons: daemons.iter().map(DaemonInfo::of).collect(),
            consoles: Vec::new(),
        }
    }
}

/// The plugin that the device of this name is of.
fn plugin(config: &VmConfig, id: &str) -> Option<PluginInfo> {
    let plugin = config.plugins.iter().find(|plugin| plugin.id == id)?;
    Some(PluginInfo {
        path: plugin.path.clone(),
        device: plugin.device.clone().unwrap_or_default(),
        version: plugin.version.clone(),
    })
}

/// Those of plugins that the VM is given; ttyS0 is among the consoles.
fn registers<'a>(
    config: &VmConfig,
    places: impl Iterator<Item = (&'a str, Place)>,
) -> Vec<RegistersInfo> {
    let info = |(id, place): (&str, Place)| {
        Some(RegistersInfo {
            id: id.to_owned(),
            plugin: plugin(config, id)?,
            space: match place.space {
                Space::Ports => "ports",
                Space::Mmio => "memory",
            }
            .to_owned(),
            start: place.base,
            end: place.base.saturating_add(place.len),
            line: place.line,
        })
    };
    places.filter_map(info).collect()
}

impl DaemonInfo {
    fn of(process: &Process) -> Self {
        Self {
            id: process.id().to_owned(),
            pid: process.pid(),
        }
    }
}

impl DeviceInfo {
    pub(super) fn new(config: &DeviceConfig, device: &Device, leaving: bool) -> Self {
        let (host, program) = match &config.host {
            Host::Process { program, .. }
            | Host::Given { program, .. }
            | Host::Backed { program, .. }
            | Host::Foreign { program, .. } => ("process", program.clone()),
            Host::Plugin { path, .. } => ("vmm", path.display().to_string()),
            Host::Socket { path } => ("socket", path.display().to_string()),
        };
        Self {
            id: config.id.clone(),
            kind: config.virtio_id.name(),
            bdf: bdf(config.slot),
            host: host.to_owned(),
            program,
            pid: device.pid(),
            backend: match (device.is_lost(), device.is_cut_off()) {
                (true, _) => "lost",
                (false, true) => "cut off",
                (false, false) => "connected",
            }
            .to_owned(),
            socket: match &config.host {
                Host::Socket { path } => Some(path.clone()),
                Host::Foreign { socket, .. } => socket.clone(),
                _ => None,
            },
            plugin: match &config.host {
                Host::Plugin { path, device, .. } => Some(PluginInfo {
                    path: path.clone(),
                    device: device.clone(),
                    version: None,
                }),
                _ => None,
            },
            leaving,
            driver: "none".to_owned(),
            offered: Vec::new(),
            taken: Vec::new(),
            queues: Vec::new(),
        }
    }

    /// The same, with what its driver has made of it, and what it has counted, if it does.
    pub(super) fn driven(
        self,
        device_id: u32,
        snapshot: &Snapshot,
        ram: &GuestMemoryMmap,
        page: Option<&Page>,
    ) -> Self {
        let queues = snapshot.queues.iter();
        Self {
            driver: snapshot.driver().to_owned(),
            offered: feature_names::of(device_id, snapshot.offered),
            taken: feature_names::of(device_id, snapshot.taken),
            queues: queues
                .map(|queue| QueueInfo::of(queue, ram, page))
                .collect(),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Description;

    #[test]
    fn consoles_are_at_sockets_and_on_pseudo_terminals_that_are_known() {
        let mut vm = Description {
            name: Some("web".into()),
            kernel: Some("k".into()),
            serial: Some("pty".parse().unwrap()),
            console: Some("socket=/here.sock".parse().unwrap()),
            ..Description::default()
        };
        let config = vm.resolve().unwrap();
        let console = |port: &str, path: &str, pty| ConsoleInfo {
            port: port.into(),
            path: path.into(),
            pty,
        };
        let socket = console("console0", "/here.sock", false);
        let known = |port: &str| (port == "ttyS0").then(|| "/dev/pts/3".into());
        let all = [console("ttyS0", "/dev/pts/3", true), socket.clone()];
        assert_eq!(consoles(&config, known), all);
        assert_eq!(consoles(&config, |_| None), [socket]);
    }
}
