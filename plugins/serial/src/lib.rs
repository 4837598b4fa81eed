//! A 16550 UART: a serial port whose bytes go to a file, or to and from a Unix socket. The VMM has it built in:
//! there its table is the machine's ttyS0.
//!
//! The worked example of a device of registers: ports, an interrupt line, and descriptors to be woken by.
//! The registers themselves are `vm-superio`'s.
//!
//! A vCPU never waits for the far end. What the guest prints goes to a socket at once, and what the socket has
//! no room for is kept (`outlet.rs`) until it has. Input waits in the socket until the receive FIFO has room.
#![allow(unsafe_code)] // The plugin's entry is a symbol that C finds.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod far;
mod outlet;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::os::fd::RawFd;
use std::sync::{Arc, OnceLock};

use outboard_device::DeviceError;
use outboard_device::abi::host::{Place, Space};
use outboard_device::plugin::{Board, BoardDevice, FromOptions, OptionSpec, Options};
use outboard_device::register::{InterruptLine, RegisterDevice};
use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, Serial as Uart};

use far::{Far, Input};

outboard_device::export_plugin! { registers: Serial }

/// How many registers there are, a byte each.
const REGISTERS: u64 = 8;
const DATA: u64 = 0;
const MODEM_CONTROL: u64 = 4;
const LINE_STATUS: u64 = 5;
/// In the modem control register: the line is cut, and the transmitter wired to the receiver.
const LOOPBACK: u8 = 1 << 4;
/// In the line status register.
const DATA_READY: u8 = 1;

/// The port.
pub struct Serial {
    base: u64,
    irq: u32,
    uart: Uart<Line, NoEvents, Far>,
    line: Line,
    board: Option<Board>,
    /// There may be input that the FIFO had no room for.
    input_waits: bool,
}

impl FromOptions for Serial {
    const NAME: &'static str = "serial";
    const SUMMARY: &'static str = "A 16550 serial port";
    const OPTIONS: &'static [OptionSpec] = &[
        OptionSpec::path(
            "path",
            "a file to append to, or a Unix socket to connect to",
        ),
        OptionSpec::number(
            "fd",
            "in place of path: a connected Unix socket that this process has",
        ),
        OptionSpec::number(
            "copy-fd",
            "another, which gets what is printed as well, line by line",
        ),
        OptionSpec::number("base", "the first of its eight ports").default("0x2f8"),
        OptionSpec::number("irq", "its interrupt line").default("3"),
    ];

    fn from_options(options: &Options<'_>) -> Result<Self, DeviceError> {
        let line = Line::default();
        let base = options.number("base").unwrap_or(0x2f8);
        Ok(Self {
            base,
            irq: options
                .number("irq")
                .and_then(|n| n.try_into().ok())
                .unwrap_or(u32::MAX),
            uart: Uart::new(line.clone(), Far::from_options(options, base)?),
            line,
            board: None,
            input_waits: false,
        })
    }
}

impl BoardDevice for Serial {
    fn place(&self) -> Place {
        Place {
            space: Space::Ports,
            base: self.base,
            len: REGISTERS,
            line: Some(self.irq),
        }
    }

    fn wire(&mut self, board: Board) {
        let _ = self.line.0.set(board.line());
        self.board = Some(board);
        self.watch();
    }

    fn ready(&mut self, _fd: RawFd) {
        self.uart.writer_mut().drain();
        self.input_waits = true;
        self.receive();
        self.watch();
    }
}

impl RegisterDevice for Serial {
    /// A wider access is one to each of the registers, as on the bus of a PC.
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        for (register, byte) in (offset..REGISTERS).zip(data) {
            *byte = self.uart.read(register as u8);
            if register == DATA && self.input_waits && !self.has_input() {
                self.receive();
            }
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (register, &byte) in (offset..REGISTERS).zip(data) {
            // Neither our line nor our far end has errors.
            let _ = self.uart.write(register as u8, byte);
            match register {
                DATA => self.watch(),
                // It may have ended loopback.
                MODEM_CONTROL => self.receive(),
                _ => {}
            }
        }
    }

    /// Drops input the guest has not read; keeps output that is on its way.
    fn reset(&mut self) {
        let far = std::mem::take(self.uart.writer_mut());
        self.uart = Uart::new(self.line.clone(), far);
        self.receive();
    }
}

impl Serial {
    fn has_input(&mut self) -> bool {
        self.uart.read(LINE_STATUS as u8) & DATA_READY != 0
    }

    /// How many bytes from the far end fit; none in loopback, when the line is cut.
    fn room(&mut self) -> usize {
        if self.uart.read(MODEM_CONTROL as u8) & LOOPBACK != 0 {
            0
        } else {
            self.uart.fifo_capacity()
        }
    }

    /// Moves what has come into the FIFO, as far as there is room: the rest waits in the socket.
    fn receive(&mut self) {
        while self.input_waits {
            let mut bytes = vec![0; self.room()];
            if bytes.is_empty() {
                return;
            }
            match self.uart.writer_mut().receive(&mut bytes) {
                Input::Bytes(count) => {
                    // Cannot fail: there is room, and our line has no errors.
                    let _ = self
                        .uart
                        .enqueue_raw_bytes(bytes.get(..count).unwrap_or_default());
                }
                Input::NoneNow => self.input_waits = false,
            }
        }
    }

    /// Has the host wake us for what is of interest now.
    fn watch(&mut self) {
        if let Some(board) = &self.board {
            self.uart.writer_mut().watch(board);
        }
    }
}

/// The interrupt line, once there is one: an edge for each event.
#[derive(Clone, Default)]
struct Line(Arc<OnceLock<Arc<dyn InterruptLine>>>);

impl Trigger for Line {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        if let Some(line) = self.0.get() {
            line.pulse();
        }
        Ok(())
    }
}
