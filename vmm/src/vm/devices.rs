//! Virtio devices: a frontend each, and a PCI function that shows it to the guest.

use std::sync::Arc;

use super::VmError;
use super::events::Events;
use crate::config::{DeviceConfig, Port, VmConfig};
use crate::frontend::{Deadlines, Device, Pending, Spec};
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
    ) -> Result<Self, VmError> {
        let begin = |device: &DeviceConfig| {
            let spec = Spec {
                config: device.clone(),
                terminal: device.id == "console0" && config.console == Some(Port::Tty),
                deadlines: Deadlines::default(),
            };
            let owner = Arc::new(events.clone());
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
