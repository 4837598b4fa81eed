//! Operations that have no asynchronous form, one after the other on a thread of their own: the
//! rare discard of a block device.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// The name of an operation and its outcome, in bytes done.
type Outcome = (usize, io::Result<u32>);

/// An operation and its name.
type Job = (usize, Box<dyn FnOnce() -> io::Result<()> + Send>);

/// Operations on a thread of their own, which begins with the first and ends with this value, after
/// what was begun.
#[derive(Debug)]
pub(crate) struct Blocking {
    /// Written at each end.
    wake: Arc<EventFd>,
    jobs: Option<Sender<Job>>,
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
            jobs: None,
            ends,
            ended,
            running: 0,
        })
    }

    /// Operations begun and not yet taken back.
    pub(crate) fn running(&self) -> usize {
        self.running
    }

    /// Runs `operation` after those before it; its end is told under the name `slot`.
    pub(crate) fn run(
        &mut self,
        slot: usize,
        operation: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) {
        self.running = self.running.saturating_add(1);
        let jobs = match &self.jobs {
            Some(jobs) => jobs,
            None => match self.spawn() {
                Ok(jobs) => self.jobs.insert(jobs),
                Err(error) => return self.failed(slot, error),
            },
        };
        if jobs.send((slot, Box::new(operation))).is_err() {
            self.failed(slot, io::ErrorKind::BrokenPipe.into());
        }
    }

    fn spawn(&self) -> io::Result<Sender<Job>> {
        let (wake, ends) = (Arc::clone(&self.wake), self.ends.clone());
        let (jobs, queue) = channel::<Job>();
        std::thread::Builder::new()
            .name("blocking".into())
            .spawn(move || {
                for (slot, operation) in queue {
                    // Neither can fail while the worker lives, and after that nobody listens.
                    let _ = ends.send((slot, operation().map(|()| 0)));
                    let _ = wake.write(1);
                }
            })?;
        Ok(jobs)
    }

    fn failed(&self, slot: usize, error: io::Error) {
        // Neither can fail: the receiver is ours, and the counter far from full.
        let _ = self.ends.send((slot, Err(error)));
        let _ = self.wake.write(1);
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
    fn ends_are_told_in_order_and_wake() {
        let mut blocking = Blocking::new().unwrap();
        assert!(blocking.finished().is_none());
        blocking.run(7, || Err(io::Error::from_raw_os_error(libc::ENOSPC)));
        blocking.run(3, || Ok(()));
        assert_eq!(blocking.running(), 2);
        let mut ended = Vec::new();
        while ended.len() < 2 {
            let mut fds = [PollFd::new(blocking.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut fds, PollTimeout::NONE), Ok(1));
            if let Some((slot, result)) = blocking.finished() {
                ended.push((slot, result.err().and_then(|error| error.raw_os_error())));
            }
        }
        assert_eq!(ended, [(7, Some(libc::ENOSPC)), (3, None)]);
        assert_eq!(blocking.running(), 0);
    }
}
