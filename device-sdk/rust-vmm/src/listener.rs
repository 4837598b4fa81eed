//! Descriptors that a backend wants to hear of, as it would by `VringEpollHandler::register_listener`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use outboard_device::device::Watch;
use vmm_sys_util::epoll::EventSet;

/// A descriptor; `handle_event` is called with its number for as long as it is ready.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    events: EventSet,
    data: u16,
}

impl Listener {
    /// Listens for `EventSet::IN`, `OUT` or both. `data` is what `handle_event` gets as `device_event`: more
    /// than the number of queues, as under `vhost-user-backend`. The descriptor is duplicated.
    ///
    /// # Errors
    /// It cannot be.
    pub fn new(fd: &impl AsFd, events: EventSet, data: u16) -> io::Result<Self> {
        Ok(Self {
            fd: fd.as_fd().try_clone_to_owned()?,
            events,
            data,
        })
    }

    pub(crate) fn data(&self) -> u16 {
        self.data
    }

    pub(crate) fn watch(&self) -> Watch<'_> {
        let (reads, writes) = (EventSet::IN, EventSet::OUT);
        match (self.events.contains(reads), self.events.contains(writes)) {
            (true, true) => Watch::both(&self.fd),
            (false, true) => Watch::writable(&self.fd),
            _ => Watch::readable(&self.fd),
        }
    }

    /// What it is ready for now. (The worker's thread is told of edges; the backend expects levels.)
    pub(crate) fn ready(&self) -> EventSet {
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::POLLIN, self.events.contains(EventSet::IN));
        wanted.set(PollFlags::POLLOUT, self.events.contains(EventSet::OUT));
        let mut asked = [PollFd::new(self.fd.as_fd(), wanted)];
        let found = match poll(&mut asked, PollTimeout::ZERO) {
            Ok(1..) => asked.first().and_then(PollFd::revents),
            _ => None,
        };
        let found = found.unwrap_or(PollFlags::empty());
        let mut events = EventSet::empty();
        for (poll, epoll) in [
            (PollFlags::POLLIN, EventSet::IN),
            (PollFlags::POLLOUT, EventSet::OUT),
            (PollFlags::POLLERR, EventSet::ERROR),
            (PollFlags::POLLHUP, EventSet::HANG_UP),
        ] {
            events.set(epoll, found.contains(poll));
        }
        events
    }
}
