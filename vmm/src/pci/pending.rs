//! Eventfds that a backend has too: looked at, signalled and taken without waiting.
//!
//! `O_NONBLOCK` is no help: the flag is shared with the backend, which can take it away. So each
//! read and write asks first whether it would wait. A backend that wins the race between the two
//! holds the vCPU that asked, and nothing else: no lock may be held around these.

#![allow(unsafe_code)] // vmm-sys-util's EventFd lends no BorrowedFd.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vmm_sys_util::eventfd::EventFd;

/// Whether `event` holds a signal that nobody has taken. It stays there. Never blocks.
pub(crate) fn is_signalled(event: &EventFd) -> bool {
    is_ready(event, PollFlags::POLLIN)
}

/// Signals `event`. One that is full is signalled already.
pub(crate) fn signal(event: &EventFd) {
    if is_ready(event, PollFlags::POLLOUT) {
        let _ = event.write(1);
    }
}

/// Takes the signal, and answers whether there was one.
pub(crate) fn take(event: &EventFd) -> bool {
    is_signalled(event) && event.read().is_ok()
}

fn is_ready(event: &EventFd, how: PollFlags) -> bool {
    // SAFETY: `event` is borrowed for the whole call, so its descriptor stays open for it.
    let fd = unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) };
    let mut fds = [PollFd::new(fd, how)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;

    #[test]
    fn looking_takes_nothing() {
        let event = EventFd::new(EFD_NONBLOCK).unwrap();
        assert!(!is_signalled(&event));
        event.write(1).unwrap();
        assert!(is_signalled(&event) && is_signalled(&event));
        assert_eq!(event.read().unwrap(), 1);
        assert!(!is_signalled(&event));
    }

    #[test]
    fn one_that_blocks_holds_nobody() {
        let event = EventFd::new(0).unwrap();
        assert!(!take(&event));
        event.write(u64::MAX - 1).unwrap();
        signal(&event);
        assert!(take(&event) && !take(&event));
        signal(&event);
        assert_eq!(event.read().unwrap(), 1);
    }
}
