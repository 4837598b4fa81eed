//! A keyboard controller with nothing attached: it answers a driver's probe at once, and its
//! output line resets the machine.
//!
//! Ports 0x60 (data) and 0x64 (status and command). A kernel that resets by the keyboard
//! controller waits for the input buffer to be empty and writes 0xfe to 0x64.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use outboard_device::register::RegisterDevice;

use super::{ChipsetEvent, EventSink};

const DATA: u64 = 0;
const COMMAND: u64 = 4;

/// Status: a byte for the CPU waits in the data port.
const OUTPUT_FULL: u8 = 1 << 0;
/// Status: the controller has passed its self-test.
const SYSTEM: u8 = 1 << 2;
/// Status: the keyboard is not locked.
const UNLOCKED: u8 = 1 << 4;

/// Reads the configuration byte.
const READ_CONFIG: u8 = 0x20;
/// Writes the configuration byte, given next at the data port.
const WRITE_CONFIG: u8 = 0x60;
/// Tests the second (mouse) port; answers a fault, as there is none.
const TEST_SECOND_PORT: u8 = 0xa9;
/// Tests the controller; answers 0x55.
const SELF_TEST: u8 = 0xaa;
/// Tests the first (keyboard) port.
const TEST_FIRST_PORT: u8 = 0xab;
/// Writes the output port, given next at the data port; its bit 0 is the reset line, active low.
const WRITE_OUTPUT: u8 = 0xd1;
/// Pulses output lines low, each whose bit is 0.
const PULSE_OUTPUT: u8 = 0xf0;
const RESET_LINE: u8 = 1 << 0;

/// Both ports closed, no interrupts, keyboard translation on.
const CONFIG_AT_RESET: u8 = 0x74;
/// Answer of a port test: the clock line is stuck low.
const PORT_STUCK: u8 = 0x01;

/// The controller. Its range begins at port 0x60; ports 0x61 to 0x63 are not its.
pub struct I8042 {
    config: u8,
    /// The byte to be read from the data port.
    output: Option<u8>,
    /// What the next write to the data port belongs to.
    command: Option<u8>,
    events: EventSink,
}

impl I8042 {
    /// A controller after its self-test.
    pub fn new(events: EventSink) -> Self {
        Self {
            config: CONFIG_AT_RESET,
            output: None,
            command: None,
            events,
        }
    }

    fn status(&self) -> u8 {
        SYSTEM
            | UNLOCKED
            | if self.output.is_some() {
                OUTPUT_FULL
            } else {
                0
            }
    }

    fn command(&mut self, command: u8) {
        self.command = None;
        match command {
            READ_CONFIG => self.output = Some(self.config),
            WRITE_CONFIG | WRITE_OUTPUT => self.command = Some(command),
            SELF_TEST => self.output = Some(0x55),
            TEST_FIRST_PORT | TEST_SECOND_PORT => self.output = Some(PORT_STUCK),
            PULSE_OUTPUT.. if command & RESET_LINE == 0 => (self.events)(ChipsetEvent::Reset),
            _ => {}
        }
    }

    fn data(&mut self, value: u8) {
        match self.command.take() {
            Some(WRITE_CONFIG) => self.config = value,
            Some(WRITE_OUTPUT) if value & RESET_LINE == 0 => (self.events)(ChipsetEvent::Reset),
            _ => {}
        }
    }
}

impl RegisterDevice for I8042 {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let [byte] = data else { return };
        match offset {
            DATA => *byte = self.output.take().unwrap_or(0),
            COMMAND => *byte = self.status(),
            _ => {}
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match (offset, data) {
            (DATA, &[value]) => self.data(value),
            (COMMAND, &[value]) => self.command(value),
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.config = CONFIG_AT_RESET;
        self.output = None;
        self.command = None;
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{events, read};
    use super::*;

    #[test]
    fn a_probe_is_answered_at_once() {
        let mut device = I8042::new(events().0);
        assert_eq!(
            read::<1>(&mut device, COMMAND)[0] & 0b11,
            0,
            "both buffers empty"
        );
        device.write(COMMAND, &[SELF_TEST]);
        assert_eq!(
            read::<1>(&mut device, COMMAND)[0] & OUTPUT_FULL,
            OUTPUT_FULL
        );
        assert_eq!(read(&mut device, DATA), [0x55]);
        assert_eq!(read::<1>(&mut device, COMMAND)[0] & OUTPUT_FULL, 0);
        device.write(COMMAND, &[WRITE_CONFIG]);
        device.write(DATA, &[0x30]);
        device.write(COMMAND, &[READ_CONFIG]);
        assert_eq!(read(&mut device, DATA), [0x30]);
    }

    #[test]
    fn reset_line_resets_by_pulse_and_by_output_port() {
        let (sink, taken) = events();
        let mut device = I8042::new(sink);
        device.write(COMMAND, &[0xff]);
        device.write(COMMAND, &[WRITE_OUTPUT]);
        device.write(DATA, &[0x03]);
        assert!(taken.lock().unwrap().is_empty());
        device.write(COMMAND, &[0xfe]);
        device.write(COMMAND, &[WRITE_OUTPUT]);
        device.write(DATA, &[0x02]);
        assert_eq!(
            *taken.lock().unwrap(),
            [ChipsetEvent::Reset, ChipsetEvent::Reset]
        );
    }
}
