//! Deadlines, and the thread that sees what happens while nobody waits for the backend.
//!
//! A call that missed its deadline ends the connection, never just the call: its late reply would
//! answer the next one. The end is shutdown(2), which makes a blocked call return; timeouts of the
//! socket do not, since the `vhost` crate retries for ever.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use vmm_sys_util::eventfd::EventFd as Signal;

use super::inbox::Inbox;
use super::requests::{Channel, Requests};

/// A backend that floods us with requests is heard again after this.
const REST: Duration = Duration::from_millis(10);

/// What the watcher shares with the actor and with those who reset the device.
#[derive(Debug)]
pub(super) struct Watch {
    watched: Mutex<Watched>,
    wake: EventFd,
    /// Signalled by a backend whose device is broken.
    broken: Signal,
}

#[derive(Debug, Default)]
struct Watched {
    /// A clone of the actor's stream; `None` while there is no connection.
    stream: Option<Arc<UnixStream>>,
    /// Counts connections, so that news of an old one is told from news of this one.
    epoch: u64,
    /// The stream's end has been reported.
    ended: bool,
    /// A channel for the watcher to take.
    requests: Option<Requests>,
    call_due: Option<Instant>,
    reset_due: Option<Instant>,
    /// This connection was cut by a deadline.
    expired: bool,
    closing: bool,
}

