//! What a record's system use field says by SUSP (IEEE P1281) and Rock Ridge (RRIP, IEEE P1282): a POSIX
//! name, and where a symbolic link leads.

use super::{Extent, Iso, IsoError, SECTOR, u32_at};

/// SUSP 4.1: two letters, the entry's length, its version.
const HEADER: usize = 4;
/// SUSP 5.1: where the field goes on. One goes on in another's sector at most, and Linux follows 32.
const CONTINUATION: &[u8] = b"CE";
const MOST_CONTINUATIONS: u32 = 32;
/// SUSP 5.3: the field is SUSP's, with these bytes in it.
const INDICATOR: &[u8] = b"SP";
const CHECK: &[u8] = &[0xbe, 0xef];
/// SUSP 5.4: no more entries.
const END: &[u8] = b"ST";
/// RRIP 4.1.4: a part of the name, after flags that say whether it goes on.
const NAME: &[u8] = b"NM";
/// RRIP 4.1.3: parts of where a symbolic link leads.
const LINK: &[u8] = b"SL";
/// RRIP 4.1.3.1 and 4.1.4: flags of parts of names and links.
const CONTINUES: u8 = 1 << 0;
const CURRENT: u8 = 1 << 1;
const PARENT: u8 = 1 << 2;
const ROOT: u8 = 1 << 3;
/// As long as Linux lets paths be.
const MOST_TEXT: usize = 4096;

/// What a record says besides ISO 9660.
#[derive(Debug, Default)]
pub(super) struct Posix {
    pub(super) name: Option<String>,
    pub(super) link: Option<String>,
}

/// How many bytes come before the entries of every other record; `None` where it is no SUSP field.
pub(super) fn skip(field: &[u8]) -> Option<usize> {
    let (name, data, _) = entry(field)?;
    let (check, rest) = data.split_at_checked(2)?;
    (name == INDICATOR && check == CHECK).then(|| rest.first().copied().map(usize::from))?
}

/// Reads a system use field, wherever it goes on.
pub(super) fn read(iso: &Iso, field: &[u8]) -> Result<Posix, IsoError> {
    let (mut name, mut link) = (Vec::new(), Link::default());
    let mut next = entries(field, &mut name, &mut link);
    for _ in 0..MOST_CONTINUATIONS {
        let Some(extent) = next.and_then(|next| next.extent(iso.block)) else {
            break;
        };
        let area = iso.bytes(iso.whole(extent, "file names")?)?;
        next = entries(&area, &mut name, &mut link);
    }
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Posix {
        name: (!name.is_empty()).then(|| text(name)),
        link: link.is_one.then(|| text(link.target)),
    })
}

/// The first entry: its name, its data, and what follows it.
fn entry(field: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let len = usize::from(*field.get(2)?);
    let (entry, rest) = field.split_at_checked(len)?;
    Some((entry.get(..2)?, entry.get(HEADER..)?, rest))
}

/// Where a field goes on.
#[derive(Clone, Copy)]
struct Continuation {
    block: u32,
    offset: u32,
    len: u32,
}

impl Continuation {
    /// `None` where it leaves its sector.
    fn extent(self, block: u64) -> Option<Extent> {
        let end = u64::from(self.offset).checked_add(self.len.into())?;
        let start = u64::from(self.block).checked_mul(block)?;
        (end <= SECTOR as u64).then_some(Extent {
            start: start.checked_add(self.offset.into())?,
            len: self.len.into(),
        })
    }
}

fn entries(mut rest: &[u8], name: &mut Vec<u8>, link: &mut Link) -> Option<Continuation> {
    let mut next = None;
    while let Some((kind, data, after)) = entry(rest) {
        match kind {
            NAME => {
                let (flags, text) = data.split_first().unwrap_or((&CURRENT, &[]));
                if flags & (CURRENT | PARENT) == 0 {
                    append(name, text);
                }
            }
            LINK => link.read(data.get(1..).unwrap_or_default()),
            CONTINUATION => {
                next = Some(Continuation {
                    block: u32_at(data, 0),
                    offset: u32_at(data, 8),
                    len: u32_at(data, 16),
                });
            }
            END => break,
            _ => {}
        }
        rest = after;
    }
    next
}

/// Where a symbolic link leads, as far as it is known.
#[derive(Default)]
struct Link {
    is_one: bool,
    /// The last part goes on in the next.
    continues: bool,
    target: Vec<u8>,
}

impl Link {
    fn read(&mut self, mut parts: &[u8]) {
        self.is_one = true;
        while let Some((&[flags, len], rest)) = parts.split_first_chunk::<2>() {
            let Some((text, after)) = rest.split_at_checked(len.into()) else {
                break;
            };
            if !self.continues && !self.target.is_empty() && self.target.last() != Some(&b'/') {
                append(&mut self.target, b"/");
            }
            let text = match flags & (CURRENT | PARENT | ROOT) {
                0 => text,
                CURRENT => b".",
                PARENT => b"..",
                _ => b"/",
            };
            append(&mut self.target, text);
            self.continues = flags & CONTINUES != 0;
            parts = after;
        }
    }
}

fn append(text: &mut Vec<u8>, more: &[u8]) {
    if text.len().saturating_add(more.len()) <= MOST_TEXT {
        text.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_put_together_from_its_parts() {
        let mut link = Link::default();
        link.read(b"\x08\x00\x00\x02..\x01\x03vml\x00\x04inuz\x04\x00");
        assert_eq!(link.target, b"/../vmlinuz/..");
        let mut link = Link::default();
        link.read(b"\x01\x02bo");
        link.read(b"\x00\x02ot\x00\x01x\x00\xffcut");
        assert_eq!(link.target, b"boot/x");
    }

    #[test]
    fn the_indicator_says_what_to_skip() {
        assert_eq!(skip(b"SP\x07\x01\xbe\xef\x05"), Some(5));
        assert_eq!(skip(b"SP\x07\x01\xbe\xee\x05"), None);
        assert_eq!(skip(b"SP\x06\x01\xbe\xef"), None);
        assert_eq!(skip(b""), None);
    }
}
