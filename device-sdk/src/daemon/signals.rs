//! SIGTERM and SIGINT, turned into an orderly end; SIGUSR1, turned into a look at the world outside.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use tracing::debug;

use crate::device::Refresher;

/// A signal that comes sooner after the first is one with it: the parent-death signal comes once for
/// each thread of a parent that is killed, since the child passes from one to the next.
const PATIENCE: Duration = Duration::from_secs(1);

/// The wish to end, and what has to be told of it.
#[derive(Debug)]
pub(super) struct Stop {
    requested: AtomicBool,
    /// Readable once an end is wished.
    bell: EventFd,
    /// The streams being served, to be cut.
    streams: Mutex<Vec<UnixStream>>,
}

/// The signals, blocked in the thread that made this and in all that it starts.
#[derive(Debug)]
pub(super) struct Signals(SigSet);

impl Signals {
    /// Also has what goes past the limit of file sizes (`ulimit -f`) fail as any other I/O, and not
    /// end the daemon by SIGXFSZ.
    pub(super) fn block() -> io::Result<Self> {
        // SAFETY: to ignore a signal runs no code.
        unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }?;
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGTERM);
        signals.add(Signal::SIGINT);
        signals.add(Signal::SIGUSR1);
        signals.thread_block()?;
        Ok(Self(signals))
    }

    /// Waits for them, also for those that have come already, in a thread of its own, which calls
    /// `refresh` at each SIGUSR1.
    pub(super) fn wait_in_thread(&self, refresh: Option<Refresher>) -> io::Result<Arc<Stop>> {
        let signals = self.0;
        let stop = Arc::new(Stop::new()?);
        let asked = Arc::clone(&stop);
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                let mut since = None;
                while let Ok(signal) = signals.wait() {
                    if signal == Signal::SIGUSR1 {
                        if let Some(refresh) = &refresh {
                            refresh();
                        } else {
                            debug!("SIGUSR1 means nothing to this device");
                        }
                        continue;
                    }
                    let since = since.get_or_insert_with(Instant::now);
                    if asked.request() && since.elapsed() >= PATIENCE {
                        // Asked again: do not wait for requests that do not end.
                        process::exit(128 + signal as i32);
                    }
                }
            })?;
        Ok(stop)
    }
}

impl Stop {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            requested: AtomicBool::new(false),
            bell: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            streams: Mutex::default(),
        })
    }

    /// Asks for the end; true if that was done before.
    pub(super) fn request(&self) -> bool {
        let before = self.requested.swap(true, Ordering::SeqCst);
        let _ = self.bell.write(1);
        self.cut();
        before
    }

    fn cut(&self) {
        for stream in &*self.streams() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn streams(&self) -> MutexGuard<'_, Vec<UnixStream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn requested(&self) -> bool {
        self.requested.load(Ordering::SeqCst)
    }

    /// Cuts this stream when the end is wished, as long as the value lives; at once, if it already is.
    pub(super) fn watch(&self, stream: &UnixStream) -> io::Result<Watched<'_>> {
        let clone = stream.try_clone()?;
        let number = clone.as_raw_fd();
        self.streams().push(clone);
        if self.requested() {
            self.cut();
        }
        Ok(Watched { stop: self, number })
    }
}

/// A stream that is cut at the end.
#[derive(Debug)]
pub(super) struct Watched<'a> {
    stop: &'a Stop,
    /// Its descriptor among those of [`Stop`].
    number: RawFd,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let mut streams = self.stop.streams();
        streams.retain(|stream| stream.as_raw_fd() != self.number);
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_wish_to_stop_cuts_the_streams_that_are_served() {
        let stop = Stop::new().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (done, mut its) = UnixStream::pair().unwrap();
        let _watched = stop.watch(&ours).unwrap();
        drop(stop.watch(&done).unwrap());
        assert!(!stop.request());
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
        assert!(theirs.write(&[0]).is_err());
        assert_eq!(its.write(&[0]).unwrap(), 1, "no longer served");
        assert!(stop.request());
        let (late, mut other) = UnixStream::pair().unwrap();
        let _late = stop.watch(&late).unwrap();
        assert_eq!(other.read(&mut [0]).unwrap(), 0);
    }
}
