//! Registers by which the DSDT learns which PCI slots of bus 0 gained or lose a device, and by
//! which a guest ejects one.
//!
//! | offset | width | meaning |
//! |---|---|---|
//! | 0 | 32 | a bit for each slot that gained a device; reading clears |
//! | 4 | 32 | a bit for each slot whose device shall go; reading clears |
//! | 8 | 32 | writing a bit ejects that slot's device; reads as 0 |
//!
//! The private contract of this device and the [DSDT](crate::arch::x86_64::acpi).

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::{Arc, Mutex};

use outboard_device::register::RegisterDevice;

use super::power::PowerManagement;
use super::{ChipsetEvent, EventSink};

/// The general-purpose event that tells a guest to look here: the DSDT's `\_GPE._E01`.
pub const GENERAL_EVENT: u8 = 1;

/// Offsets of the registers, for the DSDT.
pub const UP: u8 = 0;
/// See [`UP`].
pub const DOWN: u8 = 4;
/// See [`UP`].
pub const EJECT: u8 = 8;

/// The registers at [`PCI_HOTPLUG`](crate::arch::x86_64::layout::PCI_HOTPLUG).
pub struct SlotHotplug {
    up: u32,
    down: u32,
    /// Slots that the guest has ejected and nobody has looked at yet.
    ejected: u32,
    power: Arc<Mutex<PowerManagement>>,
    events: EventSink,
}

impl SlotHotplug {
    /// Registers with nothing pending, which raise their event through `power` and post ejections
    /// to `events`.
    pub fn new(power: Arc<Mutex<PowerManagement>>, events: EventSink) -> Self {
        Self {
            up: 0,
            down: 0,
            ejected: 0,
            power,
            events,
        }
    }

    /// Tells the guest that `slot`, 1 to 31, gained a device.
    pub fn plugged(&mut self, slot: u8) {
        self.up |= 1u32.checked_shl(slot.into()).unwrap_or(0);
        super::lock(&self.power).raise_general_event(GENERAL_EVENT);
    }

    /// Takes the slots that the guest has ejected, 1 to 31.
    pub fn take_ejected(&mut self) -> impl Iterator<Item = u8> + use<> {
        let slots = std::mem::take(&mut self.ejected);
        (1..32).filter(move |slot| slots & (1 << slot) != 0)
    }

    /// Asks the guest to give up the device in `slot`, 1 to 31.
    pub fn request_unplug(&mut self, slot: u8) {
        self.down |= 1u32.checked_shl(slot.into()).unwrap_or(0);
        super::lock(&self.power).raise_general_event(GENERAL_EVENT);
    }
}

impl RegisterDevice for SlotHotplug {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let value = match (offset, data.len()) {
            (offset, 4) if offset == u64::from(UP) => std::mem::take(&mut self.up),
            (offset, 4) if offset == u64::from(DOWN) => std::mem::take(&mut self.down),
            _ => 0,
        };
        data.fill(0);
        super::read_bytes(&value.to_le_bytes(), 0, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let Ok(data) = <[u8; 4]>::try_from(data) else {
            return;
        };
        if offset == u64::from(EJECT) {
            // Slot 0 is the host bridge, which stays. One event until somebody looks, so that a guest
            // cannot pile them up.
            let slots = u32::from_le_bytes(data) & !1;
            let was = self.ejected;
            self.ejected |= slots;
            if was == 0 && slots != 0 {
                (self.events)(ChipsetEvent::Ejected);
            }
        }
    }

    fn reset(&mut self) {
        self.up = 0;
        self.down = 0;
        self.ejected = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Line, events, read};
    use super::*;

    #[test]
    fn a_slot_is_reported_once_with_an_event() {
        let line = Arc::new(Line::default());
        let (sink, taken) = events();
        let power = Arc::new(Mutex::new(PowerManagement::new(line.clone(), sink.clone())));
        power.lock().unwrap().write(0x22, &[1 << GENERAL_EVENT]);
        let mut hotplug = SlotHotplug::new(power, sink);
        assert_eq!(read(&mut hotplug, UP.into()), [0; 4]);
        hotplug.plugged(3);
        hotplug.request_unplug(31);
        assert!(line.is_high());
        assert_eq!(read(&mut hotplug, UP.into()), [8, 0, 0, 0]);
        assert_eq!(read(&mut hotplug, UP.into()), [0; 4]);
        assert_eq!(read(&mut hotplug, DOWN.into()), [0, 0, 0, 0x80]);
        assert_eq!(read(&mut hotplug, EJECT.into()), [0; 4]);
        hotplug.write(EJECT.into(), &[9, 0, 0, 0]);
        hotplug.write(EJECT.into(), &[2]);
        hotplug.write(UP.into(), &[2, 0, 0, 0]);
        hotplug.write(EJECT.into(), &[0xfe, 0xff, 0xff, 0xff]);
        assert_eq!(*taken.lock().unwrap(), [ChipsetEvent::Ejected]);
        assert_eq!(hotplug.take_ejected().count(), 31);
        hotplug.write(EJECT.into(), &[1, 0, 0, 0]);
        assert_eq!(taken.lock().unwrap().len(), 1);
        hotplug.write(EJECT.into(), &[8, 0, 0, 0]);
        assert_eq!(taken.lock().unwrap().len(), 2);
        assert_eq!(hotplug.take_ejected().collect::<Vec<_>>(), [3]);
    }
}
