//! The stream to the console: output that never blocks, and a wake-up for the port's thread.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::eventfd::{EfdFlags, EventFd};
use outboard_device::ratelimit::RateLimit;

use super::transcript::Printed;

/// How much output waits for a console that does not read, in bytes.
pub const OUTPUT_LIMIT: usize = 256 << 10;

/// What the registers and the thread share.
pub(super) struct Wire {
    pub(super) stream: Option<UnixStream>,
    /// Output that the stream had no room for.
    pending: Mutex<VecDeque<u8>>,
    /// Output that is to be written down, where it is.
    pub(super) printed: Option<Mutex<Printed>>,
    /// No console is there any more.
    pub(super) closed: AtomicBool,
    /// The thread does not look at the stream's input, for want of room in the FIFO.
    pub(super) input_waits: AtomicBool,
    pub(super) stop: AtomicBool,
    pub(super) event: EventFd,
}

impl Wire {
    pub(super) fn new(stream: Option<UnixStream>, kept: bool) -> io::Result<Self> {
        Ok(Self {
            printed: kept.then(Mutex::default),
            closed: AtomicBool::new(stream.is_none()),
            stream,
            pending: Mutex::new(VecDeque::new()),
            input_waits: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            event: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
        })
    }

    pub(super) fn pending(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the thread look again.
    pub(super) fn wake(&self) {
        // Fails only when the counter is full, and then the thread is awake anyway.
        let _ = self.event.write(1);
    }

    /// The guest took a byte, or changed whether any come.
    pub(super) fn input_read(&self) {
        if self.input_waits.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }

    /// Sends, or keeps for the thread, what the guest wrote.
    pub(super) fn send(&self, bytes: &[u8]) {
        static DROPPED: RateLimit = RateLimit::new();
        if let Some(printed) = &self.printed
            && super::super::lock(printed).push(bytes)
        {
            self.wake();
        }
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
    pub(super) fn drain(&self) {
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

/// Whether trying again later may succeed.
pub(super) fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
