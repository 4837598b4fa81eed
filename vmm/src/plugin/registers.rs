//! Plugins' devices of registers, on the machine's buses.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use outboard_device::abi::host::{GuestMemory, Place, PluginRegisters, Space, Wiring};
use outboard_device::register::{InterruptLine, RegisterDevice};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::settle::{PluginsError, RegistersConfig};
use crate::arch::x86_64::layout;
use crate::bus::Bus;

/// Interrupt lines that the chipset uses, or that are none of a device: the timer's, the cascade's, the
/// clock's, and ACPI's.
const TAKEN: [u32; 4] = [0, 2, 8, layout::IRQ_SCI];

/// The devices. Dropped, they leave the buses and are destroyed.
#[derive(Default)]
pub struct Registers(Vec<Seat>);

/// A device, and where it is.
struct Seat {
    id: String,
    place: Place,
    bus: Arc<Bus>,
    device: Arc<Mutex<PluginRegisters>>,
}

impl Registers {
    /// Makes each device and gives it its addresses. `line` is the interrupt line of that number.
    ///
    /// # Errors
    /// A plugin refuses, or its addresses or line are taken.
    pub fn attach(
        configs: &[RegistersConfig],
        ports: &Arc<Bus>,
        mmio: &Arc<Bus>,
        memory: &Arc<GuestMemoryMmap>,
        line: impl Fn(u32) -> Arc<dyn InterruptLine>,
    ) -> Result<Self, PluginsError> {
        let mut all = Self::default();
        // Whose a line is. Two devices cannot share one: the edge of either is lost while the other is high.
        let mut lines = BTreeMap::from(TAKEN.map(|line| (line, "the machine")));
        for config in configs {
            let failed = |why: String| PluginsError {
                id: config.id.clone(),
                why,
            };
            let wiring = |place: &Place| Wiring {
                line: place.line.filter(|n| !lines.contains_key(n)).map(&line),
                memory: Some(Arc::new(Ram(memory.clone()))),
            };
            let plugin = config.library.load().map_err(failed)?;
            let made = plugin
                .device(Some(&config.device))
                .and_then(|device| plugin.create_registers(device, &config.options, wiring));
            let device = made.map_err(|error| failed(error.to_string()))?;
            let place = device.place();
            if let Some(line) = place.line
                && let Some(owner) = lines.insert(line, &config.id)
            {
                return Err(failed(format!(
                    "the interrupt line {line} is {owner}'s; give it another, 3 say"
                )));
            }
            let device = Arc::new(Mutex::new(device));
            let bus = match place.space {
                Space::Ports => ports,
                Space::Mmio => mmio,
            };
            bus.insert(place.base, place.len, device.clone())
                .map_err(|error| failed(error.to_string()))?;
            all.0.push(Seat {
                id: config.id.clone(),
                place,
                bus: bus.clone(),
                device,
            });
        }
        Ok(all)
    }

    /// Each of them by its name, and where it is.
    pub fn places(&self) -> impl Iterator<Item = (&str, Place)> {
        self.0.iter().map(|seat| (seat.id.as_str(), seat.place))
    }

    /// Returns every device to its power-on state. Called with all vCPUs stopped.
    pub fn reset(&self) {
        for seat in &self.0 {
            seat.device().reset();
        }
    }
}

impl Seat {
    fn device(&self) -> MutexGuard<'_, PluginRegisters> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    /// A vCPU that is in a call of the device keeps it until that returns.
    fn drop(&mut self) {
        self.bus.remove(self.place.base);
    }
}

/// Guest memory, copied from and to.
struct Ram(Arc<GuestMemoryMmap>);

impl GuestMemory for Ram {
    fn read(&self, address: u64, data: &mut [u8]) -> bool {
        self.0.read_slice(data, GuestAddress(address)).is_ok()
    }

    fn write(&self, address: u64, data: &[u8]) -> bool {
        self.0.write_slice(data, GuestAddress(address)).is_ok()
    }
}
