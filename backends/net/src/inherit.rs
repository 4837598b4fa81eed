//! Descriptors that come with the process, named by number on the command line.
#![allow(unsafe_code)] // A descriptor named by number is taken over.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};

/// Takes over the inherited descriptor `fd`: from here on close-on-exec and non-blocking. Only for
/// a number from the command line that nothing else in the process uses, and only once.
///
/// # Errors
/// `EBADF` when nothing is open there, or it is standard input, output or error.
pub(crate) fn take(fd: RawFd) -> io::Result<OwnedFd> {
    if fd <= libc::STDERR_FILENO {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: borrowed only to ask whether it is open, which does no harm when it is not.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    fcntl(borrowed, FcntlArg::F_GETFD)?;
    // SAFETY: it is open, and the contract above says it is ours.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(fd)
}
