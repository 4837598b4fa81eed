//! Virtio devices: a frontend each, and a PCI function that shows it to the guest.

use std::sync::Arc;

use super::VmError;
use super::events::{Event, Events};
use super::terminal::Terminal;
use crate::config::{DeviceConfig, Port, VmConfig};
use crate::frontend::{Deadlines, Device, Lost, Owner, Pending, Spec};
use crate::memory::GuestRam;
use crate::pci::{KvmWiring, PciRoot};
use crate::supervisor::Supervisor;
use crate::transport::{VirtioPci, in_ram};

/// Devices on their way to their backends, all at once.
pub(super) struct Connecting(Vec<(DeviceConfig, Pending)>);

impl Connecting {
    /// Begins with every device.
    pub(super) fn begin(
        config: &VmConfig,
        ram: &GuestRam,
        supervisor: &Arc<Supervisor>,
        events: &Events,
        terminal: &Terminal,
    ) -> Result<Self, VmError> {
        let begin = |device: &DeviceConfig| {
            let on_terminal = device.id == "console0" && config.console == Some(Port::Tty);
            let spec = Spec {
                config: device.clone(),
                terminal: on_terminal,
                deadlines: Deadlines::default(),
            };
            let owner = Arc::new(DeviceOwner {
                events: events.clone(),
                terminal: on_terminal.then(|| terminal.clone()),
            });
            let pending = Device::begin(spec, ram.regions(), supervisor, owner)?;
            Ok((device.clone(), pending))
        };
        config
            .devices
            .iter()
            .map(begin)
            .collect::<Result<_, VmError>>()
            .map(Self)
    }

    /// Waits for every device, then plugs each into its slot. Gives up when `cancelled` says so.
    pub(super) fn plug(
        self,
        cancelled: &dyn Fn() -> bool,
        pci: &PciRoot,
        wiring: &Arc<KvmWiring>,
        ram: &GuestRam,
    ) -> Result<Vec<Arc<Device>>, VmError> {
        let mut devices = Vec::new();
        for (config, pending) in self.0 {
            let device = pending.wait_unless(cancelled)?;
            devices.push(device.clone());
            let function =
                VirtioPci::new(device, wiring.clone(), in_ram(ram.mmap())).map_err(|source| {
                    VmError::Transport {
                        id: config.id.clone(),
                        source,
                    }
                })?;
            pci.add(config.slot, function)
                .map_err(|source| VmError::Pci {
                    id: config.id,
                    source,
                })?;
        }
        Ok(devices)
    }
}

/// Who hears that a device is lost.
struct DeviceOwner {
    events: Events,
    /// The terminal, for the device whose daemon owns it.
    terminal: Option<Terminal>,
}

/// A device that may be lost is only said to be, the others end the VM.
impl Owner for DeviceOwner {
    fn device_lost(&self, lost: &Lost) {
        if let Some(terminal) = &self.terminal {
            terminal.restore();
        }
        if lost.id == "console0" && lost.code == Some(super::serial::QUIT) {
            self.events.post(Event::Quit);
        } else if lost.stop {
            self.events.post(Event::DeviceLost(lost.clone()));
        } else {
            tracing::warn!(
                device = lost.id,
                "The device has lost its backend; the VM goes on without it: {}",
                lost.reason
            );
        }
    }
}
