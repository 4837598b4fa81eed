//! Descriptors that the process has inherited, by their numbers.
#![allow(unsafe_code)] // a descriptor is inherited by its number

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// Takes the descriptor `number`, which our children do not inherit then. Call it before anything
/// else opens one.
///
/// # Errors
/// Nothing is open there, it is one of the standard streams, or it has been taken before.
pub(crate) fn take(number: RawFd) -> io::Result<OwnedFd> {
    static TAKEN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());
    if number <= libc::STDERR_FILENO {
        return Err(io::Error::other(
            "0, 1 and 2 are the standard streams; pass another descriptor",
        ));
    }
    // SAFETY: borrowed only to ask whether it is open, which does no harm when it is not.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if !taken.insert(number) {
        return Err(io::Error::other(
            "the descriptor is given for something else already; pass another one",
        ));
    }
    // SAFETY: it is open, nobody here has taken it before, and the contract above says it is ours.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::IntoRawFd;

    use super::*;

    #[test]
    fn a_descriptor_is_taken_once() {
        let number = File::open("/dev/zero").unwrap().into_raw_fd();
        let mut byte = [1];
        let taken = take(number).unwrap();
        let why = take(number).unwrap_err().to_string();
        assert!(why.contains("something else"), "{why}");
        File::from(taken).read_exact(&mut byte).unwrap();
        assert_eq!(byte, [0]);
    }

    #[test]
    fn what_is_not_open_or_a_standard_stream_is_refused() {
        assert_eq!(take(99_999).unwrap_err().raw_os_error(), Some(libc::EBADF));
        for number in [-1, 0, 2] {
            assert!(take(number).unwrap_err().to_string().contains("standard"));
        }
    }
}
