//! Tests of reading requests, by hand and with any bytes.
#![allow(clippy::arithmetic_side_effects)]

use super::*;
use proptest::prelude::*;

const SIZE: u64 = 1 << 20;
const LIMITS: Limits = Limits {
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
    let parse = |sector, len| Command::parse(header(0, sector), 0, len, SIZE, LIMITS);
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
            Command::parse(header(kind, 0), 0, 0, SIZE, LIMITS),
            Err(Status::Unsupported)
        );
    }
    let plain = Limits {
        discard: false,
        write_zeroes: false,
        ..LIMITS
    };
    assert_eq!(
        Command::parse(header(11, 0), 16, 0, SIZE, plain),
        Err(Status::Unsupported)
    );
    assert_eq!(
        Command::parse(header(13, 0), 16, 0, SIZE, plain),
        Err(Status::Unsupported)
    );
}

#[test]
fn ranges_are_read_and_their_flags_checked() {
    let parse = |bytes: &[u8], command| Range::parse_all(bytes, command, SIZE);
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
        let limits = Limits { readonly, ..LIMITS };
        let size = sectors * 512;
        let parsed = Command::parse(header(kind, sector), to_device, from_device, size, limits);
        if let Ok(command) = parsed {
            prop_assert!(!(readonly && command.writes()));
        }
        match parsed {
            Ok(Command::Read { offset, len }) => {
                prop_assert_eq!(len, from_device as u64);
                prop_assert!(len % 512 == 0 && offset + len <= size);
            }
            Ok(Command::Write { offset, len }) => {
                prop_assert_eq!(len, to_device as u64);
                prop_assert!(len % 512 == 0 && offset + len <= size);
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
        if let Ok(ranges) = Range::parse_all(&bytes, command, SIZE) {
            prop_assert_eq!(ranges.len() * 16, bytes.len());
            for range in ranges {
                prop_assert!(range.offset + range.len <= SIZE);
                prop_assert!(range.len % 512 == 0 && !(discard && range.unmap));
            }
        }
    }
}
