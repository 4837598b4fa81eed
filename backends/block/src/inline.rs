//! Operations that need not wait, done at once on the worker's thread.
//!
//! Data in the page cache is a copy away, and a copy takes less time than handing the operation to
//! another thread of the kernel and being woken by it. So a read first asks for what is cached
//! (`RWF_NOWAIT`), and only the rest goes through `io_uring`. A file in memory (tmpfs) refuses that
//! flag but never waits for a disk at all: there every transfer is plain.
#![allow(unsafe_code)] // Reads and writes go straight between the image and guest memory.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::ffi::c_int;
use std::io;
use std::os::fd::AsRawFd;

use libc::iovec;
use nix::errno::Errno;

use crate::image::Image;
use crate::op::Op;
use crate::plan::HostIo;

/// What can be done at once on one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inline {
    /// Everything: the image lies in memory.
    All,
    /// Reads of what is cached.
    CachedReads,
    /// Nothing: this file system cannot say what is cached.
    Nothing,
}

impl Inline {
    /// What can be done at once on `image`.
    pub fn of(image: &Image) -> Self {
        if image.in_memory() {
            Self::All
        } else {
            Self::CachedReads
        }
    }

    /// Runs the operation if that takes no waiting; `None` when it is better left to the ring.
    /// `op` must have gathered for `io`.
    pub fn run(&mut self, image: &Image, op: &Op, io: HostIo) -> Option<io::Result<u32>> {
        match (*self, io) {
            (Self::All, HostIo::Read { offset, .. }) => Some(read(image, op, offset, 0)),
            (Self::All, HostIo::Write { offset, .. }) => Some(write(image, op, offset)),
            (Self::All, HostIo::Sync) => Some(Ok(0)),
            (Self::CachedReads, HostIo::Read { offset, .. }) => {
                match read(image, op, offset, libc::RWF_NOWAIT) {
                    Ok(count) if count > 0 => Some(Ok(count)),
                    Err(error) if is_unsupported(&error) => {
                        *self = Self::Nothing;
                        None
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOSYS)
    )
}

fn read(image: &Image, op: &Op, offset: u64, flags: c_int) -> io::Result<u32> {
    let (pieces, count) = pieces(op);
    // SAFETY: the pieces are writable guest memory of the op's request, mapped while it lives.
    let done = unsafe {
        libc::preadv2(
            image.file().as_raw_fd(),
            pieces,
            count,
            offset.cast_signed(),
            flags,
        )
    };
    Ok(u32::try_from(Errno::result(done)?).unwrap_or(u32::MAX))
}

fn write(image: &Image, op: &Op, offset: u64) -> io::Result<u32> {
    let (pieces, count) = pieces(op);
    // SAFETY: the pieces are guest memory of the op's request, mapped while it lives.
    let done = unsafe {
        libc::pwritev(
            image.file().as_raw_fd(),
            pieces,
            count,
            offset.cast_signed(),
        )
    };
    Ok(u32::try_from(Errno::result(done)?).unwrap_or(u32::MAX))
}

fn pieces(op: &Op) -> (*const iovec, c_int) {
    let pieces = op.pieces();
    // `Segment` has the layout of an iovec, and there are at most 1024.
    (
        pieces.as_ptr().cast(),
        c_int::try_from(pieces.len()).unwrap_or(c_int::MAX),
    )
}
