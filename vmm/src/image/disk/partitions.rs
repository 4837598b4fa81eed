//! Where the filesystems of a disk are: in the partitions of a GPT (UEFI 2.10, 5.3) or an MBR
//! (5.2.1), or all over a disk that has neither.
//!
//! By hand, because the crates for it trust their input: `gpt` 4.1 panics on entries that are not
//! 128 bytes long. Only primary MBR partitions and logical ones of one extended partition.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::DiskImageError;

const SECTOR: u64 = 512;
const GPT_MAGIC: &[u8] = b"EFI PART";
/// Partition types of an MBR.
const PROTECTIVE: u8 = 0xee;
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];
/// Linux's limit on logical partitions is lower.
const MAX_LOGICAL: u32 = 128;
/// Tools write 128; nobody needs more than Linux's 256 minors.
const MAX_ENTRIES: u32 = 1024;
/// Where ext2 and its successors have their magic number, and what it is.
const EXT_MAGIC: (u64, [u8; 2]) = (0x438, [0x53, 0xef]);

/// A part of the disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Partition {
    /// As Linux counts; `None` for the whole disk.
    pub(super) number: Option<u32>,
    pub(super) start: u64,
    pub(super) size: u64,
}

impl Partition {
    /// Whether it lies on a disk of `size` bytes.
    pub(super) fn is_within(&self, size: u64) -> bool {
        let end = self.start.checked_add(self.size);
        end.is_some_and(|end| end <= size)
    }
}

/// Where filesystems may be on a disk of `size` bytes, in the table's order; also those partitions that
/// reach beyond it.
pub(super) fn find(disk: &File, size: u64, image: &Path) -> Result<Vec<Partition>, DiskImageError> {
    let damaged = |what| DiskImageError::Table {
        image: image.to_owned(),
        what,
    };
    let whole = Partition {
        number: None,
        start: 0,
        size,
    };
    let mut found = Vec::new();
    let mbr = Mbr::read(disk, 0).filter(|_| !has_ext(disk));
    match mbr {
        None => found.push(whole),
        Some(mbr) if mbr.entries.iter().any(|entry| entry.kind == PROTECTIVE) => {
            let gpt = [SECTOR, 4096].iter().find_map(|&sector| {
                let header: [u8; 92] = read(disk, sector)?;
                header.starts_with(GPT_MAGIC).then_some((sector, header))
            });
            let (sector, header) =
                gpt.ok_or_else(|| damaged("it should be GPT, and has no header"))?;
            found = gpt_entries(disk, sector, &header).map_err(damaged)?;
        }
        Some(mbr) => {
            for (number, entry) in (1..).zip(&mbr.entries) {
                if EXTENDED.contains(&entry.kind) {
                    logical(disk, entry.start, &mut found);
                } else if entry.kind != 0 {
                    found.extend(entry.partition(number, 0));
                }
            }
            found.sort_by_key(|partition| partition.number);
        }
    }
    found.retain(|partition| partition.size > 0);
    Ok(found)
}

/// A filesystem over the whole disk; its first sector is a boot loader's and may look like an MBR.
fn has_ext(disk: &File) -> bool {
    let (at, magic) = EXT_MAGIC;
    read(disk, at) == Some(magic)
}

/// The partitions of a GPT with sectors of `sector` bytes.
fn gpt_entries(
    disk: &File,
    sector: u64,
    header: &[u8; 92],
) -> Result<Vec<Partition>, &'static str> {
    let entry_size = u32_at(header, 84);
    if !(128..=4096).contains(&entry_size) {
        return Err("its entries are of no known size");
    }
    let table = u64_at(header, 72)
        .checked_mul(sector)
        .ok_or("its entries lie nowhere")?;
    let mut found = Vec::new();
    for index in 0..u32_at(header, 80).min(MAX_ENTRIES) {
        let at = u64::from(index)
            .checked_mul(entry_size.into())
            .and_then(|offset| offset.checked_add(table));
        let entry: [u8; 48] = at
            .and_then(|at| read(disk, at))
            .ok_or("its entries lie beyond the disk's end")?;
        // An unused entry has no type.
        if entry.starts_with(&[0; 16]) {
            continue;
        }
        let (first, last) = (u64_at(&entry, 32), u64_at(&entry, 40));
        let sectors = last.checked_sub(first).and_then(|n| n.checked_add(1));
        let (start, size) = (
            first.checked_mul(sector),
            sectors.and_then(|n| n.checked_mul(sector)),
        );
        if let (Some(start), Some(size)) = (start, size) {
            found.push(Partition {
                number: index.checked_add(1),
                start,
                size,
            });
        }
    }
    Ok(found)
}

/// The chain of an extended partition: each link holds one partition, placed from the link, and the
/// next link, placed from the chain's start.
fn logical(disk: &File, base: u64, found: &mut Vec<Partition>) {
    let mut at = base;
    for number in 5..MAX_LOGICAL {
        let Some(link) = Mbr::read(disk, at.saturating_mul(SECTOR)) else {
            return;
        };
        let [entry, next, ..] = link.entries;
        if entry.kind != 0 {
            found.extend(entry.partition(number, at));
        }
        if !EXTENDED.contains(&next.kind) {
            return;
        }
        at = base.saturating_add(next.start);
    }
}

/// The four entries of a master boot record, or of a link of an extended partition.
struct Mbr {
    entries: [MbrEntry; 4],
}

/// In sectors.
#[derive(Clone, Copy)]
struct MbrEntry {
    kind: u8,
    start: u64,
    sectors: u64,
}

impl Mbr {
    fn read(disk: &File, at: u64) -> Option<Self> {
        let bytes: [u8; 66] = read(disk, at.checked_add(446)?)?;
        if !bytes.ends_with(&[0x55, 0xaa]) {
            return None;
        }
        let (entries, _) = bytes.as_chunks::<16>();
        let parsed = entries.iter().map(|entry| MbrEntry {
            kind: field::<1>(entry, 4)[0],
            start: u32_at(entry, 8).into(),
            sectors: u32_at(entry, 12).into(),
        });
        let entries = parsed.collect::<Vec<_>>().try_into().ok()?;
        Some(Self { entries })
    }
}

impl MbrEntry {
    /// The partition, whose start counts from sector `base`.
    fn partition(&self, number: u32, base: u64) -> Option<Partition> {
        Some(Partition {
            number: Some(number),
            start: base.checked_add(self.start)?.checked_mul(SECTOR)?,
            size: self.sectors.checked_mul(SECTOR)?,
        })
    }
}

fn read<const N: usize>(disk: &File, at: u64) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    disk.read_exact_at(&mut bytes, at).ok()?;
    Some(bytes)
}

/// Little-endian fields; beyond the end reads as 0, which every caller has ruled out by length.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.copied().unwrap_or([0; N])
}
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}
