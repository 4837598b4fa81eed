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
    /// Length of the disk in bytes, a multiple of 512.
    pub size: u64,
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
    /// written before the status byte.
    pub fn parse(
        header: [u8; HEADER_LEN],
        to_device: usize,
        from_device: usize,
        limits: &Limits,
    ) -> Result<Self, Status> {
        let [k0, k1, k2, k3, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        let command = match u32::from_le_bytes([k0, k1, k2, k3]) {
            VIRTIO_BLK_T_IN => {
                let (offset, len) = extent(sector, from_device, limits.size)?;
                Self::Read { offset, len }
            }
            VIRTIO_BLK_T_OUT => {
                let (offset, len) = extent(sector, to_device, limits.size)?;
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
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits {
        size: 1 << 20,
        readonly: false,
        discard: true,
        write_zeroes: true,
    };

    fn header(kind: u32, sector: u64) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[4..8].copy_from_slice(&[0xaa; 4]); // reserved, or a priority: ignored
        header[8..].copy_from_slice(&sector.to_le_bytes());
        header
    }

    fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
        [
            &sector.to_le_bytes()[..],
            &sectors.to_le_bytes(),
            &flags.to_le_bytes(),
        ]
        .concat()
    }

    #[test]
    fn a_transfer_lies_within_the_disk() {
        let parse = |sector, len| Command::parse(header(0, sector), 0, len, &LIMITS);
        assert_eq!(
            parse(1, 1024),
            Ok(Command::Read {
                offset: 512,
                len: 1024
            })
        );
        assert_eq!(
            parse(2047, 512),
            Ok(Command::Read {
                offset: (1 << 20) - 512,
                len: 512
            })
        );
        assert_eq!(
            parse(2048, 0),
            Ok(Command::Read {
                offset: 1 << 20,
                len: 0
            })
        );
        assert_eq!(parse(2047, 1024), Err(Status::IoError));
        assert_eq!(parse(2049, 0), Err(Status::IoError));
        assert_eq!(parse(0, 511), Err(Status::IoError));
        assert_eq!(parse(u64::MAX, 512), Err(Status::IoError));
        assert_eq!(parse(u64::MAX / 512, 512), Err(Status::IoError));
    }

    #[test]
    fn unknown_and_refused_types_are_unsupported() {
        for kind in [2, 3, 5, 10, 14, 15, 0x8000_0000, u32::MAX] {
            assert_eq!(
                Command::parse(header(kind, 0), 0, 0, &LIMITS),
                Err(Status::Unsupported)
            );
        }
        let plain = Limits {
            discard: false,
            write_zeroes: false,
            ..LIMITS
        };
        assert_eq!(
            Command::parse(header(11, 0), 16, 0, &plain),
            Err(Status::Unsupported)
        );
        assert_eq!(
            Command::parse(header(13, 0), 16, 0, &plain),
            Err(Status::Unsupported)
        );
    }

    #[test]
    fn ranges_are_read_and_their_flags_checked() {
        let parse = |bytes: &[u8], command| Range::parse_all(bytes, command, LIMITS.size);
        let two = [range(2, 2, 1), range(8, 0, 0)].concat();
        assert_eq!(
            parse(&two, Command::WriteZeroes),
            Ok(vec![
                Range {
                    offset: 1024,
                    len: 1024,
                    unmap: true
                },
                Range {
                    offset: 4096,
                    len: 0,
                    unmap: false
                },
            ])
        );
        assert_eq!(parse(&two, Command::Discard), Err(Status::Unsupported));
        assert_eq!(
            parse(&range(0, 1, 2), Command::WriteZeroes),
            Err(Status::Unsupported)
        );
        assert_eq!(
            parse(&range(2047, 2, 0), Command::Discard),
            Err(Status::IoError)
        );
        assert_eq!(
            parse(&range(0, u32::MAX, 0), Command::Discard),
            Err(Status::IoError)
        );
        assert_eq!(parse(&[], Command::Discard), Err(Status::IoError));
        assert_eq!(
            parse(&two[..31], Command::WriteZeroes),
            Err(Status::IoError)
        );
        assert_eq!(parse(&[0; 17 * 16], Command::Discard), Err(Status::IoError));
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_within_the_disk(
            kind in prop_oneof![0u32..20, any::<u32>()],
            sector in prop_oneof![0u64..4096, any::<u64>()],
            (to_device, from_device) in (
                prop_oneof![(0usize..64).prop_map(|n| n * 512), any::<usize>()],
                prop_oneof![(0usize..64).prop_map(|n| n * 512), any::<usize>()],
            ),
            (sectors, readonly) in (0u64..4096, any::<bool>()),
        ) {
            let limits = Limits { size: sectors * 512, readonly, ..LIMITS };
            let parsed = Command::parse(header(kind, sector), to_device, from_device, &limits);
            if let Ok(command) = parsed {
                prop_assert!(!(readonly && command.writes()));
            }
            match parsed {
                Ok(Command::Read { offset, len }) => {
                    prop_assert_eq!(len, from_device as u64);
                    prop_assert!(len % 512 == 0 && offset + len <= limits.size);
                }
                Ok(Command::Write { offset, len }) => {
                    prop_assert_eq!(len, to_device as u64);
                    prop_assert!(len % 512 == 0 && offset + len <= limits.size);
                }
                _ => {}
            }
        }

        #[test]
        fn any_bytes_make_ranges_within_the_disk_or_none(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            small in any::<bool>(),
            discard in any::<bool>(),
        ) {
            let mut bytes = bytes;
            if small {
                // Sizes and places a disk could have, so that some get through.
                bytes.chunks_mut(16).for_each(|c| for (i, b) in c.iter_mut().enumerate() {
                    if !matches!(i, 0 | 8) { *b = 0; }
                });
            }
            let command = if discard { Command::Discard } else { Command::WriteZeroes };
            if let Ok(ranges) = Range::parse_all(&bytes, command, LIMITS.size) {
                prop_assert_eq!(ranges.len() * 16, bytes.len());
                for range in ranges {
                    prop_assert!(range.offset + range.len <= LIMITS.size);
                    prop_assert!(range.len % 512 == 0 && !(discard && range.unmap));
                }
            }
        }
    }
}
