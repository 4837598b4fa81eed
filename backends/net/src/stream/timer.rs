//! A timer that wakes an epoll.
#![allow(unsafe_code)] // timerfd's calls.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;

/// Becomes readable once, each time it has been [`set`](Timer::set).
#[derive(Debug)]
pub(super) struct Timer(OwnedFd);

impl Timer {
    pub(super) fn new() -> io::Result<Self> {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: a plain system call.
        let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
        Errno::result(fd)?;
        // SAFETY: just opened, and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Wakes after `delay`, which is not zero, and takes back what was set before.
    pub(super) fn set(&self, delay: Duration) -> io::Result<()> {
        let never = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let time = libc::itimerspec {
            it_interval: never,
            it_value: libc::timespec {
                tv_sec: delay.as_secs().cast_signed(),
                tv_nsec: delay.subsec_nanos().into(),
            },
        };
        // SAFETY: the time is a live local; the old one is not asked for.
        let result = unsafe {
            libc::timerfd_settime(self.0.as_raw_fd(), 0, &raw const time, std::ptr::null_mut())
        };
        Errno::result(result)?;
        Ok(())
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
