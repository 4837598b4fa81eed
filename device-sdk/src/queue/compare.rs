//! The engine against the reference: `virtio-queue`, an independent implementation, reads the
//! same rings through its own mapping of the same memory.
#![allow(clippy::arithmetic_side_effects)]

use std::fs::File;
use std::io::Read;
use std::os::fd::FromRawFd;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use virtio_queue::desc::{RawDescriptor, split::Descriptor as RefDescriptor};
use virtio_queue::mock::{AvailRing, DescriptorTable, UsedRing};
use virtio_queue::{Queue as RefQueue, QueueT};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

use super::descriptor::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE};
use super::*;
use crate::memory::{Region, RegionLayout};
use crate::request::Segment;

/// Guest address and length of each region: two that touch, and one apart.
const REGIONS: [(u64, usize); 3] = [(0, 0x8000), (0x8000, 0x8000), (0x4_0000, 0x8000)];
/// What the frontend adds to a guest address to make its own.
const USER: u64 = 0x7f00_0000_0000;
pub(super) const SIZE: u16 = 16;
/// Where the rings lie: not as the mock places them, whose two rings overlap.
const DESCRIPTORS: u64 = 0;
pub(super) const AVAILABLE: u64 = 0x1000;
pub(super) const USED: u64 = 0x2000;
/// Where tests put indirect tables, behind the rings.
pub(super) const TABLES: u64 = 0x4000;

/// The driver's side of one ring.
pub(super) struct Ring<'a> {
    pub(super) table: DescriptorTable<'a, GuestMemoryMmap>,
    pub(super) avail: AvailRing<'a, GuestMemoryMmap>,
    pub(super) used: UsedRing<'a, GuestMemoryMmap>,
}

impl<'a> Ring<'a> {
    pub(super) fn new(mem: &'a GuestMemoryMmap) -> Self {
        Self {
            table: DescriptorTable::new(mem, GuestAddress(DESCRIPTORS), SIZE),
            avail: AvailRing::new(mem, GuestAddress(AVAILABLE), SIZE),
            used: UsedRing::new(mem, GuestAddress(USED), SIZE),
        }
    }
}

/// The reference on that ring.
fn reference_queue() -> RefQueue {
    let mut queue = RefQueue::new(SIZE).unwrap();
    queue.set_size(SIZE);
    queue.set_desc_table_address(Some(DESCRIPTORS as u32), None);
    queue.set_avail_ring_address(Some(AVAILABLE as u32), None);
    queue.set_used_ring_address(Some(USED as u32), None);
    queue.set_ready(true);
    queue
}

/// The same guest memory twice: as the reference maps it, and as the engine does.
pub(super) struct Guest {
    pub(super) reference: GuestMemoryMmap,
    pub(super) memory: Arc<Memory>,
}

impl Guest {
    pub(super) fn new() -> Self {
        let total: usize = REGIONS.iter().map(|r| r.1).sum();
        let file = tempfile::tempfile().unwrap();
        file.set_len(total as u64).unwrap();
        let mut offset = 0;
        let mut ranges = Vec::new();
        let mut regions = Vec::new();
        for (guest_addr, len) in REGIONS {
            let part = FileOffset::new(file.try_clone().unwrap(), offset);
            ranges.push((GuestAddress(guest_addr), len, Some(part)));
            let layout = RegionLayout {
                guest_addr,
                user_addr: guest_addr + USER,
                size: len as u64,
                file_offset: offset,
            };
            regions.push(Arc::new(Region::map(layout, &file).unwrap()));
            offset += len as u64;
        }
        Self {
            reference: GuestMemoryMmap::from_ranges_with_files(ranges).unwrap(),
            memory: Arc::new(Memory::new(regions).unwrap()),
        }
    }

    fn addresses() -> RingAddresses {
        RingAddresses {
            descriptors: DESCRIPTORS + USER,
            available: AVAILABLE + USER,
            used: USED + USER,
        }
    }

    /// The engine on this ring, enabled.
    pub(super) fn queue(&self, event_idx: bool) -> Queue {
        let mut queue = Queue::new(0, Arc::clone(&self.memory));
        queue
            .start(RingStart {
                size: SIZE,
                addresses: Self::addresses(),
                base: 0,
                packed: false,
                event_idx,
                indirect: true,
            })
            .unwrap();
        queue.set_enabled(true);
        queue
    }

