//! One directory record (ECMA-119 9.1).

use super::volume::Names;
use super::{Extent, Iso, IsoError, field, rock_ridge, u32_at};

/// Offsets of fields; numbers are there in both byte orders, the little-endian one first.
const ATTRIBUTES_LEN: usize = 1;
const LOCATION: usize = 2;
const DATA_LEN: usize = 10;
const FLAGS: usize = 25;
const UNIT_SIZE: usize = 26;
const NAME_LEN: usize = 32;
const NAME: usize = 33;
/// ECMA-119 9.1.6: file flags.
const DIRECTORY: u8 = 1 << 1;
const ASSOCIATED: u8 = 1 << 2;
const MULTI_EXTENT: u8 = 1 << 7;

/// A file, a folder or a link, by the name that counts.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Neither checked to be there.
    Folder(Extent),
    File(Extent),
    /// A symbolic link, and where it leads.
    Link(String),
    /// A file in pieces, of 4 GiB or interleaved: no kernel and no menu.
    Other,
}

impl Record {
    /// Reads one; `None` for a folder's own and its parent's, and for what is no file.
    pub(super) fn read(iso: &Iso, bytes: &[u8]) -> Result<Option<Self>, IsoError> {
        let name = Self::name(bytes);
        let [flags] = field(bytes, FLAGS);
        let extent = Self::extent(iso.block, bytes);
        let (Some(extent), false) = (extent, matches!(name, [0 | 1] | [])) else {
            return Ok(None);
        };
        if flags & ASSOCIATED != 0 {
            return Ok(None);
        }
        let [unit] = field(bytes, UNIT_SIZE);
        let kind = match (flags & DIRECTORY != 0, extent) {
            _ if flags & MULTI_EXTENT != 0 || unit != 0 => Kind::Other,
            (true, extent) => Kind::Folder(extent),
            (false, extent) => Kind::File(extent),
        };
        let Names::RockRidge { skip } = iso.names else {
            let name = match iso.names {
                Names::Joliet => ucs2(name),
                _ => String::from_utf8_lossy(name).into_owned(),
            };
            return Ok(Some(Self {
                name: without_version(&name).to_owned(),
                kind,
            }));
        };
        let posix = rock_ridge::read(iso, Self::system_use(bytes).get(skip..).unwrap_or_default())?;
        let plain = || without_version(&String::from_utf8_lossy(name)).to_owned();
        Ok(Some(Self {
            name: posix.name.unwrap_or_else(plain),
            kind: posix.link.map_or(kind, Kind::Link),
        }))
    }

    /// Where its bytes are, behind its extended attributes.
    pub(super) fn extent(block_size: u64, bytes: &[u8]) -> Option<Extent> {
        if bytes.len() <= NAME {
            return None;
        }
        let [attributes] = field(bytes, ATTRIBUTES_LEN);
        let block = u64::from(u32_at(bytes, LOCATION)).checked_add(attributes.into())?;
        Some(Extent {
            start: block.checked_mul(block_size)?,
            len: u32_at(bytes, DATA_LEN).into(),
        })
    }

    fn name(bytes: &[u8]) -> &[u8] {
        let [len] = field(bytes, NAME_LEN);
        let end = NAME.saturating_add(len.into());
        bytes.get(NAME..end).unwrap_or_default()
    }

    /// What follows the name, at an even offset (ECMA-119 9.1.12 and 9.1.13).
    pub(super) fn system_use(bytes: &[u8]) -> &[u8] {
        let [len] = field(bytes, NAME_LEN);
        let end = NAME.saturating_add(len.into());
        bytes.get(end.next_multiple_of(2)..).unwrap_or_default()
    }
}

/// ECMA-119 7.5.1: `NAME.EXT;VERSION`, and the dot stays where there is no extension.
fn without_version(name: &str) -> &str {
    let name = name.split_once(';').map_or(name, |(name, _)| name);
    name.strip_suffix('.').unwrap_or(name)
}

fn ucs2(name: &[u8]) -> String {
    let (pairs, _) = name.as_chunks::<2>();
    let units = pairs.iter().map(|pair| u16::from_be_bytes(*pair));
    char::decode_utf16(units)
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}
