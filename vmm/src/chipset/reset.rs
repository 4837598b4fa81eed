//! The reset control register at port 0xcf9, as PC chipsets have had it since the PIIX.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use outboard_device::register::RegisterDevice;

use super::{ChipsetEvent, EventSink};

/// System reset: which kind of reset, cold or warm; held, without meaning here.
const SYSTEM_RESET: u8 = 1 << 1;
/// Reset CPU: the machine resets when this bit goes from 0 to 1.
const RESET_CPU: u8 = 1 << 2;
/// Full reset: whether power is cycled; held, without meaning here.
const FULL_RESET: u8 = 1 << 3;

/// One byte-wide register.
pub struct ResetControl {
    value: u8,
    events: EventSink,
}

impl ResetControl {
    /// The value that resets the machine in one write, for the FADT.
    pub const RESET_VALUE: u8 = SYSTEM_RESET | RESET_CPU;

    /// A register at 0.
    pub fn new(events: EventSink) -> Self {
        Self { value: 0, events }
    }
}

impl RegisterDevice for ResetControl {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        super::read_bytes(&[self.value], 0, data);
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        let [value] = *data else { return };
        if value & !self.value & RESET_CPU != 0 {
            (self.events)(ChipsetEvent::Reset);
        }
        self.value = value & (SYSTEM_RESET | RESET_CPU | FULL_RESET);
    }

    fn reset(&mut self) {
        self.value = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::events;
    use super::*;

    #[test]
    fn machine_resets_on_the_rising_edge_of_one_bit() {
        let (sink, taken) = events();
        let mut register = ResetControl::new(sink);
        register.write(0, &[SYSTEM_RESET]);
        assert!(taken.lock().unwrap().is_empty());
        register.write(0, &[ResetControl::RESET_VALUE]);
        register.write(0, &[ResetControl::RESET_VALUE]);
        assert_eq!(*taken.lock().unwrap(), [ChipsetEvent::Reset]);
        register.reset();
        register.write(0, &[0xff]);
        assert_eq!(taken.lock().unwrap().len(), 2);
    }
}
