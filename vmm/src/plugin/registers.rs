//! A plugin's devices of registers, on the machine's buses.

use std::sync::{Arc, Mutex, PoisonError};

use outboard_device::abi::host::{GuestMemory, Place, Plugin, PluginRegisters, Space, Wiring};
use outboard_device::register::{InterruptLine, RegisterDevice};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::settle::{PluginsError, RegistersConfig};
use crate::arch::x86_64::layout;
use crate::bus::Bus;

/// Interrupt lines that the machine's own devices use, or that are none of a device: the timer's, the
/// cascade's, COM1's, the clock's, and ACPI's.
const TAKEN: [u32; 5] = [0, 2, layout::IRQ_COM1, 8, layout::IRQ_SCI];

/// The devices; dropped, they are destroyed.
#[derive(Default)]
pub struct Registers(Vec<(Place, Arc<Mutex<PluginRegisters>>)>);

impl Registers {
    /// Makes each device and gives it its addresses. `line` is the interrupt line of that number.
    ///
    /// # Errors
    /// A plugin refuses, or its addresses or line are taken.
    pub fn attach(
        configs: &[RegistersConfig],
        ports: &Bus,
        mmio: &Bus,
        memory: &Arc<GuestMemoryMmap>,
        line: impl Fn(u32) -> Arc<dyn InterruptLine>,
    ) -> Result<Self, PluginsError> {
        let mut all = Self::default();
        for config in configs {
            let failed = |why: String| PluginsError {
                id: config.id.clone(),
                why,
            };
            let wiring = |place: &Place| Wiring {
                line: place.line.filter(|n| !TAKEN.contains(n)).map(&line),
                memory: Some(Arc::new(Ram(memory.clone()))),
            };
            let made = Plugin::load(&config.path).and_then(|plugin| {
                let device = plugin.device(Some(&config.device))?;
                plugin.create_registers(device, &config.options, wiring)
            });
            let device = made.map_err(|error| failed(error.to_string()))?;
            let place = device.place();
            if let Some(taken) = place.line.filter(|n| TAKEN.contains(n)) {
                return Err(failed(format!(
                    "the interrupt line {taken} is the machine's own; give it another, 3 say"
                )));
            }
            let device = Arc::new(Mutex::new(device));
            let bus = match place.space {
                Space::Ports => ports,
                Space::Mmio => mmio,
            };
            bus.insert(place.base, place.len, device.clone())
                .map_err(|error| failed(error.to_string()))?;
            all.0.push((place, device));
        }
        Ok(all)
    }

    /// Where each of them is, in the order in which they were attached.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        self.0.iter().map(|(place, _)| *place)
    }

    /// Returns every device to its power-on state. Called with all vCPUs stopped.
    pub fn reset(&self) {
        for (_, device) in &self.0 {
            device
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .reset();
        }
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
