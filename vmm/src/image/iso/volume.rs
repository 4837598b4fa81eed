//! Volume descriptors: where the root folder is, and by which of its names a file is called.

use std::os::unix::fs::FileExt;

use super::record::Record;
use super::rock_ridge;
use super::{Extent, Iso, IsoError, SECTOR, field};

/// ECMA-119 6.2.1: descriptors begin behind the system area of 16 sectors.
const FIRST: u64 = 16;
/// More descriptors than any image has.
const MOST: u64 = 64;
/// ECMA-119 8.1.2: the standard identifier.
const MAGIC: &[u8] = b"CD001";
/// ECMA-119 8.1.1: descriptor types.
const PRIMARY: u8 = 1;
const SUPPLEMENTARY: u8 = 2;
const TERMINATOR: u8 = 255;
/// Joliet 1.3, "SVD escape sequences": UCS-2 at its levels 1, 2 and 3.
const JOLIET: [&[u8]; 3] = [b"%/@", b"%/C", b"%/E"];
/// Offsets in a descriptor (ECMA-119 8.4 and 8.5).
const ESCAPE_SEQUENCES: usize = 88;
const BLOCK_SIZE: usize = 128;
const ROOT: usize = 156;
const ROOT_LEN: usize = 34;

/// Which names count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// ISO 9660's own: `VMLINUZ.;1`.
    Plain,
    /// UCS-2, in a tree of its own.
    Joliet,
    /// POSIX names beside the plain ones, `skip` bytes into the system use field (SUSP 5.3).
    RockRidge { skip: usize },
}

/// Finds the root folder: Rock Ridge's names are those that boot loaders use, Joliet's come next.
pub(super) fn read(iso: &mut Iso) -> Result<(), IsoError> {
    let (mut primary, mut joliet) = (None, None);
    for number in 0..MOST {
        let at = FIRST.saturating_add(number).saturating_mul(SECTOR as u64);
        let mut descriptor = [0; SECTOR];
        let read = iso.file.read_exact_at(&mut descriptor, at);
        let magic = descriptor.get(1..6) == Some(MAGIC);
        match read {
            Ok(()) if magic => {}
            Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
                return Err(IsoError::Read(error));
            }
            _ => break,
        }
        let [kind] = field(&descriptor, 0);
        let escape: [u8; 3] = field(&descriptor, ESCAPE_SEQUENCES);
        match kind {
            PRIMARY => primary = primary.or(Some(root(&descriptor)?)),
            SUPPLEMENTARY if JOLIET.contains(&escape.as_slice()) => {
                joliet = joliet.or(Some(root(&descriptor)?));
            }
            TERMINATOR => break,
            _ => {}
        }
    }
    (iso.block, iso.root) = primary.ok_or(IsoError::NotIso)?;
    if let Some(skip) = rock_ridge(iso)? {
        iso.names = Names::RockRidge { skip };
    } else if let Some(place) = joliet {
        (iso.block, iso.root) = place;
        iso.names = Names::Joliet;
    }
    // Of what is damaged or cut off this early, nothing else can be said.
    iso.folder(iso.root).map(drop)
}

/// The block size of a volume, and its root folder.
fn root(descriptor: &[u8]) -> Result<(u64, Extent), IsoError> {
    let block = u16::from_le_bytes(field(descriptor, BLOCK_SIZE));
    if !block.is_power_of_two() || !(512..=2048).contains(&block) {
        return Err(IsoError::Damaged("its logical blocks have an odd size"));
    }
    let record: [u8; ROOT_LEN] = field(descriptor, ROOT);
    match Record::extent(block.into(), &record) {
        Some(extent) => Ok((block.into(), extent)),
        None => Err(IsoError::Damaged("it has no root folder")),
    }
}

/// Whether the root folder's first record, which is its own, begins with SUSP's SP; and what that says.
fn rock_ridge(iso: &Iso) -> Result<Option<usize>, IsoError> {
    let first = Extent {
        start: iso.root.start,
        len: iso.root.len.min(SECTOR as u64),
    };
    let bytes = iso.bytes(iso.whole(first, "root folder")?)?;
    let [len] = field(&bytes, 0);
    let own = bytes.get(..len.into()).unwrap_or_default();
    Ok(rock_ridge::skip(Record::system_use(own)))
}
