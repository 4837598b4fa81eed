//! Looking at an eventfd without taking its signal.

#![allow(unsafe_code)] // vmm-sys-util's EventFd lends no BorrowedFd.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vmm_sys_util::eventfd::EventFd;

/// Whether `event` holds a signal that nobody has taken. It stays there. Never blocks.
pub(crate) fn is_signalled(event: &EventFd) -> bool {
    // SAFETY: `event` is borrowed for the whole call, so its descriptor stays open for it.
    let fd = unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) };
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
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
}
