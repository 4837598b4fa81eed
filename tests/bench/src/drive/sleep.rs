//! How a driver sleeps: it asks for an interrupt, looks once more, and waits for the call eventfds.

// The call eventfds are polled by their numbers, which have to be borrowed for that.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::Lane;
use crate::error::{Error, Result};

/// Asked to stop, a sleeper hears of it within this time.
const LONGEST: Duration = Duration::from_millis(50);

/// Sleeps until a device calls, for at most `limit`; how often it called. Returns at once when
/// something has been completed meanwhile.
pub(super) fn until_called<L>(lanes: &mut [Lane<L>], limit: Duration) -> Result<u64> {
    let mut ready = false;
    for lane in &mut *lanes {
        ready |= lane.queue.ring_mut().arm();
    }
    let mut calls = 0;
    if !ready {
        let mut fds: Vec<_> = lanes
            .iter()
            .map(|lane| PollFd::new(fd(lane), PollFlags::POLLIN))
            .collect();
        match ppoll(&mut fds, Some(TimeSpec::from(limit.min(LONGEST))), None) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(Error::errno("wait for the call eventfds")(error)),
        }
    }
    for lane in &mut *lanes {
        lane.queue.ring_mut().disarm();
        calls += lane.queue.take_calls()?;
    }
    Ok(calls)
}

fn fd<L>(lane: &Lane<L>) -> BorrowedFd<'_> {
    // SAFETY: the lane's queue owns the descriptor for as long as the lane is borrowed.
    unsafe { BorrowedFd::borrow_raw(lane.queue.call_fd().as_raw_fd()) }
}
