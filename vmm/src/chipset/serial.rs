//! ttyS0: the registers of a 16550 in the VMM, its bytes on a stream to a console.
//!
//! A vCPU never waits for the console. What the guest writes goes to the stream at once, and when
//! the stream is full into a buffer of [`OUTPUT_LIMIT`] bytes, which the port's thread drains; when
//! that is full too, the oldest bytes are dropped and counted in the log. What the console sends
//! waits in the stream until the receive FIFO has room. The thread also keeps a log of the output,
//! whether anybody looks at the console or not.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod transcript;
mod wire;

use std::convert::Infallible;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use outboard_device::register::{InterruptLine, RegisterDevice};
use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, Serial as Uart, SerialState};

use crate::logs::Log;
use transcript::Transcript;
pub use wire::OUTPUT_LIMIT;
use wire::{Wire, is_transient};

/// How long the port's thread goes on sending the last output when the port is dropped.
const LAST_WORDS: Duration = Duration::from_millis(500);

const RECEIVE: u64 = 0;
const MODEM_CONTROL: u8 = 4;
const LOOPBACK: u8 = 1 << 4;
/// How many registers there are.
const REGISTERS: u64 = 8;

/// The port: its registers, and the thread that joins them to the console. Dropping it sends what
/// output is left, for a bounded time, then ends the stream and the thread; the registers go on
/// answering, to nobody.
pub struct SerialPort {
    device: Arc<Mutex<Serial>>,
    wire: Arc<Wire>,
    thread: Option<JoinHandle<()>>,
}

impl SerialPort {
    /// A port in its power-on state, whose bytes go to and come from `console`. What the guest prints
    /// is written to `log` as well. Without a console its output is dropped.
    pub fn new(
        line: Arc<dyn InterruptLine>,
        console: Option<UnixStream>,
        log: Option<Log>,
    ) -> io::Result<Self> {
        if let Some(stream) = &console {
            stream.set_nonblocking(true)?;
        }
        let log = log.filter(|_| console.is_some());
        let wire = Arc::new(Wire::new(console, log.is_some())?);
        let device = Arc::new(Mutex::new(Serial::new(line, wire.clone())));
        let thread = if wire.stream.is_some() {
            let (device, wire) = (device.clone(), wire.clone());
            let transcript = log.map(Transcript::new);
            let run = move || carry(&device, &wire, transcript);
            Some(
                std::thread::Builder::new()
                    .name("serial".into())
                    .spawn(run)?,
            )
        } else {
            None
        };
        Ok(Self {
            device,
            wire,
            thread,
        })
    }

    /// The registers, for the bus.
    pub fn device(&self) -> Arc<Mutex<Serial>> {
        self.device.clone()
    }
}

impl Drop for SerialPort {
    fn drop(&mut self) {
        self.wire.stop.store(true, Ordering::SeqCst);
        self.wire.wake();
        if let Some(thread) = self.thread.take() {
            // A panic in the thread has been reported by its hook.
            let _ = thread.join();
        }
    }
}

/// The registers, at [`COM1`](crate::arch::x86_64::layout::COM1).
pub struct Serial {
    uart: Uart<Line, NoEvents, Output>,
    wire: Arc<Wire>,
}

impl Serial {
    fn new(line: Arc<dyn InterruptLine>, wire: Arc<Wire>) -> Self {
        let uart = Uart::new(Line(line), Output(wire.clone()));
        Self { uart, wire }
    }

    /// How many bytes from the console fit; none in loopback, when the line is cut.
    fn room(&mut self) -> usize {
        if self.uart.read(MODEM_CONTROL) & LOOPBACK != 0 {
            0
        } else {
            self.uart.fifo_capacity()
        }
    }

