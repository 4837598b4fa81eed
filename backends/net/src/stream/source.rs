//! Where a stream's peer comes from.
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt,
};
use outboard_device::daemon::Socket;

use super::timer::Timer;
use crate::inherit;

/// Wait before the second attempt to connect; each further one takes twice as long,
const FIRST_DELAY: Duration = Duration::from_millis(100);

/// up to this.
const LAST_DELAY: Duration = Duration::from_secs(5);

/// The ways to a peer.
#[derive(Debug)]
pub(super) enum Source {
    /// It came with the process; there is no other.
    Inherited,
    /// It listens at a path.
    Dial(Dial),
    /// It connects to us.
    Listen(Socket),
}

/// Attempts to connect, at growing distances.
#[derive(Debug)]
pub(super) struct Dial {
    path: PathBuf,
    timer: Timer,
    delay: Duration,
    /// When the next attempt is due.
    due: Instant,
}

impl Dial {
    pub(super) fn new(path: &Path, timer: Timer) -> Self {
        Self {
            path: path.to_owned(),
            timer,
            delay: FIRST_DELAY,
            due: Instant::now(),
        }
    }

    /// Tries to connect when it is time; an attempt that fails sets the time of the next one.
    pub(super) fn attempt(&mut self) -> io::Result<Option<UnixStream>> {
        if Instant::now() < self.due {
            return Ok(None);
        }
        match connect_to(&self.path) {
            Ok(peer) => Ok(Some(peer)),
            Err(error) => {
                self.later()?;
                Err(error)
            }
        }
    }

    /// The peer has proved to be one: should it go, the next is looked for soon.
    pub(super) fn proved(&mut self) {
        self.delay = FIRST_DELAY;
    }

    /// Puts the next attempt off.
    pub(super) fn later(&mut self) -> io::Result<()> {
        let now = Instant::now();
        // Half, lest the timer wake us a little before our own time.
        let soon = self.delay.checked_div(2).unwrap_or_default();
        self.due = now.checked_add(soon).unwrap_or(now);
        self.timer.set(self.delay)?;
        self.delay = self.delay.saturating_mul(2).min(LAST_DELAY);
        Ok(())
    }
}

/// Readable when the next attempt is due.
impl AsFd for Dial {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

/// Connects without waiting: a listener whose queue is full is an error like any other.
fn connect_to(path: &Path) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket.into())
}

/// Takes the inherited stream `fd` over.
pub(super) fn inherited(fd: RawFd) -> io::Result<UnixStream> {
    let fd = inherit::take(fd)?;
    if getsockopt(&fd, sockopt::SockType)? != SockType::Stream {
        return Err(io::Error::from_raw_os_error(libc::EPROTOTYPE));
    }
    let stream = UnixStream::from(fd);
    nix::sys::socket::getpeername::<nix::sys::socket::SockaddrStorage>(stream.as_raw_fd())?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;

    #[test]
    fn attempts_keep_their_distance() {
        let folder = tempfile::tempdir().unwrap();
        let mut dial = Dial::new(&folder.path().join("nobody"), Timer::new().unwrap());
        assert!(dial.attempt().is_err());
        assert!(matches!(dial.attempt(), Ok(None)), "too soon");
        for _ in 0..40 {
            dial.later().unwrap();
        }
        assert_eq!(dial.delay, LAST_DELAY);
        dial.proved();
        assert_eq!(dial.delay, FIRST_DELAY);
    }

    #[test]
    fn only_a_connected_stream_is_inherited() {
        let (a, _b) = UnixStream::pair().unwrap();
        assert!(inherited(a.into_raw_fd()).is_ok());
        let (datagrams, _other) = std::os::unix::net::UnixDatagram::pair().unwrap();
        assert!(inherited(datagrams.into_raw_fd()).is_err());
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(inherited(file.into_raw_fd()).is_err());
        let folder = tempfile::tempdir().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(folder.path().join("l")).unwrap();
        assert!(inherited(listener.into_raw_fd()).is_err());
        assert!(inherited(2).is_err() && inherited(-1).is_err() && inherited(1 << 20).is_err());
    }
}
