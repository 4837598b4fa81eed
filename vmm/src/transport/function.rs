//! A virtio device as a PCI function: which register an access means, and the wires of its queues.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use outboard_device::ratelimit::RateLimit;
use vmm_sys_util::eventfd::EventFd;

use super::capabilities::{
    self, COMMON, DEVICE, ISR, MSIX, NOTIFY, NOTIFY_MULTIPLIER, Offsets, REGISTERS,
};
use super::common::Register;
use super::config_access::{self, Aim};
use super::device::VirtioDevice;
use super::events::{Events, ISR_QUEUE};
use super::machine::{Effect, Machine};
use super::queue::{IsRam, NO_VECTOR};
use super::snapshot::Snapshot;
use crate::pci::msix::{Msix, Source};
use crate::pci::{BarSpec, ConfigSpace, PciFunction, Wiring, lock, pending, warn};

/// Why a device cannot be shown on PCI.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The host has no eventfd left.
    #[error("No eventfd for a device's interrupt; raise the limit on open files (ulimit -n)")]
    Eventfd(#[source] io::Error),
    /// Its capabilities do not fit config space.
    #[error("The device's capabilities do not fit PCI config space")]
    NoRoom,
}

/// One virtio device on PCI.
///
/// vCPUs call it concurrently. One short lock guards its registers; the device's thread takes none
/// (`Events`), and config space accesses reach the device without it.
pub struct VirtioPci<W: Wiring> {
    device: Arc<dyn VirtioDevice>,
    events: Arc<Events>,
    wiring: Arc<W>,
    offsets: Offsets,
    state: Mutex<State<W>>,
    failures: RateLimit,
}

struct State<W: Wiring> {
    config: ConfigSpace,
    machine: Machine,
    msix: Msix<W>,
    /// Where the registers' BAR is mapped.
    registers: Option<u64>,
    doorbells: BTreeMap<u16, W::Doorbell>,
}

impl<W: Wiring> VirtioPci<W> {
    /// Shows `device` as a PCI function and attaches to it. `is_ram` says what a queue may lie in.
    pub fn new(
        device: Arc<dyn VirtioDevice>,
        wiring: Arc<W>,
        is_ram: IsRam,
    ) -> Result<Arc<Self>, TransportError> {
        let identity = device.identity();
        let (config, offsets) =
            capabilities::config_space::<W>(identity).ok_or(TransportError::NoRoom)?;
        let events = Arc::new(Events::new().map_err(TransportError::Eventfd)?);
        let state = State {
            config,
            machine: Machine::new(device.clone(), events.clone(), is_ram),
            msix: Msix::new(wiring.clone(), capabilities::vectors(identity.queues)),
            registers: None,
            doorbells: BTreeMap::new(),
        };
        device.attach(events.clone());
        let state = Mutex::new(state);
        let failures = RateLimit::new();
        Ok(Arc::new(Self {
            device,
            events,
            wiring,
            offsets,
            state,
            failures,
        }))
    }

    /// What the driver has made of the device, at this moment. Any thread may ask.
    pub fn snapshot(&self) -> Snapshot {
        lock(&self.state).machine.snapshot()
    }

    /// Carries out on the wires what a register write asked for.
    fn apply(&self, state: &mut State<W>, effect: Effect) {
        match effect {
            Effect::Nothing => {}
            Effect::Enabled(index) => {
                let doors = state.machine.doors(index).cloned();
                let call = doors.map(|doors| doors.call);
                state.msix.set_call(Source::Queue(index), call);
                self.ring_bells(state, Some(index));
            }
            Effect::Disabled(index) => {
                state.doorbells.remove(&index);
                state.msix.unmap(Source::Queue(index));
            }
            Effect::Reset => {
                state.doorbells.clear();
                state.msix.unmap_all();
            }
        }
    }

    /// The guest took bus mastering away: a device that runs must leave memory alone from now on, as
    /// before a new kernel is started by kexec. It stops as on a reset by its driver, which any
    /// driver does anyway before it uses the device again. That the bit was never set does not
    /// matter: there is firmware that forgets it.
    fn lose_the_bus(&self, state: &mut State<W>) {
        if state.machine.is_started() {
            let effect = state.machine.reset();
            self.apply(state, effect);
        }
    }

