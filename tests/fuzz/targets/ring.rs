//! The ring engine on rings of nonsense, beside an independent implementation: what the engine
//! accepts, `virtio-queue` reads the same way, all of it is guest memory, and nothing is written but
//! the used ring and what was the device's to write.
#![no_main]

use std::sync::Arc;
use std::sync::LazyLock;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use outboard_device::memory::{Memory, Region, RegionLayout};
use outboard_device::queue::RingAddresses;
use outboard_device::{Queue, Request, Segment};
use outboard_fuzz::Number;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue as Reference, QueueT};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

/// Guest address and length of each region: two that touch, and one apart.
const REGIONS: [(u64, usize); 3] = [(0, 0x4000), (0x4000, 0x4000), (0x4_0000, 0x4000)];
const USER: u64 = 0x7f00_0000_0000;
const DESCRIPTORS: u64 = 0;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
const TABLES: u64 = 0x3000;
const SIZE_MAX: u16 = 16;

#[derive(Debug, Arbitrary)]
struct Ring {
    size: u8,
    base: u16,
    /// How far ahead of `base` the available index is.
    ahead: u8,
    event_idx: bool,
    indirect: bool,
    descriptors: [Desc; 16],
    /// Behind each other at `TABLES`.
    tables: Vec<Desc>,
    heads: [u8; 16],
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, Arbitrary)]
struct Desc {
    /// In one of the places where something is, or anywhere.
    place: u8,
    addr: Number,
    len: Number,
    flags: u16,
    next: u8,
}

#[derive(Debug, Arbitrary)]
enum Step {
    Pop,
    Complete { which: u8, write: u8, says: Number },
    GiveBack { which: u8 },
    Advance(u8),
    Rest,
    Poke { addr: u16, value: u8 },
}

impl Desc {
    fn bytes(self) -> [u8; 16] {
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
}

/// The same memory twice: as the engine maps it, and as the reference does.
struct Guest {
    memory: Arc<Memory>,
    reference: GuestMemoryMmap,
}

static GUEST: LazyLock<Guest> = LazyLock::new(|| {
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
    fn put(&self, addr: u64, bytes: &[u8]) {
        self.reference
            .write_slice(bytes, GuestAddress(addr))
            .unwrap();
    }

    fn all(&self) -> Vec<u8> {
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
    fn place(addr: u64) -> usize {
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
    fn ranges(&self, segments: &[Segment]) -> Vec<(u64, u64)> {
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

fn joined(ranges: impl Iterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut out: Vec<(u64, u64)> = Vec::new();
    for (addr, len) in ranges.filter(|range| range.1 != 0) {
        match out.last_mut() {
            Some(last) if last.0 + last.1 == addr => last.1 += len,
            _ => out.push((addr, len)),
        }
    }
    out
}

fn reference(size: u16, base: u16) -> Reference {
    let mut queue = Reference::new(SIZE_MAX).unwrap();
    queue.set_size(size);
    queue.set_desc_table_address(Some(DESCRIPTORS as u32), None);
    queue.set_avail_ring_address(Some(AVAILABLE as u32), None);
    queue.set_used_ring_address(Some(USED as u32), None);
    queue.set_ready(true);
    queue.set_next_avail(base);
    queue
}

/// Completes a request and sees that only what was the device's to write has changed.
fn complete(queue: &mut Queue, request: Request, write: u8, says: u64) {
    let guest = &*GUEST;
    let before = guest.all();
    let mut may: Vec<bool> = vec![false; before.len()];
    for (addr, len) in guest.ranges(request.writable()) {
        (addr..addr + len).for_each(|at| may[Guest::place(at)] = true);
    }
    let used = USED..USED + 6 + 8 * u64::from(SIZE_MAX);
    used.for_each(|at| may[Guest::place(at)] = true);
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

fuzz_target!(|ring: Ring| {
    let guest = &*GUEST;
    REGIONS
        .iter()
        .for_each(|&(start, len)| guest.put(start, &vec![0; len]));
    let size = 1u16 << (ring.size % 5);
    for (at, descriptor) in (0..).zip(&ring.descriptors) {
        guest.put(DESCRIPTORS + 16 * at, &descriptor.bytes());
    }
    for (at, descriptor) in (0..0x100).zip(&ring.tables) {
        guest.put(TABLES + 16 * at, &descriptor.bytes());
    }
    for (at, head) in (0..u64::from(size)).zip(&ring.heads) {
        // One behind the end now and then.
        let head = u16::from(head % 17);
        guest.put(AVAILABLE + 4 + 2 * at, &head.to_le_bytes());
    }
    let mut index = ring.base.wrapping_add(u16::from(ring.ahead % 18));
    guest.put(AVAILABLE + 2, &index.to_le_bytes());
    let addresses = RingAddresses {
        descriptors: DESCRIPTORS + USER,
        available: AVAILABLE + USER,
        used: USED + USER,
    };
    let flags = (ring.event_idx, ring.indirect);
    let memory = Arc::clone(&guest.memory);
    let mut queue = Queue::on_ring(memory, (size, addresses), ring.base, flags).unwrap();
    // Until the guest changes what the engine has looked at already, and the reference has not.
    let mut theirs = Some(reference(size, ring.base));
    let mut rewritten = false;
    let mut held: Vec<Request> = Vec::new();
    let mut returned = 0usize;
    let pick = |held: &mut Vec<Request>, which: u8| {
        (!held.is_empty()).then(|| held.remove(usize::from(which) % held.len()))
    };
    for step in &ring.steps {
        match *step {
            Step::Pop => {
                let Ok(Some(request)) = queue.pop() else {
                    continue;
                };
                if returned > 0 {
                    // The reference has seen it already.
                    returned -= 1;
                } else if let Some(reference) = &mut theirs {
                    let Some(chain) = reference.pop_descriptor_chain(&guest.reference) else {
                        assert!(rewritten, "a request that is not there");
                        theirs = None;
                        held.push(request);
                        continue;
                    };
                    assert_eq!(request.head(), chain.head_index());
                    let flat = |d: Descriptor| (d.addr().0, u64::from(d.len()));
                    let readable = joined(chain.clone().readable().map(flat));
                    let writable = joined(chain.writable().map(flat));
                    assert_eq!(guest.ranges(request.readable()), readable);
                    assert_eq!(guest.ranges(request.writable()), writable);
                }
                held.push(request);
                assert!(
                    held.len() <= usize::from(size),
                    "more in flight than fit the ring"
                );
            }
            Step::Complete { which, write, says } => {
                if let Some(request) = pick(&mut held, which) {
                    complete(&mut queue, request, write, says.0);
                }
            }
            Step::GiveBack { which } => {
                if let Some(request) = pick(&mut held, which) {
                    queue.give_back(request);
                    returned += 1;
                }
            }
            Step::Advance(by) => {
                rewritten = true;
                index = index.wrapping_add(u16::from(by % 20));
                guest.put(AVAILABLE + 2, &index.to_le_bytes());
            }
            Step::Rest => {
                queue.rest();
            }
            Step::Poke { addr, value } => {
                rewritten = true;
                guest.put(u64::from(addr % 0x4000), &[value]);
            }
        }
    }
    held.into_iter()
        .for_each(|request| queue.give_back(request));
});
