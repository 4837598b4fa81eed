//! What the port is connected to.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use outboard_device::DeviceError;
use outboard_device::plugin::{Board, Options};

use crate::outlet::{Outlet, Reader};

/// How much output is kept for a reader that does not read, in bytes.
pub(crate) const OUTPUT_LIMIT: usize = 256 << 10;
/// How much is kept for one that takes a copy and falls behind.
const COPY_LIMIT: usize = 64 << 10;
/// A longer line is copied in pieces.
const LINE_MAX: usize = 1024;

/// Where output goes and input comes from. The writer of the UART: it never blocks and never fails, for a
/// serial line does not say either when nobody listens.
#[derive(Default)]
pub(crate) struct Far {
    end: End,
    copy: Option<Copy>,
}

#[derive(Default)]
enum End {
    #[default]
    Nowhere,
    File(File),
    Socket {
        outlet: Outlet,
        /// The other side has not ended its input.
        open: bool,
    },
}

/// What the far end had.
pub(crate) enum Input {
    Bytes(usize),
    NoneNow,
}

impl Far {
    /// Of the port whose base is `port`.
    pub(crate) fn from_options(options: &Options<'_>, port: u64) -> Result<Self, DeviceError> {
        let failed = |what: String| move |error| DeviceError::io(what, error);
        let end = match (options.path("path"), options.number("fd")) {
            (None, None) => End::Nowhere,
            (Some(path), None) => {
                End::open(path, port).map_err(failed(format!("open path={}", path.display())))?
            }
            (None, Some(fd)) => {
                End::socket(own(fd).map_err(failed(format!("take fd={fd}")))?, port)
            }
            (Some(_), Some(_)) => {
                return Err(DeviceError::other("path and fd are two ends; give one"));
            }
        };
        let copy = match options.number("copy-fd") {
            None => None,
            Some(fd) => Some(Copy::new(
                own(fd).map_err(failed(format!("take copy-fd={fd}")))?,
                port,
            )),
        };
        Ok(Self { end, copy })
    }

    /// Takes input that is there.
    pub(crate) fn receive(&mut self, bytes: &mut [u8]) -> Input {
        let End::Socket { outlet, open } = &mut self.end else {
            return Input::NoneNow;
        };
        match outlet.receive(bytes) {
            Ok(0) => {
                *open = false;
                Input::NoneNow
            }
            Ok(count) => Input::Bytes(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Input::NoneNow,
            Err(_) => {
                *open = false;
                Input::NoneNow
            }
        }
    }

    /// Sends what has waited, as far as there is room.
    pub(crate) fn drain(&mut self) {
        if let End::Socket { outlet, .. } = &mut self.end {
            outlet.drain();
        }
        if let Some(copy) = &mut self.copy {
            copy.outlet.drain();
        }
    }

    /// Asks to be woken by input, and by room where output waits for it.
    pub(crate) fn watch(&mut self, board: &Board) {
        if let End::Socket { outlet, open } = &mut self.end {
            outlet.watch(board, *open);
        }
        if let Some(copy) = &mut self.copy {
            copy.outlet.watch(board, false);
        }
    }
}

impl Write for Far {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.end {
            End::Nowhere => {}
            End::File(file) => drop(file.write_all(bytes)),
            End::Socket { outlet, .. } => outlet.send(bytes),
        }
        if let Some(copy) = &mut self.copy {
            copy.print(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl End {
    fn open(path: &Path, port: u64) -> io::Result<Self> {
        if let Ok(socket) = UnixStream::connect(path) {
            socket.set_nonblocking(true)?;
            return Ok(Self::socket(socket, port));
        }
        let file = File::options().append(true).create(true).open(path)?;
        Ok(Self::File(file))
    }

    fn socket(socket: UnixStream, port: u64) -> Self {
        Self::Socket {
            outlet: Outlet::new(socket, Reader::console(port), OUTPUT_LIMIT),
            open: true,
        }
    }
}

/// The Unix socket that has this number in our process, as a descriptor of our own: whoever opened it closes it.
fn own(number: u64) -> io::Result<UnixStream> {
    let number = RawFd::try_from(number).map_err(|_| ErrorKind::InvalidInput)?;
    // SAFETY: it is duplicated and no more, which fails where nothing is open.
    let fd = unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned()?;
    let socket = UnixStream::from(fd);
    // Fails for what is no Unix socket.
    socket.local_addr()?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// What is printed, for somebody who reads lines: one write a line, so that it is not woken by each byte.
struct Copy {
    outlet: Outlet,
    line: Vec<u8>,
}

impl Copy {
    fn new(socket: UnixStream, port: u64) -> Self {
        Self {
            outlet: Outlet::new(socket, Reader::log(port), COPY_LIMIT),
            line: Vec::new(),
        }
    }

    fn print(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.line.push(byte);
            if byte == b'\n' || self.line.len() >= LINE_MAX {
                self.outlet.send(&self.line);
                self.line.clear();
            }
        }
    }
}

impl Drop for Copy {
    /// What is left of a line is told too.
    fn drop(&mut self) {
        self.outlet.send(&self.line);
    }
}
