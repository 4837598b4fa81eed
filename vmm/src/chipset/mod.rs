//! The machine's fixed devices: registers behind ports, and interrupt lines.
//!
//! ```text
//! rtc         the CMOS clock
//! i8042       a keyboard controller with no keyboard, for its reset line
//! reset       the chipset's reset control register
//! power       ACPI power management: events, sleep, PM timer, power button
//! hotplug     which PCI slots came and shall go, for the DSDT
//! ```
//!
//! Interrupt controllers and the interval timer are in KVM; ttyS0 is a [plugin](crate::plugin::registers).
//! [`Chipset`] puts the devices together.
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

pub mod hotplug;
pub mod i8042;
pub mod power;
pub mod reset;
pub mod rtc;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use outboard_device::register::{InterruptLine, RegisterDevice};

use crate::arch::x86_64::layout;
use crate::bus::{Bus, BusDevice, BusError};
use hotplug::SlotHotplug;
use i8042::I8042;
use power::PowerManagement;
use reset::ResetControl;
use rtc::Rtc;

/// What a guest asks of the whole machine through a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChipsetEvent {
    /// Switch the machine off (ACPI S5).
    PowerOff,
    /// Reset the machine.
    Reset,
    /// Take out the devices that the guest uses no more: see [`SlotHotplug::take_ejected`].
    Ejected,
}

/// Takes [`ChipsetEvent`]s. Called on the vCPU thread whose write caused it, with the device's
/// lock held: it posts the event and returns, without blocking and without touching the chipset.
pub type EventSink = Arc<dyn Fn(ChipsetEvent) + Send + Sync>;

/// The devices, each under its own lock.
pub struct Chipset {
    rtc: Arc<Mutex<Rtc>>,
    i8042: Arc<Mutex<I8042>>,
    reset: Arc<Mutex<ResetControl>>,
    power: Arc<Mutex<PowerManagement>>,
    hotplug: Arc<Mutex<SlotHotplug>>,
}

impl Chipset {
    /// Makes the devices, all in their power-on state.
    ///
    /// `sci` is the line of [`layout::IRQ_SCI`], a level.
    pub fn new(sci: Arc<dyn InterruptLine>, events: &EventSink) -> Self {
        let power = Arc::new(Mutex::new(PowerManagement::new(sci, events.clone())));
        Self {
            rtc: Arc::new(Mutex::new(Rtc::new())),
            i8042: Arc::new(Mutex::new(I8042::new(events.clone()))),
            reset: Arc::new(Mutex::new(ResetControl::new(events.clone()))),
            hotplug: Arc::new(Mutex::new(SlotHotplug::new(power.clone(), events.clone()))),
            power,
        }
    }

    /// Claims the devices' ports, all but the reset control register's.
    pub fn attach(&self, ports: &Bus) -> Result<(), BusError> {
        let keyboard = layout::I8042_DATA..layout::I8042_COMMAND + 1;
        let devices: [(_, Arc<dyn BusDevice>); 4] = [
            (layout::RTC, self.rtc.clone()),
            (keyboard, self.i8042.clone()),
            (layout::PM, self.power.clone()),
            (layout::PCI_HOTPLUG, self.hotplug.clone()),
        ];
        devices.into_iter().try_for_each(|(range, device)| {
            ports.insert(range.start.into(), range.len() as u64, device)
        })
    }

    /// The reset control register, one byte, which lies among PCI's ports at
    /// [`layout::RESET_CONTROL`].
    pub fn reset_control(&self) -> Arc<dyn BusDevice> {
        self.reset.clone()
    }

    /// Registers of PCI slot hotplug.
    pub fn hotplug(&self) -> &Arc<Mutex<SlotHotplug>> {
        &self.hotplug
    }

    /// A person pressed the power button: asks the guest to shut down. Any thread.
    pub fn press_power_button(&self) {
        lock(&self.power).press_power_button();
    }

