//! What a VM tells of itself.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::State;
use crate::config::{DeviceConfig, Host, Port, VmConfig};
use crate::frontend::Device;

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
    /// Which KVM: `kvm_intel`, `kvm_amd`, ...
    pub kvm: String,
    /// Every virtio device, in slot order.
    pub devices: Vec<DeviceInfo>,
    /// Consoles that people can attach to.
    pub consoles: Vec<ConsoleInfo>,
}

/// A console at a socket.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConsoleInfo {
    /// `ttyS0` or `console0`.
    pub port: String,
    /// Where it listens.
    pub path: PathBuf,
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
    /// `connected`, or `lost` for good.
    pub backend: String,
    /// The device has been asked to go, and its guest has not let go of it yet.
    pub leaving: bool,
}

fn consoles(config: &VmConfig) -> Vec<ConsoleInfo> {
    let of = |port: &'static str, to: &Port| {
        let path = match to {
            Port::Socket(Some(path)) => path.clone(),
            Port::Socket(None) => config.runtime_dir.join(format!("{port}.sock")),
            _ => return None,
        };
        let port = port.to_owned();
        Some(ConsoleInfo { port, path })
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
    pub(super) fn new(config: &VmConfig, state: State, devices: Vec<DeviceInfo>) -> Self {
        Self {
            name: config.name.clone(),
            state,
            pid: std::process::id(),
            cpus: config.cpus.count,
            memory: config.memory.size,
            kernel: config.boot.from.to_string(),
            kvm: crate::doctor::kvm_kind().to_owned(),
            devices,
            consoles: consoles(config),
        }
    }
}

impl DeviceInfo {
    pub(super) fn new(config: &DeviceConfig, device: &Device, leaving: bool) -> Self {
        let (host, program) = match &config.host {
            Host::Process { program, .. }
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
            backend: if device.is_lost() {
                "lost"
            } else {
                "connected"
            }
            .to_owned(),
            leaving,
        }
    }
}