    /// Registers the doorbell of a queue, or of all that are enabled, where the BAR is now. A queue
    /// whose doorbell fails is notified by way of the BAR.
    fn ring_bells(&self, state: &mut State<W>, only: Option<u16>) {
        let Some(base) = state.registers else {
            return;
        };
        for (index, queue) in (0..).zip(state.machine.queues()) {
            let Some(doors) = queue
                .doors
                .as_ref()
                .filter(|_| only.is_none_or(|one| one == index))
            else {
                continue;
            };
            let offset = NOTIFY
                .start
                .saturating_add(u64::from(index).saturating_mul(NOTIFY_MULTIPLIER.into()));
            match self
                .wiring
                .doorbell(&doors.kick, base.saturating_add(offset))
            {
                Ok(bell) => drop(state.doorbells.insert(index, bell)),
                Err(error) => warn(
                    &self.failures,
                    "Cannot register a queue's doorbell",
                    &*error,
                ),
            }
        }
    }

    fn read_registers(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if COMMON.contains(&offset) {
            self.read_common(offset, data);
        } else if ISR.contains(&offset) {
            if let (true, Some(byte)) = (offset == ISR.start, data.first_mut()) {
                *byte = self.take_isr();
            }
        } else if DEVICE.contains(&offset) {
            self.device
                .read_config(offset.saturating_sub(DEVICE.start) as u32, data);
        }
    }

    fn write_registers(&self, offset: u64, data: &[u8]) {
        if COMMON.contains(&offset) {
            self.write_common(offset, data);
        } else if DEVICE.contains(&offset) {
            self.device
                .write_config(offset.saturating_sub(DEVICE.start) as u32, data);
        } else if NOTIFY.contains(&offset) {
            let queue = notified_queue(offset);
            let doors = lock(&self.state).machine.doors(queue).cloned();
            if let Some(doors) = doors {
                pending::signal(&doors.kick);
            }
        }
    }

    fn read_common(&self, offset: u64, data: &mut [u8]) {
        if let Some((low, high)) = data
            .split_at_mut_checked(4)
            .filter(|(_, high)| high.len() == 4)
        {
            self.read_common(offset, low);
            return self.read_common(offset.saturating_add(4), high);
        }
        if let Some(register) = Register::at(offset, data.len()) {
            let value = lock(&self.state).machine.read(register);
            data.iter_mut()
                .zip(value.to_le_bytes())
                .for_each(|(byte, value)| *byte = value);
        }
    }

    fn write_common(&self, offset: u64, data: &[u8]) {
        if let Some((low, high)) = data.split_at_checked(4).filter(|(_, high)| high.len() == 4) {
            self.write_common(offset, low);
            return self.write_common(offset.saturating_add(4), high);
        }
        let Some(register) = Register::at(offset, data.len()) else {
            return;
        };
        let mut bytes = [0; 4];
        bytes
            .iter_mut()
            .zip(data)
            .for_each(|(byte, value)| *byte = *value);
        let value = u32::from_le_bytes(bytes);
        let state = &mut *lock(&self.state);
        match register {
            Register::ConfigVector => self.set_config_vector(state, value as u16),
            Register::QueueVector => set_queue_vector(state, value as u16),
            _ => {
                let effect = state.machine.write(register, value);
                self.apply(state, effect);
            }
        }
    }

    fn set_config_vector(&self, state: &mut State<W>, vector: u16) {
        let call = self.events.call().clone();
        let mapped = map(&mut state.msix, Source::Config, vector, Some(call));
        state.machine.set_config_vector(mapped);
    }

    /// Reads and clears the ISR status. The queues' bit exists only without MSI-X, where nobody
    /// else takes the queues' signals.
    fn take_isr(&self) -> u8 {
        let mut isr = self.events.take_isr();
        let calls: Vec<_> = {
            let state = lock(&self.state);
            let doors = state
                .machine
                .queues()
                .iter()
                .filter_map(|q| q.doors.as_ref());
            let calls = doors.map(|doors| doors.call.clone());
            calls.filter(|_| !state.msix.is_enabled()).collect()
        };
        for call in calls {
            isr |= if pending::take(&call) { ISR_QUEUE } else { 0 };
        }
        isr
    }

