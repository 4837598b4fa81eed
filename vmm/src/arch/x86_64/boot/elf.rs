//! ELF images: segments to load, and the note that names the PVH entry (ELF specification 1.2;
//! Xen's `public/elfnote.h`).
//!
//! Every offset and size comes from the file and is checked before use.
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

use std::io::SeekFrom;

use super::Image;
use super::error::BootError;

/// `\x7fELF`.
pub(super) const MAGIC: [u8; 4] = *b"\x7fELF";

const EHDR_SIZE: usize = 64;
const PHDR_SIZE: usize = 56;
const CLASS_32: u8 = 1;
const CLASS_64: u8 = 2;
const DATA_LSB: u8 = 1;
const ET_REL: u16 = 1;
const EM_386: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
/// Names the dynamic linker: in programs, never in kernels.
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;
/// `XEN_ELFNOTE_PHYS32_ENTRY`: the 32-bit physical entry.
const NOTE_PHYS32_ENTRY: u32 = 18;
/// Program headers hold at most this many bytes of notes worth reading.
const MAX_NOTES: u64 = 1 << 20;

/// A part of the file that belongs in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) offset: u64,
    pub(super) address: u64,
    /// Bytes in the file.
    pub(super) file_size: u64,
    /// Bytes in memory; those beyond the file's are zero.
    pub(super) memory_size: u64,
}

/// What an ELF kernel says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ElfKernel {
    pub(super) entry: u64,
    pub(super) pvh_entry: Option<u32>,
    pub(super) segments: Vec<Segment>,
}

/// Reads the headers of an ELF image of `size` bytes.
pub(super) fn parse<I: Image>(image: &mut I, size: u64) -> Result<ElfKernel, BootError> {
    let header = read_at(image, 0, EHDR_SIZE as u64, size)?;
    let machine = u16_at(&header, 18);
    if u8_at(&header, 5) != DATA_LSB {
        return Err(BootError::OtherArchitecture {
            found: "a big-endian CPU".into(),
        });
    }
    match (u8_at(&header, 4), machine) {
        (CLASS_64, EM_X86_64) => {}
        (CLASS_32, EM_386 | EM_X86_64) => {
            return Err(BootError::Elf32);
        }
        _ => {
            return Err(BootError::OtherArchitecture {
                found: machine_name(machine),
            });
        }
    }
    if u16_at(&header, 16) == ET_REL {
        return Err(BootError::NotAKernel {
            found: "is an object file or a kernel module, not yet linked".into(),
        });
    }
    let entry = u64_at(&header, 24);
    let table = u64_at(&header, 32);
    if usize::from(u16_at(&header, 54)) != PHDR_SIZE {
        return Err(BootError::Damaged(
            "its program headers are of no known size",
        ));
    }
    let count = u64::from(u16_at(&header, 56));
    let headers = read_at(image, table, count.saturating_mul(PHDR_SIZE as u64), size)?;

    let mut segments = Vec::new();
    let mut pvh_entry = None;
    for header in headers.chunks_exact(PHDR_SIZE) {
        let segment = Segment {
            offset: u64_at(header, 8),
            address: u64_at(header, 24),
            file_size: u64_at(header, 32),
            memory_size: u64_at(header, 40),
        };
        match u32_at(header, 0) {
            PT_INTERP => {
                return Err(BootError::NotAKernel {
                    found: "is a program or a library".into(),
                });
            }
            PT_LOAD if segment.memory_size > 0 => segments.push(check(segment, size)?),
            PT_NOTE if pvh_entry.is_none() && segment.file_size <= MAX_NOTES => {
                let notes = read_at(image, segment.offset, segment.file_size, size)?;
                pvh_entry = find_pvh_entry(&notes, u64_at(header, 48));
            }
            _ => {}
        }
    }
    if segments.is_empty() {
        return Err(BootError::Damaged("an ELF image with nothing to load"));
    }
    Ok(ElfKernel {
        entry,
        pvh_entry,
        segments,
    })
}