    /// Moves bytes from the console into the FIFO. An error or the end means: no more input.
    fn receive(&mut self, mut console: &UnixStream) -> io::Result<()> {
        let room = self.room();
        let mut bytes = vec![0; room];
        if room == 0 {
            return Ok(());
        }
        match console.read(&mut bytes) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                // Cannot fail: there is room, and our line has no errors.
                let _ = self
                    .uart
                    .enqueue_raw_bytes(bytes.get(..count).unwrap_or_default());
                Ok(())
            }
            Err(error) if is_transient(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl RegisterDevice for Serial {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        for (register, byte) in (offset..REGISTERS).zip(data) {
            *byte = self.uart.read(register as u8);
            if register == RECEIVE {
                self.wire.input_read();
            }
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (register, &byte) in (offset..REGISTERS).zip(data) {
            // Neither our line nor our output has errors.
            let _ = self.uart.write(register as u8, byte);
            if register == u64::from(MODEM_CONTROL) {
                self.wire.input_read();
            }
        }
    }

    /// Drops input the guest has not read; keeps output that is on its way.
    fn reset(&mut self) {
        let output = Output(self.wire.clone());
        let line = Line(self.uart.interrupt_evt().0.clone());
        // A fresh state has no interrupt to raise and nothing in its buffer, so this cannot fail.
        if let Ok(uart) = Uart::from_state(&SerialState::default(), line, NoEvents, output) {
            self.uart = uart;
        }
        self.wire.input_read();
    }
}

/// An edge on the interrupt line for each event.
struct Line(Arc<dyn InterruptLine>);

impl Trigger for Line {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.pulse();
        Ok(())
    }
}

/// The transmitter's end: never blocks, never fails.
struct Output(Arc<Wire>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread: moves input into the FIFO, pending output onto the stream and all output to the log,
/// until the port is dropped, or the console is gone and no log is kept.
fn carry(device: &Mutex<Serial>, wire: &Wire, mut transcript: Option<Transcript>) {
    let Some(stream) = &wire.stream else { return };
    let mut input_open = true;
    while !wire.stop.load(Ordering::SeqCst) {
        write_down(wire, transcript.as_mut());
        let closed = wire.closed.load(Ordering::Relaxed);
        if closed && transcript.is_none() {
            break;
        }
        let mut wanted = PollFlags::empty();
        if input_open && !closed {
            // Said before the look, so that a read after the look wakes us.
            wire.input_waits.store(true, Ordering::SeqCst);
            if super::lock(device).room() > 0 {
                wire.input_waits.store(false, Ordering::SeqCst);
                wanted |= PollFlags::POLLIN;
            }
        }
        if !closed && !wire.pending().is_empty() {
            wanted |= PollFlags::POLLOUT;
        }
        // A hang-up is reported even where nothing is wanted, so the stream is left out then.
        let mut fds = [
            PollFd::new(wire.event.as_fd(), PollFlags::POLLIN),
            PollFd::new(stream.as_fd(), wanted),
        ];
        let count = if wanted.is_empty() { 1 } else { 2 };
        if poll(fds.get_mut(..count).unwrap_or_default(), PollTimeout::NONE).is_err() {
            continue;
        }
        let _ = wire.event.read();
        if wanted.contains(PollFlags::POLLOUT) {
            wire.drain();
        }
        if wanted.contains(PollFlags::POLLIN)
            && let Err(error) = super::lock(device).receive(stream)
        {
            input_open = false;
            tracing::debug!(%error, "No more input for ttyS0");
        }
    }
    write_down(wire, transcript.as_mut());
    let begun = Instant::now();
    wire.drain();
    while !wire.pending().is_empty() && begun.elapsed() < LAST_WORDS {
        let mut fds = [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)];
        let _ = poll(&mut fds, PollTimeout::from(50u8));
        wire.drain();
    }
    // The registers may outlive the port, and the stream with them: the console is told now.
    let _ = stream.shutdown(Shutdown::Both);
}

fn write_down(wire: &Wire, transcript: Option<&mut Transcript>) {
    if let (Some(transcript), Some(printed)) = (transcript, &wire.printed) {
        let printed = super::lock(printed).take();
        transcript.write(printed);
    }
}

#[cfg(test)]
mod tests;