impl Watch {
    pub(super) fn new() -> Result<Self, Errno> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let wake = EventFd::from_flags(flags)?;
        let broken = Signal::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
        let broken = broken.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
        Ok(Self {
            watched: Mutex::default(),
            wake,
            broken,
        })
    }

    /// A new connection is to be watched. Returns its number.
    pub(super) fn connect(&self, stream: UnixStream) -> u64 {
        let mut watched = self.watched();
        if watched.closing {
            let _ = stream.shutdown(Shutdown::Both);
        }
        watched.stream = Some(Arc::new(stream));
        watched.epoch = watched.epoch.wrapping_add(1);
        (watched.ended, watched.expired, watched.requests) = (false, false, None);
        let epoch = watched.epoch;
        drop(watched);
        self.wake();
        epoch
    }

    /// What a backend is to signal when the device is broken.
    pub(super) fn broken(&self) -> io::Result<Signal> {
        self.broken.try_clone()
    }

    /// The connection's request channel is to be served.
    pub(super) fn serve(&self, requests: Requests) {
        self.watched().requests = Some(requests);
        self.wake();
    }

    /// Ends the connection, if there is one; calls on it return at once.
    pub(super) fn cut(&self) {
        let mut watched = self.watched();
        if let Some(stream) = watched.stream.take() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        watched.requests = None;
        drop(watched);
        self.wake();
    }

    /// Whether a deadline ended the present or last connection.
    pub(super) fn expired(&self) -> bool {
        self.watched().expired
    }

    /// Until the guard is dropped: the connection is cut when `time` is over. One at a time.
    pub(super) fn within(&self, time: Duration) -> Guard<'_> {
        self.watched().call_due = Instant::now().checked_add(time);
        self.wake();
        Guard(self)
    }

    /// The connection is cut when `time` is over, unless [`Self::disarm_reset`] comes first; this
    /// holds for whatever the actor is doing. A later deadline does not replace an earlier one.
    pub(super) fn arm_reset(&self, time: Duration) {
        let mut watched = self.watched();
        watched.reset_due = watched
            .reset_due
            .or_else(|| Instant::now().checked_add(time));
        drop(watched);
        self.wake();
    }

    pub(super) fn disarm_reset(&self) {
        self.watched().reset_due = None;
    }

    /// The device goes: the watcher ends, this connection and every later one is cut.
    pub(super) fn close(&self) {
        self.watched().closing = true;
        self.cut();
    }

    /// The watcher's thread; returns after [`Self::close`].
    pub(super) fn run(&self, inbox: &Inbox) {
        let mut requests: Option<Requests> = None;
        let mut rest: Option<Instant> = None;
        loop {
            let _ = self.wake.read();
            if self.broken.read().is_ok() {
                inbox.broken();
            }
            rest = rest.filter(|end| *end > Instant::now());
            let (stream, due) = {
                let mut watched = self.watched();
                if watched.closing {
                    return;
                }
                watched.expire();
                match watched.requests.take() {
                    Some(new) => requests = Some(new),
                    None if watched.stream.is_none() => requests = None,
                    None => {}
                }
                let stream = watched.stream.clone().filter(|_| !watched.ended);
                (
                    stream,
                    [watched.call_due, watched.reset_due, rest]
                        .into_iter()
                        .flatten()
                        .min(),
                )
            };
            let channel = requests
                .as_ref()
                .filter(|_| rest.is_none())
                .map(Requests::stream);
            let Ok((ended, asked)) = self.wait(stream.as_deref(), channel, due) else {
                tracing::error!("A device's watcher cannot wait; its deadlines are gone");
                return;
            };
            if ended && let Some(epoch) = self.watched().end(stream.as_ref()) {
                inbox.lost(epoch);
            }
            if asked && let Some(channel) = &mut requests {
                match channel.serve(|| inbox.config_changed()) {
                    Channel::Idle => {}
                    Channel::Busy => rest = Instant::now().checked_add(REST),
                    Channel::Closed => requests = None,
                }
            }
        }
    }

    /// Sleeps; answers whether the stream has ended and whether the channel has something.
    fn wait(
        &self,
        stream: Option<&UnixStream>,
        channel: Option<&UnixStream>,
        due: Option<Instant>,
    ) -> Result<(bool, bool), Errno> {
        // nix has no name for it; it counts as "any" below for the same reason.
        let hang_up = PollFlags::from_bits_retain(libc::POLLRDHUP);
        let mut fds = vec![
            PollFd::new(self.wake.as_fd(), PollFlags::POLLIN),
            PollFd::new(borrow(&self.broken), PollFlags::POLLIN),
        ];
        fds.extend(stream.map(|stream| PollFd::new(stream.as_fd(), hang_up)));
        fds.extend(channel.map(|channel| PollFd::new(channel.as_fd(), PollFlags::POLLIN)));
        let timeout = due.map_or(PollTimeout::NONE, |due| {
            let left = due.saturating_duration_since(Instant::now());
            // Rounded up: waking a moment early would only mean waking twice.
            let millis = u16::try_from(left.as_millis()).unwrap_or(u16::MAX);
            PollTimeout::from(millis.saturating_add(1))
        });
        match poll(&mut fds, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok((false, false)),
            Err(error) => return Err(error),
        }
        let mut ready = fds.iter().skip(2).map(|fd| fd.any().unwrap_or(true));
        let ended = stream.is_some() && ready.next().unwrap_or(false);
        Ok((ended, ready.next().unwrap_or(false)))
    }

    fn wake(&self) {
        // Fails only when the counter is full, and then the watcher is awake.
        let _ = self.wake.write(1);
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The descriptor, which the type does not lend.
#[allow(unsafe_code)]
fn borrow(event: &Signal) -> BorrowedFd<'_> {
    // SAFETY: open for as long as the event is borrowed.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

impl Watched {
    /// Cuts the connection if a deadline has passed.
    fn expire(&mut self) {
        let now = Instant::now();
        if [self.call_due, self.reset_due]
            .into_iter()
            .flatten()
            .all(|due| due > now)
        {
            return;
        }
        (self.call_due, self.reset_due) = (None, None);
        if let Some(stream) = &self.stream {
            let _ = stream.shutdown(Shutdown::Both);
            self.expired = true;
        }
    }

    /// The epoch of the stream that ended, if it still is the present one.
    fn end(&mut self, stream: Option<&Arc<UnixStream>>) -> Option<u64> {
        let present =
            Option::zip(self.stream.as_ref(), stream).is_some_and(|(a, b)| Arc::ptr_eq(a, b));
        self.ended |= present;
        present.then_some(self.epoch)
    }
}

/// A deadline that is gone when this is dropped.
#[derive(Debug)]
pub(super) struct Guard<'a>(&'a Watch);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.watched().call_due = None;
    }
}