    /// Guest ranges of the engine's segments, neighbours joined.
    pub(super) fn ranges(&self, segments: &[Segment]) -> Vec<(u64, u64)> {
        joined(segments.iter().map(|segment| {
            let host = segment.addr().addr() as u64;
            let guest = REGIONS.iter().find_map(|&(start, len)| {
                let base = self.memory.guest(start, len as u64).unwrap().addr() as u64;
                (base..base + len as u64)
                    .contains(&host)
                    .then(|| start + (host - base))
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

/// A chain as a test wants it: readable buffers, writable ones, and how many of all stand in the
/// ring's own table before the rest goes to an indirect one (`None`: all of them).
#[derive(Clone, Debug)]
struct Wish {
    readable: Vec<(u64, u32)>,
    writable: Vec<(u64, u32)>,
    direct: Option<usize>,
}

/// Any range inside guest memory; some straddle the first two regions.
fn buffer() -> impl Strategy<Value = (u64, u32)> {
    prop_oneof![
        (0x6000u64..0x7fff, 0u32..0x9000).prop_map(|(a, l)| (a, l.min((0x1_0000 - a) as u32))),
        (0x4_0000u64..0x4_7fff, 0u32..0x8000).prop_map(|(a, l)| (a, l.min((0x4_8000 - a) as u32))),
    ]
}

fn wish() -> impl Strategy<Value = Wish> {
    let buffers = || vec(buffer(), 0..3);
    (buffers(), buffers(), proptest::option::of(0usize..3)).prop_map(
        |(readable, writable, direct)| Wish {
            readable,
            writable,
            direct,
        },
    )
}

/// Writes the chains into a ring from descriptor 0 on and makes them available, as long as they
/// fit. Returns how many did.
fn offer(mem: &GuestMemoryMmap, ring: &Ring<'_>, wishes: &[Wish]) -> u16 {
    let mut free = 0u16;
    let mut offered = 0u16;
    let mut tables = TABLES;
    for wish in wishes {
        let readable = wish.readable.iter().map(|&b| (b, 0));
        let writable = wish.writable.iter().map(|&b| (b, DESC_WRITE));
        let buffers: Vec<_> = readable.chain(writable).collect();
        if buffers.is_empty() {
            continue;
        }
        let direct = wish.direct.unwrap_or(buffers.len()).min(buffers.len());
        let slots = direct + usize::from(direct < buffers.len());
        if usize::from(free) + slots > usize::from(SIZE) {
            break;
        }
        let chained = |at: usize, end: usize| if at + 1 < end { DESC_NEXT } else { 0 };
        for (i, &((addr, len), write)) in buffers[..direct].iter().enumerate() {
            let next = free + i as u16 + 1;
            let flags = write | chained(i, slots);
            let desc = RefDescriptor::new(addr, len, flags, next);
            ring.table
                .store(free + i as u16, RawDescriptor::from(desc))
                .unwrap();
        }
        if direct < buffers.len() {
            let inner = &buffers[direct..];
            for (i, &((addr, len), write)) in inner.iter().enumerate() {
                let flags = write | chained(i, inner.len());
                let desc = RefDescriptor::new(addr, len, flags, i as u16 + 1);
                mem.write_obj(desc, GuestAddress(tables + 16 * i as u64))
                    .unwrap();
            }
            let len = 16 * inner.len() as u32;
            let desc = RefDescriptor::new(tables, len, DESC_INDIRECT, 0);
            ring.table
                .store(free + direct as u16, RawDescriptor::from(desc))
                .unwrap();
            tables += u64::from(len);
        }
        ring.avail
            .ring()
            .ref_at(usize::from(offered))
            .unwrap()
            .store(free);
        offered += 1;
        free += slots as u16;
    }
    ring.avail.idx().store(offered);
    offered
}

fn eventfd() -> File {
    // SAFETY: a new descriptor, owned by the file that is made of it.
    #[allow(unsafe_code)]
    unsafe {
        File::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))
    }
}

fn signalled(mut call: &File) -> bool {
    call.read(&mut [0; 8]).is_ok()
}

proptest! {
    /// Well-formed chains: the same heads, buffers and order as the reference finds.
    #[test]
    fn chains_are_what_the_reference_finds(wishes in vec(wish(), 1..12)) {
        let guest = Guest::new();
        let ring = Ring::new(&guest.reference);
        let offered = offer(&guest.reference, &ring, &wishes);
        let mut reference: RefQueue = reference_queue();
        let mut queue = guest.queue(false);
        let mut popped = 0;
        while let Some(chain) = reference.pop_descriptor_chain(&guest.reference) {
            let request = queue.pop().unwrap().expect("the reference found one more");
            popped += 1;
            prop_assert_eq!(request.head(), chain.head_index());
            let flat = |d: RefDescriptor| (d.addr().0, u64::from(d.len()));
            prop_assert_eq!(
                guest.ranges(request.readable()),
                joined(chain.clone().readable().map(flat))
            );
            prop_assert_eq!(
                guest.ranges(request.writable()),
                joined(chain.writable().map(flat))
            );
            queue.complete([(request, 0)]).unwrap();
        }
        prop_assert_eq!(popped, offered);
        prop_assert!(queue.pop().unwrap().is_none());
    }

    /// The used ring and the interrupts after random batches are the reference's, around the
    /// wrap of the free-running index, with event indices and with flags.
    #[test]
    fn completions_are_the_references(
        event_idx: bool,
        start in prop_oneof![Just(0u16), Just(0xfff8), any::<u16>()],
        steps in vec((1u16..6, any::<u16>(), 0u16..2, any::<u32>()), 1..20),
    ) {
        let (ours, theirs) = (Guest::new(), Guest::new());
        let ring = Ring::new(&ours.reference);
        let reference_ring = Ring::new(&theirs.reference);
        let mut reference: RefQueue = reference_queue();
        reference.set_event_idx(event_idx);
        reference.set_next_avail(start);
        reference.set_next_used(start);
        for ring in [&ring, &reference_ring] {
            for i in 0..SIZE {
                let desc = RefDescriptor::new(0x6000, 16, DESC_WRITE, 0);
                ring.table.store(i, RawDescriptor::from(desc)).unwrap();
                ring.avail.ring().ref_at(usize::from(i)).unwrap().store(i);
            }
            ring.avail.idx().store(start);
            ring.used.idx().store(start);
        }
        let mut queue = ours.queue(event_idx);
        queue.start(RingStart { base: start.into(), ..queue.start.unwrap() }).unwrap();
        let call = eventfd();
        queue.set_call(Some(call.try_clone().unwrap()));

        let mut avail = start;
        let mut first = true;
        for (batch, event, flags, written) in steps {
            avail = avail.wrapping_add(batch);
            for (ring, guest) in [(&ring, &ours), (&reference_ring, &theirs)] {
                guest.reference.write_obj(flags, GuestAddress(AVAILABLE)).unwrap();
                let used_event = AVAILABLE + 4 + 2 * u64::from(SIZE);
                guest.reference.write_obj(event, GuestAddress(used_event)).unwrap();
                ring.avail.idx().store(avail);
            }
            let mut done = Vec::new();
            while let Some(request) = queue.pop().unwrap() {
                let head = reference
                    .pop_descriptor_chain(&theirs.reference).unwrap().head_index();
                prop_assert_eq!(head, request.head());
                reference.add_used(&theirs.reference, head, written).unwrap();
                done.push((request, written));
            }
            prop_assert_eq!(done.len(), usize::from(batch));
            queue.complete(done).unwrap();
            // The reference does not read the driver's flag.
            let wanted = if event_idx {
                reference.needs_notification(&theirs.reference).unwrap()
            } else {
                flags == 0
            };
            // The engine always announces the first batch after a start.
            prop_assert_eq!(signalled(&call), wanted || first);
            first = false;
            let bytes = |guest: &Guest| {
                let mut bytes = [0u8; 4 + 8 * SIZE as usize];
                guest.reference.read_slice(&mut bytes, GuestAddress(USED)).unwrap();
                bytes
            };
            prop_assert_eq!(bytes(&ours), bytes(&theirs));
        }
    }

    /// Any bytes for a ring: no panic, no segment outside of guest memory (checked by `ranges`),
    /// an end. What the engine accepts, the reference sees as well.
    #[test]
    fn any_bytes_are_harmless(
        bytes in vec(any::<u8>(), 0x1000),
        small in vec((0u16..20, 0u16..8, 0u64..0x5_0000, 0u32..0x1000), 0..SIZE as usize),
        avail: u16,
        event_idx: bool,
    ) {
        let guest = Guest::new();
        guest.reference.write_slice(&bytes, GuestAddress(0)).unwrap();
        guest.reference.write_slice(&bytes, GuestAddress(TABLES)).unwrap();
        let ring = Ring::new(&guest.reference);
        for (i, (next, flags, addr, len)) in small.into_iter().enumerate() {
            let desc = RefDescriptor::new(addr, len, flags, next);
            ring.table.store(i as u16, RawDescriptor::from(desc)).unwrap();
            ring.avail.ring().ref_at(i).unwrap().store(i as u16);
        }
        ring.avail.idx().store(avail % (SIZE + 2));
        let mut queue = guest.queue(event_idx);
        let mut reference: RefQueue = reference_queue();
        for _ in 0..=SIZE {
            let Ok(Some(request)) = queue.pop() else { break };
            let chain = reference.pop_descriptor_chain(&guest.reference).unwrap();
            let flat = |d: RefDescriptor| (d.addr().0, u64::from(d.len()));
            prop_assert_eq!(guest.ranges(request.readable()), joined(chain.clone().readable().map(flat)));
            prop_assert_eq!(guest.ranges(request.writable()), joined(chain.writable().map(flat)));
            // Not completed: that would write into the bytes under test.
            queue.give_back(request);
            let request = queue.returned.pop_front().unwrap();
            queue.leases.release(request.chain.generation);
        }
        queue.arm();
        queue.stop();
    }
}
