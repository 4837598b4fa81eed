//! A raw image: the bytes of a file or a block device are the bytes of the disk.
#![allow(unsafe_code)] // Transfers go straight between the image and guest memory.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use outboard_device::Segment;

use super::direct::Direct;
use super::mapped::Mapping;
use super::{SECTOR, blockdev};
use crate::bounce::Bounce;
use crate::op::Op;
use crate::plan::HostIo;

/// What zeroes are written from, piece by piece.
static ZEROES: [u8; 1 << 16] = [0; 1 << 16];

/// An open raw image.
#[derive(Debug)]
pub struct Raw {
    file: File,
    direct: Option<Direct>,
    block_device: bool,
    /// The file system makes holes.
    punch: bool,
    /// The file as it was last mapped.
    mapping: Mutex<Option<Arc<Mapping>>>,
}

impl Raw {
    /// The image in `file`, of `size` bytes; with `direct`, transfers go past the page cache.
    pub(super) fn new(file: File, direct: Option<Direct>, block_device: bool, size: u64) -> Self {
        Self {
            punch: !block_device && can_punch(&file, size),
            file,
            direct,
            block_device,
            mapping: Mutex::default(),
        }
    }

    /// The open file: read and write it at byte offsets within the disk.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether transfers go past the page cache, where they are aligned to.
    pub fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// Whether it is a block device of the host.
    pub fn is_block_device(&self) -> bool {
        self.block_device
    }

    /// Whether space can be given back: holes in a file, discard on a device.
    pub(super) fn can_discard(&self) -> bool {
        self.block_device || self.punch
    }

    /// Whether it lies in memory (tmpfs): reading and writing it never waits for a disk, and there
    /// is nothing to flush. Of a block device only the node in /dev does.
    pub fn in_memory(&self) -> bool {
        !self.block_device
            && nix::sys::statfs::fstatfs(&self.file)
                .is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::TMPFS_MAGIC)
    }

    /// The file of `size` bytes, mapped: once for all who ask for that size, and anew for
    /// another, or when it was cut.
    pub(super) fn mapping(&self, size: u64, writable: bool) -> io::Result<Arc<Mapping>> {
        let mut mapping = self.mapping.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |mapping: &&Arc<Mapping>| mapping.size() == size && !mapping.is_cut();
        if let Some(mapping) = mapping.as_ref().filter(fits) {
            return Ok(Arc::clone(mapping));
        }
        let new = Arc::new(Mapping::new(&self.file, size, writable)?);
        *mapping = Some(Arc::clone(&new));
        Ok(new)
    }

    /// The descriptor for `io`, for which `op` has gathered. A transfer that is not made of whole
    /// blocks goes through the page cache, with which the kernel keeps direct I/O coherent.
    pub fn file_for(&self, op: &Op, io: HostIo) -> &File {
        match (&self.direct, io) {
            (Some(direct), HostIo::Read { offset, .. } | HostIo::Write { offset, .. })
                if direct.covers(offset, total(op.pieces())) =>
            {
                &direct.file
            }
            _ => &self.file,
        }
    }

    /// Whether `io` can use the memory that `op` has gathered as it lies.
    pub fn in_place(&self, op: &Op, io: HostIo) -> bool {
        match (&self.direct, io) {
            (Some(direct), HostIo::Read { offset, .. } | HostIo::Write { offset, .. }) => {
                direct.reaches(op.pieces()) || !direct.covers(offset, total(op.pieces()))
            }
            _ => true,
        }
    }

    /// Carries out `io`, for which `op` has gathered. Waits until it is done.
    pub(super) fn perform(&self, op: &Op, io: HostIo, bounce: &mut Bounce) -> io::Result<u32> {
        let file = self.file_for(op, io);
        let in_place = self.in_place(op, io);
        match io {
            HostIo::Read { offset, .. } if in_place => read(file, op.pieces(), offset, 0),
            HostIo::Read { offset, done } => {
                let Some(mut room) = op.room(done) else {
                    return Ok(0);
                };
                let buffer = bounce.get(gathered(op));
                let count = file.read_at(buffer, offset)?;
                room.write(buffer.get(..count).unwrap_or_default());
                Ok(as_count(count))
            }
            HostIo::Write {
                offset, durable, ..
            } if in_place => {
                let flags = if durable { libc::RWF_DSYNC } else { 0 };
                write(file, op.pieces(), offset, flags)
            }
            HostIo::Write {
                offset,
                done,
                durable,
            } => {
                let Some(mut data) = op.data(done) else {
                    return Ok(0);
                };
                let buffer = bounce.get(gathered(op));
                data.read(buffer);
                let count = file.write_at(buffer, offset)?;
                if durable {
                    file.sync_data()?;
                }
                Ok(as_count(count))
            }
            HostIo::WriteZeroes { offset, len } => {
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                let zeroes = ZEROES.get(..len).unwrap_or(&ZEROES);
                file.write_at(zeroes, offset).map(as_count)
            }
            HostIo::Punch { offset, len } => {
                allocate(file, FallocateFlags::FALLOC_FL_PUNCH_HOLE, offset, len)
            }
            HostIo::ZeroRange { offset, len } => {
                allocate(file, FallocateFlags::FALLOC_FL_ZERO_RANGE, offset, len)
            }
            HostIo::Discard { offset, len } => blockdev::discard(file, offset, len).map(|()| 0),
            HostIo::Sync => file.sync_data().map(|()| 0),
        }
    }
}