    /// Returns every device to its power-on state. Called with all vCPUs stopped.
    pub fn reset(&self) {
        lock(&self.rtc).reset();
        lock(&self.i8042).reset();
        lock(&self.reset).reset();
        lock(&self.power).reset();
        lock(&self.hotplug).reset();
    }
}

/// A device's state is whole between calls, so one that panicked elsewhere is still usable.
fn lock<T>(device: &Mutex<T>) -> MutexGuard<'_, T> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Copies the registers in `registers`, as bytes, that an access at `offset` touches; bytes past
/// the end are left as they are.
fn read_bytes(registers: &[u8], offset: u64, data: &mut [u8]) {
    let at = usize::try_from(offset).unwrap_or(usize::MAX);
    for (byte, register) in data.iter_mut().zip(registers.iter().skip(at)) {
        *byte = *register;
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Lines and events that tests look at.

    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// A line that remembers its level.
    #[derive(Default)]
    pub(crate) struct Line {
        high: AtomicBool,
    }

    impl InterruptLine for Line {
        fn set(&self, high: bool) {
            self.high.store(high, Ordering::SeqCst);
        }
    }

    impl Line {
        pub(crate) fn is_high(&self) -> bool {
            self.high.load(Ordering::SeqCst)
        }
    }

    /// A sink and the events it took.
    pub(crate) fn events() -> (EventSink, Arc<Mutex<Vec<ChipsetEvent>>>) {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let sink = taken.clone();
        (
            Arc::new(move |event| sink.lock().unwrap().push(event)),
            taken,
        )
    }

    pub(crate) fn read<const N: usize>(device: &mut impl RegisterDevice, offset: u64) -> [u8; N] {
        let mut data = [0xff; N];
        device.read(offset, &mut data);
        data
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::ChipsetEvent::{PowerOff, Reset};
    use super::testing::*;
    use super::*;

    fn chipset() -> (Chipset, Bus, Arc<Mutex<Vec<ChipsetEvent>>>) {
        let (sink, taken) = events();
        let chipset = Chipset::new(Arc::new(Line::default()), &sink);
        let ports = Bus::new();
        chipset.attach(&ports).unwrap();
        ports
            .insert(layout::RESET_CONTROL.into(), 1, chipset.reset_control())
            .unwrap();
        (chipset, ports, taken)
    }

    #[test]
    fn devices_answer_at_their_ports() {
        let (chipset, ports, taken) = chipset();
        let mut byte = [0];
        assert!(ports.read(0x64, &mut byte));
        assert!(ports.read(0x71, &mut byte));
        ports.write(0x64, &[0xfe]);
        ports.write(0xcf9, &[0x06]);
        ports.write(0x604, &(5u16 << 10 | 1 << 13).to_le_bytes());
        assert_eq!(*taken.lock().unwrap(), [Reset, Reset, PowerOff]);
        chipset.reset();
    }

    #[derive(Clone, Debug)]
    struct Access {
        port: u16,
        write: bool,
        len: usize,
        value: [u8; 8],
    }

    fn access() -> impl Strategy<Value = Access> {
        let port = prop_oneof![
            0x60u16..0x74,
            0x5f8u16..0x630,
            0xadf8u16..0xae18,
            Just(0xcf9u16),
        ];
        let len = prop_oneof![Just(1usize), Just(2), Just(4), Just(8)];
        (port, any::<bool>(), len, any::<[u8; 8]>()).prop_map(|(port, write, len, value)| Access {
            port,
            write,
            len,
            value,
        })
    }

    proptest! {
        #[test]
        fn any_access_of_any_size_is_harmless(accesses in prop::collection::vec(access(), 1..200)) {
            let (chipset, ports, _) = chipset();
            for Access { port, write, len, value } in accesses {
                if write {
                    ports.write(port.into(), &value[..len]);
                } else {
                    ports.read(port.into(), &mut vec![0; len]);
                }
            }
            chipset.press_power_button();
            chipset.reset();
        }
    }
}
