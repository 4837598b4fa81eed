//! What a request asks for (virtio 1.2, section 5.2.6), checked against the disk.
//!
//! Everything here works on values copied out of guest memory: the guest may change its copy, and
//! it makes no difference any more.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD,
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
    VIRTIO_BLK_T_WRITE_ZEROES,
};

use crate::config::{MAX_RANGE_SECTORS, MAX_RANGES};
use crate::image::SECTOR;

/// Length of the header every request begins with.
pub const HEADER_LEN: usize = 16;

/// Length of one range of a discard or write-zeroes request.
pub const RANGE_LEN: usize = 16;

/// Most bytes the ranges of one request can take.
pub const MAX_RANGES_LEN: usize = RANGE_LEN.saturating_mul(MAX_RANGES as usize);

/// Flag of a range: the device may give the space back.
const RANGE_UNMAP: u32 = 1;

/// How a request ended: the byte written at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Done.
    Ok,
    /// The host could not, or the request made no sense.
    IoError,
    /// This device knows no such request.
    Unsupported,
}

impl Status {
    /// The byte the guest sees.
    pub fn byte(self) -> u8 {
        (match self {
            Self::Ok => VIRTIO_BLK_S_OK,
            Self::IoError => VIRTIO_BLK_S_IOERR,
            Self::Unsupported => VIRTIO_BLK_S_UNSUPP,
        }) as u8
    }
}

/// What requests are checked against.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Nothing may be written.
    pub readonly: bool,
    /// The driver took `VIRTIO_BLK_F_DISCARD`.
    pub discard: bool,
    /// The driver took `VIRTIO_BLK_F_WRITE_ZEROES`.
    pub write_zeroes: bool,
}

/// A request that can be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Read `len` bytes of the disk at `offset`; all within the disk.
    Read {
        /// In bytes.
        offset: u64,
        /// In bytes.
        len: u64,
    },
    /// Write `len` bytes to the disk at `offset`; all within the disk.
    Write {
        /// In bytes.
        offset: u64,
        /// In bytes.
        len: u64,
    },
    /// Make everything written before durable.
    Flush,
    /// Tell the serial number.
    GetId,
    /// Ranges follow that hold nothing of worth.
    Discard,
    /// Ranges follow that are to read as zeroes.
    WriteZeroes,
}

impl Command {
    /// Reads a request's `header`. `to_device` bytes follow the header; `from_device` bytes can be
    /// written before the status byte. The disk has `size` bytes, a multiple of 512.
    pub fn parse(
        header: [u8; HEADER_LEN],
        to_device: usize,
        from_device: usize,
        size: u64,
        limits: Limits,
    ) -> Result<Self, Status> {
        let [k0, k1, k2, k3, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        let command = match u32::from_le_bytes([k0, k1, k2, k3]) {
            VIRTIO_BLK_T_IN => {
                let (offset, len) = extent(sector, from_device, size)?;
                Self::Read { offset, len }
            }
            VIRTIO_BLK_T_OUT => {
                let (offset, len) = extent(sector, to_device, size)?;
                Self::Write { offset, len }
            }
            VIRTIO_BLK_T_FLUSH => Self::Flush,
            VIRTIO_BLK_T_GET_ID => Self::GetId,
            VIRTIO_BLK_T_DISCARD if limits.discard => Self::Discard,
            VIRTIO_BLK_T_WRITE_ZEROES if limits.write_zeroes => Self::WriteZeroes,
            _ => return Err(Status::Unsupported),
        };
        if limits.readonly && command.writes() {
            return Err(Status::IoError);
        }
        Ok(command)
    }

    fn writes(self) -> bool {
        match self {
            Self::Write { .. } | Self::Discard | Self::WriteZeroes => true,
            Self::Read { .. } | Self::Flush | Self::GetId => false,
        }
    }
}

/// Part of the disk, in bytes; within it, and of whole sectors. May be of length 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Where it begins.
    pub offset: u64,
    /// How long it is, at most 1 GiB.
    pub len: u64,
    /// The guest does not mind losing the space that backs it.
    pub unmap: bool,
}

impl Range {
    /// Reads the ranges that follow the header of a [`Command::Discard`] (which allows no flags)
    /// or a [`Command::WriteZeroes`].
    pub fn parse_all(bytes: &[u8], command: Command, size: u64) -> Result<Vec<Self>, Status> {
        let (ranges, rest) = bytes.as_chunks::<RANGE_LEN>();
        if ranges.is_empty() || !rest.is_empty() || ranges.len() > MAX_RANGES as usize {
            return Err(Status::IoError);
        }
        ranges
            .iter()
            .map(|range| Self::parse(*range, command, size))
            .collect()
    }

    fn parse(bytes: [u8; RANGE_LEN], command: Command, size: u64) -> Result<Self, Status> {
        let [sector @ .., n0, n1, n2, n3, f0, f1, f2, f3] = bytes;
        let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
        let flags = u32::from_le_bytes([f0, f1, f2, f3]);
        let allowed = if command == Command::WriteZeroes {
            RANGE_UNMAP
        } else {
            0
        };
        if flags & !allowed != 0 {
            return Err(Status::Unsupported);
        }
        if sectors > MAX_RANGE_SECTORS {
            return Err(Status::IoError);
        }
        let bytes = (sectors as usize).saturating_mul(SECTOR as usize);
        let (offset, len) = extent(u64::from_le_bytes(sector), bytes, size)?;
        Ok(Self {
            offset,
            len,
            unmap: flags & RANGE_UNMAP != 0,
        })
    }
}

/// The byte range of `len` bytes from `sector`, when it is whole sectors within a disk of `size`.
fn extent(sector: u64, len: usize, size: u64) -> Result<(u64, u64), Status> {
    let len = len as u64;
    let offset = sector.checked_mul(SECTOR).ok_or(Status::IoError)?;
    let end = offset.checked_add(len).ok_or(Status::IoError)?;
    if !len.is_multiple_of(SECTOR) || end > size {
        return Err(Status::IoError);
    }
    Ok((offset, len))
}

#[cfg(test)]
mod tests;