    /// A read that touches the window in config space: refreshes the window's data first.
    fn read_window(&self, aim: Aim) {
        let mut data = [0; 4];
        if let Some(data) = data.get_mut(..aim.len) {
            self.read_registers(aim.offset, data);
        }
        config_access::set_data(&mut lock(&self.state).config, self.offsets.access, data);
    }
}

/// The queue whose notify address covers an offset in [`NOTIFY`].
fn notified_queue(offset: u64) -> u16 {
    const STEP: u64 = NOTIFY_MULTIPLIER as u64;
    (offset.saturating_sub(NOTIFY.start) / STEP) as u16
}

fn set_queue_vector<W: Wiring>(state: &mut State<W>, vector: u16) {
    let Some((index, queue)) = state.machine.selected() else {
        return;
    };
    let call = queue.doors.as_ref().map(|doors| doors.call.clone());
    queue.vector = map(&mut state.msix, Source::Queue(index), vector, call);
}

/// Maps an event to a vector, and gives what the vector register reads then.
fn map<W: Wiring>(
    msix: &mut Msix<W>,
    source: Source,
    vector: u16,
    call: Option<Arc<EventFd>>,
) -> u16 {
    if msix.map(source, vector, call) {
        vector
    } else {
        NO_VECTOR
    }
}

impl<W: Wiring> PciFunction for VirtioPci<W> {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        let aim = config_access::aim(
            &lock(&self.state).config,
            self.offsets.access,
            offset,
            data.len(),
        );
        if let Some(aim) = aim {
            self.read_window(aim);
        }
        lock(&self.state).config.read(offset, data);
    }

    fn config_write(&self, offset: u16, data: &[u8]) {
        let mut state = lock(&self.state);
        let was_master = state.config.is_bus_master();
        state.config.write(offset, data);
        if was_master && !state.config.is_bus_master() {
            self.lose_the_bus(&mut state);
        }
        let control = state.config.word(self.offsets.msix_control);
        state.msix.set_control(control);
        let access = self.offsets.access;
        if let Some(aim) = config_access::aim(&state.config, access, offset, data.len()) {
            let data = config_access::data(&state.config, access);
            drop(state);
            self.write_registers(aim.offset, data.get(..aim.len).unwrap_or_default());
        }
    }

    fn bars(&self) -> Vec<BarSpec> {
        lock(&self.state).config.bars().to_vec()
    }

    fn assign_bar(&self, bar: usize, address: u64) {
        lock(&self.state).config.assign_bar(bar, address);
    }

    fn decoded_bar(&self, bar: usize) -> Option<u64> {
        lock(&self.state).config.decoded_bar(bar)
    }

    fn bar_mapped(&self, bar: usize, address: Option<u64>) {
        if bar == REGISTERS {
            let state = &mut *lock(&self.state);
            state.doorbells.clear();
            state.registers = address;
            self.ring_bells(state, None);
        }
    }

    fn bar_read(&self, bar: usize, offset: u64, data: &mut [u8]) {
        match bar {
            REGISTERS => self.read_registers(offset, data),
            MSIX => lock(&self.state).msix.read(offset, data),
            _ => data.fill(0),
        }
    }

    fn bar_write(&self, bar: usize, offset: u64, data: &[u8]) {
        match bar {
            REGISTERS => self.write_registers(offset, data),
            MSIX => lock(&self.state).msix.write(offset, data),
            _ => {}
        }
    }

    fn reset(&self) {
        let state = &mut *lock(&self.state);
        let effect = state.machine.reset();
        self.apply(state, effect);
        state.msix.reset();
        state.config.reset();
    }

    fn is_reset(&self) -> bool {
        // Also a reset that a driver did not wait for, before a start that came to nothing.
        lock(&self.state).machine.is_reset() && self.device.is_reset()
    }
}
