//! ttyS0: the registers of a 16550 in the VMM, its bytes on a stream to a console.
//!
//! A vCPU never waits for the console. What the guest writes goes to the stream at once, and when
//! the stream is full into a buffer of [`OUTPUT_LIMIT`] bytes, which the port's thread drains; when
//! that is full too, the oldest bytes are dropped and counted in the log. What the console sends
//! waits in the stream until the receive FIFO has room.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use outboard_device::ratelimit::RateLimit;
use outboard_device::register::{InterruptLine, RegisterDevice};
use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, Serial as Uart, SerialState};

/// How much output waits for a console that does not read, in bytes.
pub const OUTPUT_LIMIT: usize = 256 << 10;
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
    /// A port in its power-on state, whose bytes go to and come from `console`. Without a console
    /// its output is dropped.
    pub fn new(line: Arc<dyn InterruptLine>, console: Option<UnixStream>) -> io::Result<Self> {
        if let Some(stream) = &console {
            stream.set_nonblocking(true)?;
        }
        let wire = Arc::new(Wire::new(console)?);
        let device = Arc::new(Mutex::new(Serial::new(line, wire.clone())));
        let thread = if wire.stream.is_some() {
            let (device, wire) = (device.clone(), wire.clone());
            let run = move || carry(&device, &wire);
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

/// What the registers and the thread share.
struct Wire {
    stream: Option<UnixStream>,
    /// Output that the stream had no room for.
    pending: Mutex<VecDeque<u8>>,
    /// No console is there any more.
    closed: AtomicBool,
    /// The thread does not look at the stream's input, for want of room in the FIFO.
    input_waits: AtomicBool,
    stop: AtomicBool,
    event: EventFd,
}

impl Wire {
    fn new(stream: Option<UnixStream>) -> io::Result<Self> {
        Ok(Self {
            closed: AtomicBool::new(stream.is_none()),
            stream,
            pending: Mutex::new(VecDeque::new()),
            input_waits: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            event: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
        })
    }

    fn pending(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the thread look again.
    fn wake(&self) {
        // Fails only when the counter is full, and then the thread is awake anyway.
        let _ = self.event.write(1);
    }

    /// The guest took a byte, or changed whether any come.
    fn input_read(&self) {
        if self.input_waits.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }

    /// Sends, or keeps for the thread, what the guest wrote.
    fn send(&self, bytes: &[u8]) {
        static DROPPED: RateLimit = RateLimit::new();
        if self.closed.load(Ordering::Relaxed) {
            return;
        }
        let mut pending = self.pending();
        let mut rest = bytes;
        if pending.is_empty() {
            rest = self.send_now(bytes);
            if rest.is_empty() {
                return;
            }
            self.wake();
        }
        for &byte in rest {
            if pending.len() >= OUTPUT_LIMIT {
                pending.pop_front();
                if let Some(unseen) = DROPPED.pass() {
                    tracing::warn!(
                        "The console does not read: old output of ttyS0 is lost{unseen}"
                    );
                }
            }
            pending.push_back(byte);
        }
    }

    /// Sends what the stream takes at once and returns the rest; nothing remains once the console
    /// is gone.
    fn send_now<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(mut stream) = self.stream.as_ref() else {
            return &[];
        };
        match stream.write(bytes) {
            Ok(count) => bytes.get(count..).unwrap_or_default(),
            Err(error) if is_transient(&error) => bytes,
            Err(_) => {
                self.closed.store(true, Ordering::Relaxed);
                &[]
            }
        }
    }

    /// Sends what is pending, as far as the stream takes it.
    fn drain(&self) {
        let mut pending = self.pending();
        while !pending.is_empty() {
            let bytes = pending.as_slices().0;
            let left = self.send_now(bytes).len();
            let sent = bytes.len().saturating_sub(left);
            if sent == 0 {
                break;
            }
            pending.drain(..sent);
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// The thread: moves input into the FIFO and pending output onto the stream, until the console is
/// gone or the port is dropped.
fn carry(device: &Mutex<Serial>, wire: &Wire) {
    let Some(stream) = &wire.stream else { return };
    let mut input_open = true;
    while !wire.closed.load(Ordering::Relaxed) && !wire.stop.load(Ordering::SeqCst) {
        let mut wanted = PollFlags::empty();
        if input_open {
            // Said before the look, so that a read after the look wakes us.
            wire.input_waits.store(true, Ordering::SeqCst);
            if super::lock(device).room() > 0 {
                wire.input_waits.store(false, Ordering::SeqCst);
                wanted |= PollFlags::POLLIN;
            }
        }
        if !wire.pending().is_empty() {
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

#[cfg(test)]
mod tests {
    use super::super::testing::{Line as TestLine, read};
    use super::*;

    const DATA: u64 = 0;
    const INTERRUPT_ENABLE: u64 = 1;
    const LINE_STATUS: u64 = 5;
    const DATA_READY: u8 = 1;

    fn port() -> (SerialPort, UnixStream, Arc<TestLine>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let line = Arc::new(TestLine::default());
        (
            SerialPort::new(line.clone(), Some(ours)).unwrap(),
            theirs,
            line,
        )
    }

    fn write(port: &SerialPort, offset: u64, value: u8) {
        port.device.lock().unwrap().write(offset, &[value]);
    }

    /// Reads input as a guest that polls does.
    fn input(port: &SerialPort, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let mut serial = port.device.lock().unwrap();
            if read::<1>(&mut *serial, LINE_STATUS)[0] & DATA_READY == 0 {
                drop(serial);
                std::thread::yield_now();
                continue;
            }
            bytes.extend(read::<1>(&mut *serial, DATA));
        }
        bytes
    }

    #[test]
    fn output_reaches_the_console() {
        let (port, mut console, _) = port();
        for byte in b"login: " {
            write(&port, DATA, *byte);
        }
        let mut bytes = [0; 7];
        console.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"login: ");
    }

    #[test]
    fn input_larger_than_the_fifo_arrives_whole_and_in_order() {
        let (port, mut console, line) = port();
        write(&port, INTERRUPT_ENABLE, 1);
        let text: Vec<u8> = (0..1000u32).map(|n| n as u8).collect();
        console.write_all(&text).unwrap();
        assert_eq!(input(&port, text.len()), text);
        assert!(line.edges() > 0);
    }

    #[test]
    fn a_console_that_does_not_read_loses_the_oldest_output_and_blocks_nobody() {
        let (port, mut console, _) = port();
        let total = 4 * OUTPUT_LIMIT;
        for n in 0..total {
            write(&port, DATA, (n / 1000) as u8);
        }
        assert_eq!(port.wire.pending().len(), OUTPUT_LIMIT);
        drop(std::thread::spawn(move || drop(port)));
        let mut bytes = Vec::new();
        console.read_to_end(&mut bytes).unwrap();
        assert!(bytes.len() > OUTPUT_LIMIT && bytes.len() < total);
        assert_eq!(*bytes.last().unwrap(), ((total - 1) / 1000) as u8);
    }

    #[test]
    fn the_console_sees_the_end_of_its_stream_when_the_port_goes() {
        let (port, mut console, _) = port();
        let registers = port.device();
        registers.lock().unwrap().write(DATA, b"!");
        drop(port);
        registers.lock().unwrap().write(DATA, b"?");
        let mut bytes = Vec::new();
        console.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"!");
    }

    #[test]
    fn a_console_that_is_gone_costs_its_bytes_only() {
        let (port, console, _) = port();
        drop(console);
        for _ in 0..10_000 {
            write(&port, DATA, b'x');
        }
        assert!(port.wire.pending().is_empty());
        assert_eq!(
            read::<1>(&mut *port.device.lock().unwrap(), LINE_STATUS),
            [0x60]
        );
    }

    #[test]
    fn loopback_returns_what_is_written_and_holds_input_back() {
        let (port, mut console, _) = port();
        write(&port, MODEM_CONTROL.into(), LOOPBACK);
        console.write_all(b"later").unwrap();
        write(&port, DATA, b'z');
        assert_eq!(input(&port, 1), b"z");
        write(&port, MODEM_CONTROL.into(), 0x0b);
        assert_eq!(input(&port, 5), b"later");
    }

    #[test]
    fn reset_returns_the_registers_to_their_defaults() {
        let (port, _console, _) = port();
        write(&port, INTERRUPT_ENABLE, 0x0f);
        write(&port, 7, 0x5a);
        port.device.lock().unwrap().reset();
        let mut serial = port.device.lock().unwrap();
        assert_eq!(read::<1>(&mut *serial, INTERRUPT_ENABLE), [0]);
        assert_eq!(read::<1>(&mut *serial, 7), [0]);
    }
}
