//! Operations that need not wait, done at once on the worker's thread.
//!
//! Data in the page cache is a copy away, and a copy takes less time than handing the operation to
//! another thread of the kernel and being woken by it. So a read first asks for what is cached
//! (`RWF_NOWAIT`), and only the rest goes through `io_uring`. A file in memory (tmpfs) refuses that
//! flag but never waits for a disk at all (`in_memory`).
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::io;
use std::sync::Arc;

use super::in_memory::InMemory;
use crate::image::Image;
use crate::image::raw;
use crate::op::Op;
use crate::plan::HostIo;

/// The most bytes that are copied at once: a guest can have one request name the same memory over
/// and over, and the worker has to see that it is to stop.
const MOST: usize = 16 << 20;

/// What can be done at once on one image.
#[derive(Debug)]
pub(super) enum Inline {
    /// Every transfer: the image lies in memory.
    All(InMemory),
    /// Reads of what is cached.
    CachedReads,
    /// Nothing: there is no cache to ask, or this file system cannot say what is in it.
    Nothing,
}

impl Inline {
    /// What can be done at once on `image`.
    pub(super) fn of(image: &Arc<Image>) -> Self {
        match image.raw() {
            Some(raw) if raw.is_direct() => Self::Nothing,
            Some(raw) if raw.in_memory() => Self::All(InMemory::new(image)),
            Some(_) => Self::CachedReads,
            None => Self::Nothing,
        }
    }

    /// Runs the operation if that takes no waiting; `None` when it is better left to the ring.
    /// `op` must have gathered for `io`.
    pub(super) fn run(&mut self, image: &Image, op: &Op, io: HostIo) -> Option<io::Result<u32>> {
        let file = image.raw()?.file();
        let pieces = op.pieces();
        let len = pieces.iter().try_fold(0usize, |sum, piece| {
            sum.checked_add(piece.len()).filter(|sum| *sum <= MOST)
        });
        len?;
        match (&mut *self, io) {
            (Self::All(memory), io) => memory.run(file, op, io),
            (Self::CachedReads, HostIo::Read { offset, .. }) => {
                match raw::read(file, pieces, offset, libc::RWF_NOWAIT) {
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
