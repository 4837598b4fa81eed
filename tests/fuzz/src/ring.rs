//! What the targets of the ring engine share: guest memory mapped twice, descriptors of nonsense, and what
//! a completion may change.

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use outboard_device::memory::{Memory, Region, RegionLayout};
use outboard_device::{Queue, Request, Segment};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

use crate::Number;

/// Guest address and length of each region: two that touch, and one apart.
const REGIONS: [(u64, usize); 3] = [(0, 0x4000), (0x4000, 0x4000), (0x4_0000, 0x4000)];
/// What the frontend adds to a guest address to make its own.
pub const USER: u64 = 0x7f00_0000_0000;
/// Where the descriptors are.
pub const DESCRIPTORS: u64 = 0;
/// The available ring, or a packed ring's driver area.
pub const AVAILABLE: u64 = 0x1000;
/// The used ring, or a packed ring's device area.
pub const USED: u64 = 0x2000;
/// Where indirect tables are put.
pub const TABLES: u64 = 0x3000;
/// The largest ring.
pub const SIZE_MAX: u16 = 16;

/// A descriptor of either format.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub struct Desc {
    /// In one of the places where something is, or anywhere.
    place: u8,
    addr: Number,
    len: Number,
    flags: u16,
    next: u8,
}

impl Desc {
    /// As a split ring has it.
    pub fn split(self) -> [u8; 16] {
        let offset = self.addr.0;
        let addr = match self.place % 8 {
            0 => TABLES.wrapping_add(offset & 0xff0),
            1 => 0x4000u64.wrapping_add(offset),
            2 => 0x3ff0u64.wrapping_add(offset & 0xff),
            3 => 0x4_0000u64.wrapping_add(offset),
            4 => 0x4_4000u64.wrapping_sub(offset & 0xff),
            _ => offset,
        };
        // Bits that mean nothing are there too, but seldom.
        let mask = if self.place & 0xf0 == 0xf0 { 0xffff } else { 7 };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&addr.to_le_bytes());
        bytes[8..12].copy_from_slice(&(self.len.0 as u32).to_le_bytes());
        bytes[12..14].copy_from_slice(&(self.flags & mask).to_le_bytes());
        bytes[14..].copy_from_slice(&u16::from(self.next % 20).to_le_bytes());
        bytes
    }

    /// As a packed ring has it: available in the lap of this wrap counter, or as the flags say.
    pub fn packed(self, wrap: bool) -> [u8; 16] {
        let mut bytes = self.split();
        bytes.copy_within(12..14, 14);
        // One that no ring is long enough for now and then.
        let id = if self.place & 0x18 == 0x18 {
            self.next
        } else {
            self.next % 4
        };
        bytes[12..14].copy_from_slice(&u16::from(id).to_le_bytes());
        if self.next < 0xe0 {
            bytes[14] |= if wrap { 0x80 } else { 0 };
            bytes[15] |= if wrap { 0 } else { 0x80 };
        }
        bytes
    }
}

/// The same memory twice: as the engine maps it, and as the reference does.
pub struct Guest {
    /// The engine's.
    pub memory: Arc<Memory>,
    /// The reference's.
    pub reference: GuestMemoryMmap,
}

/// The one guest.
pub static GUEST: LazyLock<Guest> = LazyLock::new(|| {
    let file = tempfile::tempfile().unwrap();
    let total: usize = REGIONS.iter().map(|region| region.1).sum();
    file.set_len(total as u64).unwrap();
    let (mut offset, mut regions, mut ranges) = (0, Vec::new(), Vec::new());
    for (guest_addr, len) in REGIONS {
        let layout = RegionLayout {
            guest_addr,
            user_addr: guest_addr + USER,
            size: len as u64,
            file_offset: offset,
        };
        regions.push(Arc::new(Region::map(layout, &file).unwrap()));
        let part = FileOffset::new(file.try_clone().unwrap(), offset);
        ranges.push((GuestAddress(guest_addr), len, Some(part)));
        offset += len as u64;
    }
    Guest {
        memory: Arc::new(Memory::new(regions).unwrap()),
        reference: GuestMemoryMmap::from_ranges_with_files(ranges).unwrap(),
    }
});

impl Guest {
    /// Forgets everything.
    pub fn clear(&self) {
        for (start, len) in REGIONS {
            self.put(start, &vec![0; len]);
        }
    }

    /// Writes at a guest address.
    pub fn put(&self, addr: u64, bytes: &[u8]) {
        self.reference
            .write_slice(bytes, GuestAddress(addr))
            .unwrap();
    }

    /// Every byte.
    pub fn all(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for (start, len) in REGIONS {
            let at = all.len();
            all.resize(at + len, 0);
            let region = &mut all[at..];
            self.reference
                .read_slice(region, GuestAddress(start))
                .unwrap();
        }
        all
    }

    /// Where a guest address is in [`all`](Self::all).
    pub fn place(addr: u64) -> usize {
        let mut before = 0;
        for (start, len) in REGIONS {
            if (start..start + len as u64).contains(&addr) {
                return before + (addr - start) as usize;
            }
            before += len;
        }
        panic!("{addr:#x} is not guest memory");
    }

    /// Guest ranges of the engine's segments, neighbours joined.
    pub fn ranges(&self, segments: &[Segment]) -> Vec<(u64, u64)> {
        joined(segments.iter().map(|segment| {
            let host = segment.addr().addr() as u64;
            let guest = REGIONS.iter().find_map(|&(start, len)| {
                let base = self.memory.guest(start, len as u64).unwrap().addr() as u64;
                let inside = (base..base + len as u64).contains(&host)
                    && host + segment.len() as u64 <= base + len as u64;
                inside.then(|| start + (host - base))
            });
            (
                guest.expect("a segment outside of guest memory"),
                segment.len() as u64,
            )
        }))
    }
}

/// Neighbours made one, and what is empty left out.
pub fn joined(ranges: impl Iterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut out: Vec<(u64, u64)> = Vec::new();
    for (addr, len) in ranges.filter(|range| range.1 != 0) {
        match out.last_mut() {
            Some(last) if last.0 + last.1 == addr => last.1 += len,
            _ => out.push((addr, len)),
        }
    }
    out
}

/// Completes a request and sees that only what was the device's to write has changed.
/// It says that it wrote `says` bytes, and `ours` is of the device too.
pub fn complete(
    queue: &mut Queue,
    request: Request,
    write: u8,
    says: u64,
    ours: std::ops::Range<u64>,
) {
    let guest = &*GUEST;
    let before = guest.all();
    let mut may: Vec<bool> = vec![false; before.len()];
    for (addr, len) in guest.ranges(request.writable()) {
        (addr..addr + len).for_each(|at| may[Guest::place(at)] = true);
    }
    ours.for_each(|at| may[Guest::place(at)] = true);
    let answer = vec![0x5a; usize::from(write) * 16];
    let written = request.writer().write(&answer);
    assert!(written <= answer.len());
    queue.complete([(request, says as u32)]).unwrap();
    let after = guest.all();
    let strayed = (0..before.len()).find(|&at| before[at] != after[at] && !may[at]);
    assert_eq!(
        strayed, None,
        "a byte that was not the device's has changed"
    );
}
