//! A 16550 UART: one more serial port, whose bytes go to a file, or to and from a Unix socket.
//!
//! The worked example of a device of registers: ports, an interrupt line, and a descriptor to be woken by.
//! The registers themselves are `vm-superio`'s.
#![allow(unsafe_code)] // The plugin's entry is a symbol that C finds.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use outboard_device::DeviceError;
use outboard_device::abi::host::{Place, Space};
use outboard_device::plugin::{Board, BoardDevice, FromOptions, OptionSpec, Options};
use outboard_device::register::{InterruptLine, RegisterDevice};
use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, Serial as Uart};

outboard_device::export_plugin! { registers: Serial }

/// How many registers there are.
const REGISTERS: u64 = 8;

/// The port.
pub struct Serial {
    base: u64,
    irq: u32,
    uart: Uart<Line, NoEvents, Output>,
    line: Line,
    output: Output,
}

impl FromOptions for Serial {
    const NAME: &'static str = "serial";
    const SUMMARY: &'static str = "A 16550 serial port";
    const OPTIONS: &'static [OptionSpec] = &[
        OptionSpec::path(
            "path",
            "a file to append to, or a Unix socket to connect to",
        )
        .required(),
        OptionSpec::number("base", "the first of its eight ports").default("0x2f8"),
        OptionSpec::number("irq", "its interrupt line").default("3"),
    ];

    fn from_options(options: &Options<'_>) -> Result<Self, DeviceError> {
        let path = options.path("path").unwrap_or(Path::new(""));
        let far = Far::open(path);
        let far = far.map_err(|e| DeviceError::io(format!("open path={}", path.display()), e))?;
        let (line, output) = (Line::default(), Output(Arc::new(far)));
        Ok(Self {
            base: options.number("base").unwrap_or(0x2f8),
            irq: options
                .number("irq")
                .and_then(|n| n.try_into().ok())
                .unwrap_or(u32::MAX),
            uart: Uart::new(line.clone(), output.clone()),
            line,
            output,
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
        *self.line.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(board.line());
        if let Far::Socket(socket) = &*self.output.0 {
            board.watch(socket.as_raw_fd(), true, false);
        }
    }

    fn ready(&mut self, _fd: RawFd) {
        self.receive();
    }
}

impl RegisterDevice for Serial {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        // The registers are a byte each.
        if let [byte] = data {
            *byte = self.uart.read(offset as u8);
            if offset == 0 {
                self.receive();
            }
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let [byte] = data {
            // Fails where the far end does; a serial line does not say so either.
            let _ = self.uart.write(offset as u8, *byte);
        }
    }

    fn reset(&mut self) {
        self.uart = Uart::new(self.line.clone(), self.output.clone());
    }
}

impl Serial {
    /// Moves what has come into the FIFO, as far as there is room: the rest waits in the socket.
    fn receive(&mut self) {
        let Far::Socket(socket) = &*self.output.0 else {
            return;
        };
        let mut bytes = vec![0; self.uart.fifo_capacity()];
        while !bytes.is_empty() {
            match (&*socket).read(&mut bytes) {
                Ok(0) | Err(_) => return,
                Ok(read) => {
                    let _ = self
                        .uart
                        .enqueue_raw_bytes(bytes.get(..read).unwrap_or_default());
                    bytes.truncate(self.uart.fifo_capacity());
                }
            }
        }
    }
}

/// The interrupt line, once there is one.
#[derive(Clone, Default)]
struct Line(Arc<Mutex<Option<Arc<dyn InterruptLine>>>>);

impl Trigger for Line {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        if let Some(line) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            line.pulse();
        }
        Ok(())
    }
}

/// What the port is connected to.
enum Far {
    File(File),
    Socket(UnixStream),
}

impl Far {
    fn open(path: &Path) -> io::Result<Self> {
        if let Ok(socket) = UnixStream::connect(path) {
            socket.set_nonblocking(true)?;
            return Ok(Self::Socket(socket));
        }
        let file = File::options().append(true).create(true).open(path)?;
        Ok(Self::File(file))
    }
}

/// The writer that `vm-superio` wants. Bytes that a socket has no room for are lost, as on a wire.
#[derive(Clone)]
struct Output(Arc<Far>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &*self.0 {
            Far::File(file) => (&*file).write(bytes),
            Far::Socket(socket) => (&*socket).write(bytes),
        };
        written.or(Ok(bytes.len()))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
