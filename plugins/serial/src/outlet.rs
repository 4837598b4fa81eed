//! A socket that bytes are sent to without ever waiting for it.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use outboard_device::plugin::Board;
use outboard_device::ratelimit::RateLimit;

/// How long the last bytes are waited for when the port goes. A test's reader may be late.
const LAST_WORDS: Duration = if cfg!(test) {
    Duration::from_mins(1)
} else {
    Duration::from_millis(500)
};
/// How many of them are sent at a time.
const PIECE: usize = 4096;

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader {
    /// What it is to the port.
    what: &'static str,
    /// What to do when it does not keep up.
    remedy: &'static str,
    /// The port's base.
    port: u64,
}

impl Reader {
    /// A person or a program.
    pub(crate) fn console(port: u64) -> Self {
        Self {
            what: "console",
            remedy: "read it, or let the port end in a file",
            port,
        }
    }

    /// What writes down all that is printed.
    pub(crate) fn log(port: u64) -> Self {
        Self {
            what: "log",
            remedy: "let the guest print less, or the log lie on a faster disk",
            port,
        }
    }
}

/// What it means that it has not kept up.
impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, remedy, port } = self;
        write!(
            f,
            "The {what} of the serial port at {port:#x} does not keep up, and the oldest of what it has not read \
             is lost: {remedy}"
        )
    }
}

/// The socket, and what it has no room for now. Dropped, it sends that, for a bounded time.
pub(crate) struct Outlet {
    socket: UnixStream,
    reader: Reader,
    lost: RateLimit,
    waiting: VecDeque<u8>,
    /// How much waits at most; then the oldest goes.
    limit: usize,
    /// Nobody is there any more.
    gone: bool,
    /// What the host was last told to watch for: input, and room.
    watched: (bool, bool),
}

impl Outlet {
    /// `socket` does not block.
    pub(crate) fn new(socket: UnixStream, reader: Reader, limit: usize) -> Self {
        Self {
            socket,
            reader,
            lost: RateLimit::new(),
            waiting: VecDeque::new(),
            limit,
            gone: false,
            watched: (false, false),
        }
    }

    /// Sends, or keeps.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        if self.gone {
            return;
        }
        let mut rest = bytes;
        if self.waiting.is_empty() {
            match send_now(&self.socket, bytes) {
                Ok(count) => rest = bytes.get(count..).unwrap_or_default(),
                Err(_) => return self.give_up(),
            }
        }
        for &byte in rest {
            if self.waiting.len() >= self.limit {
                self.waiting.pop_front();
                if let Some(unseen) = self.lost.pass() {
                    tracing::warn!("{}{unseen}", self.reader);
                }
            }
            self.waiting.push_back(byte);
        }
    }

    /// Sends what waits, as far as there is room.
    pub(crate) fn drain(&mut self) {
        while !self.waiting.is_empty() {
            match send_now(&self.socket, self.waiting.as_slices().0) {
                Ok(0) => return,
                Ok(count) => drop(self.waiting.drain(..count)),
                Err(_) => self.give_up(),
            }
        }
    }

    fn give_up(&mut self) {
        self.gone = true;
        self.waiting.clear();
    }

    /// Takes what has come the other way.
    pub(crate) fn receive(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.socket.read(bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    /// Asks to be woken by input where it is wanted, and by room where bytes wait for it.
    pub(crate) fn watch(&mut self, board: &Board, input: bool) {
        let wanted = (input, !self.waiting.is_empty());
        if self.watched != wanted {
            board.watch(self.socket.as_raw_fd(), wanted.0, wanted.1);
            self.watched = wanted;
        }
    }

    fn last_words(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let begin = Instant::now();
        self.socket.set_nonblocking(false)?;
        while !self.waiting.is_empty() {
            // A time of zero is refused, which ends it.
            let left = LAST_WORDS.saturating_sub(begin.elapsed());
            self.socket.set_write_timeout(Some(left))?;
            let bytes = self.waiting.as_slices().0;
            let sent = self.socket.write(bytes.get(..PIECE).unwrap_or(bytes))?;
            self.waiting.drain(..sent);
        }
        Ok(())
    }
}

/// How many bytes the socket takes at once. An error means that nobody is there any more.
fn send_now(mut socket: &UnixStream, bytes: &[u8]) -> io::Result<usize> {
    match socket.write(bytes) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(0)
        }
        done => done,
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        // What cannot be sent by now is lost.
        let _ = self.last_words();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_does_not_keep_up_is_named_and_does_not_silence_another() {
        let (port, _far) = UnixStream::pair().unwrap();
        port.set_nonblocking(true).unwrap();
        let again = port.try_clone().unwrap();
        let mut console = Outlet::new(port, Reader::console(0x3f8), 1);
        let log = Outlet::new(again, Reader::log(0x3f8), 1);
        // Fills the socket, then loses a byte again and again.
        console.send(&vec![b'x'; 1 << 22]);
        assert!(console.lost.pass().is_none(), "nothing is lost");
        console.give_up();
        assert!(log.lost.pass().is_some());
        for (outlet, what) in [(&console, "The console of"), (&log, "The log of")] {
            let message = outlet.reader.to_string();
            for part in [what, "serial port at 0x3f8", ": "] {
                assert!(message.contains(part), "no {part} in {message}");
            }
        }
    }
}