fn check(segment: Segment, size: u64) -> Result<Segment, BootError> {
    if segment.file_size > segment.memory_size {
        return Err(BootError::Damaged(
            "a segment is larger in the file than in memory",
        ));
    }
    match segment.offset.checked_add(segment.file_size) {
        Some(end) if end <= size => Ok(segment),
        Some(end) => Err(BootError::Truncated {
            expected: end,
            actual: size,
        }),
        None => Err(BootError::Damaged(
            "a segment's place in the file is no number",
        )),
    }
}

/// Looks through the notes of one segment, each padded to its alignment of 4 or 8 bytes.
fn find_pvh_entry(notes: &[u8], align: u64) -> Option<u32> {
    let align = if align == 8 { 8 } else { 4 };
    let padded = |length: u32| (length as usize).checked_next_multiple_of(align);
    let mut rest = notes;
    while rest.len() >= 12 {
        let (name_size, value_size) = (u32_at(rest, 0), u32_at(rest, 4));
        let name = rest.get(12..)?;
        // The value begins on the alignment counted from the note's start, header included.
        let value_at = padded(name_size.checked_add(12)?)?;
        let value = rest.get(value_at..)?;
        if u32_at(rest, 8) == NOTE_PHYS32_ENTRY && name.get(..name_size as usize)? == b"Xen\0" {
            return (value_size >= 4 && value.len() >= 4).then(|| u32_at(value, 0));
        }
        rest = value.get(padded(value_size)?..)?;
    }
    None
}

/// Reads `length` bytes at `offset` of an image of `size` bytes.
fn read_at<I: Image>(
    image: &mut I,
    offset: u64,
    length: u64,
    size: u64,
) -> Result<Vec<u8>, BootError> {
    let end = offset
        .checked_add(length)
        .ok_or(BootError::Damaged("a header lies nowhere"))?;
    if end > size {
        return Err(BootError::Truncated {
            expected: end,
            actual: size,
        });
    }
    let mut bytes = vec![0; length as usize];
    image
        .seek(SeekFrom::Start(offset))
        .and_then(|_| image.read_exact(&mut bytes))
        .map_err(BootError::ReadKernel)?;
    Ok(bytes)
}

fn machine_name(machine: u16) -> String {
    match machine {
        EM_386 => "i386".into(),
        8 => "MIPS".into(),
        20 | 21 => "PowerPC".into(),
        22 => "s390".into(),
        40 => "32-bit Arm".into(),
        183 => "arm64".into(),
        243 => "RISC-V".into(),
        258 => "LoongArch".into(),
        other => format!("ELF machine {other}"),
    }
}

/// Little-endian fields; beyond the end reads as 0, which every caller has ruled out by length.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk().copied())
        .unwrap_or([0; N])
}
fn u8_at(bytes: &[u8], at: usize) -> u8 {
    u8::from_le_bytes(field(bytes, at))
}
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(field(bytes, at))
}
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &[u8], kind: u32, value: &[u8], align: usize) -> Vec<u8> {
        let mut note = Vec::new();
        note.extend((name.len() as u32).to_le_bytes());
        note.extend((value.len() as u32).to_le_bytes());
        note.extend(kind.to_le_bytes());
        note.extend(name);
        note.resize(note.len().next_multiple_of(align), 0);
        note.extend(value);
        note.resize(note.len().next_multiple_of(align), 0);
        note
    }

    #[test]
    fn pvh_entry_is_found_behind_other_notes() {
        for align in [4, 8] {
            let mut notes = note(b"GNU\0", 3, &[1; 20], align);
            notes.extend(note(b"Xen\0", 6, b"linux\0", align));
            notes.extend(note(b"Xen\0", 18, &0x0100_0370u64.to_le_bytes(), align));
            assert_eq!(find_pvh_entry(&notes, align as u64), Some(0x0100_0370));
        }
        assert_eq!(
            find_pvh_entry(&note(b"Xen\0", 18, &[4, 3, 2, 1], 4), 4),
            Some(0x0102_0304)
        );
    }

    #[test]
    fn notes_that_lie_about_their_length_end_the_search() {
        let mut notes = note(b"Xen\0", 18, &[1, 2], 4);
        assert_eq!(find_pvh_entry(&notes, 4), None);
        notes[..4].fill(0xff);
        assert_eq!(find_pvh_entry(&notes, 4), None);
    }
}
