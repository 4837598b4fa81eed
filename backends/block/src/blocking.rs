//! Operations that have no asynchronous form, each on a thread of its own: the rare discard of a
//! block device.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// The name of an operation and its outcome, in bytes done.
type Outcome = (usize, io::Result<u32>);

/// Operations running on threads of their own.
#[derive(Debug)]
pub(crate) struct Blocking {
    /// Written at each end.
    wake: Arc<EventFd>,
    ends: Sender<Outcome>,
    ended: Receiver<Outcome>,
    running: usize,
}

impl Blocking {
    pub(crate) fn new() -> io::Result<Self> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let (ends, ended) = channel();
        Ok(Self {
            wake: Arc::new(wake),
            ends,
            ended,
            running: 0,
        })
    }

    /// Operations begun and not yet taken back.
    pub(crate) fn running(&self) -> usize {
        self.running
    }

    /// Runs `operation`; its end is told under the name `slot`.
    pub(crate) fn spawn(
        &mut self,
        slot: usize,
        operation: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) {
        let (wake, ends) = (Arc::clone(&self.wake), self.ends.clone());
        let spawned = std::thread::Builder::new()
            .name("blocking".into())
            .spawn(move || {
                // Neither can fail while the worker lives, and after that nobody listens.
                let _ = ends.send((slot, operation().map(|()| 0)));
                let _ = wake.write(1);
            });
        self.running = self.running.saturating_add(1);
        if let Err(error) = spawned {
            let _ = self.ends.send((slot, Err(error)));
            let _ = self.wake.write(1);
        }
    }

    /// An operation that has ended.
    pub(crate) fn finished(&mut self) -> Option<Outcome> {
        if self.running == 0 {
            return None;
        }
        let outcome = self.ended.try_recv().ok()?;
        self.running = self.running.saturating_sub(1);
        Some(outcome)
    }
}

impl AsFd for Blocking {
    /// Becomes readable with each end. It is not reset: the worker watches for edges.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    #[test]
    fn an_end_is_told_and_wakes() {
        let mut blocking = Blocking::new().unwrap();
        assert!(blocking.finished().is_none());
        blocking.spawn(7, || Err(io::Error::from_raw_os_error(libc::ENOSPC)));
        let mut fds = [PollFd::new(blocking.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::NONE), Ok(1));
        let (slot, result) = blocking.finished().unwrap();
        assert_eq!(
            (slot, result.unwrap_err().raw_os_error()),
            (7, Some(libc::ENOSPC))
        );
        assert_eq!(blocking.running(), 0);
    }
}