/// Reads into guest memory, with `preadv2`'s flags.
pub fn read(file: &File, pieces: &[Segment], offset: u64, flags: c_int) -> io::Result<u32> {
    let (iovecs, count) = iovecs(pieces);
    // SAFETY: the pieces are writable guest memory of a request, mapped while it lives; whoever has
    // the pieces has the request.
    let done =
        unsafe { libc::preadv2(file.as_raw_fd(), iovecs, count, offset.cast_signed(), flags) };
    Ok(u32::try_from(Errno::result(done)?).unwrap_or(u32::MAX))
}

/// Writes from guest memory, with `pwritev2`'s flags.
pub fn write(file: &File, pieces: &[Segment], offset: u64, flags: c_int) -> io::Result<u32> {
    let (iovecs, count) = iovecs(pieces);
    // SAFETY: as above.
    let done =
        unsafe { libc::pwritev2(file.as_raw_fd(), iovecs, count, offset.cast_signed(), flags) };
    Ok(u32::try_from(Errno::result(done)?).unwrap_or(u32::MAX))
}

fn iovecs(pieces: &[Segment]) -> (*const libc::iovec, c_int) {
    // `Segment` has the layout of an iovec, and there are at most 1024.
    (
        pieces.as_ptr().cast(),
        c_int::try_from(pieces.len()).unwrap_or(c_int::MAX),
    )
}

fn total(pieces: &[Segment]) -> u64 {
    pieces
        .iter()
        .fold(0, |sum: u64, piece| sum.saturating_add(piece.len() as u64))
}

/// How long a transfer through a copy is: what `op` has gathered and no more, for by that the
/// descriptor was chosen. What is left is another operation, on the descriptor that suits it.
fn gathered(op: &Op) -> usize {
    usize::try_from(total(op.pieces())).unwrap_or(usize::MAX)
}

fn as_count(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn allocate(file: &File, mode: FallocateFlags, offset: u64, len: u64) -> io::Result<u32> {
    let mode = mode | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(file, mode, offset.cast_signed(), len.cast_signed())?;
    Ok(0)
}

/// Whether holes can be made in a file of `size` bytes.
fn can_punch(file: &File, size: u64) -> bool {
    // One past the end changes nothing, and tells. A file opened for reading has none.
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(file, flags, size.cast_signed(), SECTOR.cast_signed()).is_ok()
}
