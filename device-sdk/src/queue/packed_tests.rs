//! Packed rings: the engine against the driver of this crate, which shares nothing with it but guest
//! memory, and against what a hostile driver writes.
#![allow(clippy::arithmetic_side_effects)]

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use nix::sys::eventfd::{EfdFlags, EventFd};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::driver::layout::{DESCRIPTOR_SIZE, RingLayout};
use crate::driver::memory::GuestMemory;
use crate::driver::ring::{
    DESC_INDIRECT, DESC_NEXT, DESC_WRITE, IndirectTables, PackedRing, Segment as Buffer,
};
use crate::memory::{Region, RegionLayout};

/// Where the guest's memory begins; its rings, tables and buffers lie one behind the other.
const START: u64 = 0x10_0000;
const LEN: u64 = 1 << 20;
const TABLES: u64 = START + 0x2000;
const BUFFERS: u64 = START + 0x8_0000;
const ENTRIES: u16 = 4;

/// The engine and a driver on one packed ring.
struct Pair {
    driver: PackedRing,
    queue: Queue,
    call: File,
    base: u64,
}

impl Pair {
    fn new(size: u16, base: u16, event_idx: bool, indirect: bool) -> Self {
        let guest = GuestMemory::new(&[(START, LEN)]).unwrap();
        let region = guest.table().remove(0);
        let path = format!("/proc/self/fd/{}", region.mmap_handle);
        let file = File::options().read(true).write(true).open(path).unwrap();
        let layout = RegionLayout {
            guest_addr: START,
            user_addr: region.userspace_addr,
            size: LEN,
            file_offset: 0,
        };
        let memory = Region::map(layout, &file).unwrap();
        let memory = Arc::new(Memory::new(vec![Arc::new(memory)]).unwrap());
        let layout = RingLayout::packed(size);
        let window = guest.window(START, layout.len as u64).unwrap();
        let addresses = RingAddresses {
            descriptors: window.user_addr() + layout.descriptors as u64,
            available: window.user_addr() + layout.available as u64,
            used: window.user_addr() + layout.used as u64,
        };
        let tables = indirect.then(|| IndirectTables {
            window: guest
                .window(TABLES, u64::from(size * ENTRIES) * DESCRIPTOR_SIZE as u64)
                .unwrap(),
            entries: ENTRIES,
        });
        let driver = PackedRing::new(window, layout, event_idx, tables, base);
        let host = memory.guest(START, LEN).unwrap().addr() as u64;
        let mut queue = Queue::on_ring(
            memory,
            RingStart {
                size,
                addresses,
                base: driver.wire_base(base),
                packed: true,
                event_idx,
                indirect,
            },
        )
        .unwrap();
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let call = File::from(OwnedFd::from(EventFd::from_flags(flags).unwrap()));
        queue.set_call(Some(call.try_clone().unwrap()));
        Self {
            driver,
            queue,
            call,
            base: host,
        }
    }

    fn called(&self) -> bool {
        (&self.call).read(&mut [0; 8]).is_ok()
    }

    /// A request's buffers as the driver names them.
    fn buffers(&self, request: &Request) -> Vec<Buffer> {
        let guest = |s: &crate::Segment| s.addr().addr() as u64 - self.base + START;
        let readable = request.readable().iter();
        let readable = readable.map(|s| Buffer::readable(guest(s), s.len() as u32));
        let writable = request.writable().iter();
        let writable = writable.map(|s| Buffer::writable(guest(s), s.len() as u32));
        readable.chain(writable).collect()
    }

    /// Writes descriptor `slot` by hand, available in the first lap.
    fn put(&self, slot: usize, addr: u64, len: u32, id: u16, flags: u16) {
        let (memory, at) = (self.driver.memory(), slot * DESCRIPTOR_SIZE);
        memory.store_u64(at, addr, Ordering::Relaxed);
        memory.store_u32(at + 8, len, Ordering::Relaxed);
        memory.store_u16(at + 12, id, Ordering::Relaxed);
        memory.store_u16(at + 14, flags | AVAILABLE, Ordering::Release);
    }

    fn fault(mut self) -> ChainError {
        let error = self.queue.pop().unwrap_err();
        assert!(matches!(self.queue.pop(), Err(QueueError::Broken { .. })));
        match error {
            QueueError::Chain { source, .. } => source,
            other => panic!("{other}"),
        }
    }
}

/// Flags of a descriptor that is available in the first lap.
const AVAILABLE: u16 = 1 << 7;

#[derive(Clone, Debug)]
enum Step {
    /// A chain of so many readable and writable buffers.
    Add(usize, usize),
    Publish,
    Pop,
    /// Completes one of those held, with so many bytes.
    Complete(Vec<(prop::sample::Index, u32)>),
    GiveBack(prop::sample::Index),
    /// The driver takes back what is completed.
    Take,
    DriverSleeps,
    DriverPolls,
    DeviceSleeps,
    DeviceWakes,
    /// The ring is stopped and goes on elsewhere.
    Move,
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => (0usize..3, 0usize..3).prop_map(|(r, w)| Step::Add(r, w)),
        3 => Just(Step::Publish),
        4 => Just(Step::Pop),
        3 => vec((index(), any::<u32>()), 1..4).prop_map(Step::Complete),
        1 => index().prop_map(Step::GiveBack),
        3 => Just(Step::Take),
        1 => Just(Step::DriverSleeps),
        1 => Just(Step::DriverPolls),
        1 => Just(Step::DeviceSleeps),
        1 => Just(Step::DeviceWakes),
        1 => Just(Step::Move),
    ]
}

proptest! {
    /// Whatever the two do, in whatever order: each chain arrives whole and in order, each answer comes
    /// back to its chain, and neither sleeps over what the other has done.
    #[test]
    fn driver_and_engine_agree(
        size in 1u16..24,
        base in prop_oneof![Just(0u16), any::<u16>()],
        event_idx: bool,
        indirect: bool,
        steps in vec(step(), 1..200),
    ) {
        let mut pair = Pair::new(size, base, event_idx, indirect);
        let (mut added, mut published) = (VecDeque::new(), VecDeque::new());
        let mut held: Vec<(u64, Request)> = Vec::new();
        let mut returned: VecDeque<u64> = VecDeque::new();
        let mut answers: VecDeque<(u64, u32)> = VecDeque::new();
        let (mut driver_sleeps, mut device_sleeps) = (false, false);
        for (token, step) in (0u64..).zip(steps) {
            match step {
                Step::Add(readable, writable) => {
                    let at = |n: usize| BUFFERS + token * 64 + n as u64 * 8;
                    let chain: Vec<_> = (0..readable)
                        .map(|n| Buffer::readable(at(n), 8))
                        .chain((readable..readable + writable).map(|n| Buffer::writable(at(n), 8)))
                        .collect();
                    if !chain.is_empty() && pair.driver.add(&chain, token).is_ok() {
                        added.push_back((token, chain));
                    }
                }
                Step::Publish => {
                    let news = !added.is_empty();
                    pair.driver.publish();
                    published.append(&mut added);
                    let kick = pair.driver.needs_kick();
                    if device_sleeps && news {
                        prop_assert!(kick, "nobody wakes the device");
                        device_sleeps = false;
                        pair.queue.disarm();
                    }
                }
                Step::Pop => {
                    let popped = pair.queue.pop().unwrap();
                    if let Some(token) = returned.pop_front() {
                        held.push((token, popped.expect("what was given back comes again")));
                    } else if let Some((token, chain)) = published.pop_front() {
                        let request = popped.expect("what was published is there");
                        prop_assert_eq!(pair.buffers(&request), chain);
                        held.push((token, request));
                    } else {
                        prop_assert!(popped.is_none());
                    }
                }
                Step::Complete(which) => {
                    let mut done = Vec::new();
                    for (index, written) in which {
                        if held.is_empty() {
                            break;
                        }
                        let (token, request) = held.remove(index.index(held.len()));
                        answers.push_back((token, written));
                        done.push((request, written));
                    }
                    let any = !done.is_empty();
                    pair.queue.complete(done).unwrap();
                    let called = pair.called();
                    if any && driver_sleeps {
                        prop_assert!(called, "nobody wakes the driver");
                        driver_sleeps = false;
                    }
                }
                Step::GiveBack(index) => {
                    if !held.is_empty() {
                        let (token, request) = held.remove(index.index(held.len()));
                        // Oldest first, and tokens are given out in order.
                        let at = returned.partition_point(|other| *other < token);
                        returned.insert(at, token);
                        pair.queue.give_back(request);
                    }
                }
                Step::Take => {
                    while let Some(used) = pair.driver.pop().unwrap() {
                        prop_assert_eq!(Some((used.token, used.written)), answers.pop_front());
                    }
                    prop_assert!(answers.is_empty());
                }
                Step::DriverSleeps => driver_sleeps = !pair.driver.arm(),
                Step::DriverPolls => {
                    pair.driver.disarm();
                    driver_sleeps = false;
                }
                Step::DeviceSleeps => {
                    // What was looked at before does not count.
                    pair.queue.look();
                    device_sleeps = !pair.queue.arm();
                }
                Step::DeviceWakes => {
                    pair.queue.disarm();
                    device_sleeps = false;
                }
                Step::Move if held.is_empty() && returned.is_empty() => {
                    let start = pair.queue.start.unwrap();
                    let base = pair.queue.stop();
                    prop_assert_eq!(base as u16, (base >> 16) as u16, "nothing is in flight");
                    pair.queue.start(RingStart { base, ..start }).unwrap();
                    device_sleeps = false;
                }
                Step::Move => {}
            }
        }
        for (_, request) in held {
            pair.queue.give_back(request);
        }
        pair.queue.stop();
    }

    /// Any bytes for a ring: no panic, an end, and never more slots taken than there are.
    #[test]
    fn any_bytes_are_harmless(
        size in 1u16..24,
        bytes in vec(any::<u8>(), 24 * 16 + 192),
        likely in vec((0u64..LEN + 16, 0u32..64, any::<u16>(), 0u16..8), 24),
        event_idx: bool,
        rounds in 1usize..40,
    ) {
        let mut pair = Pair::new(size, 0, event_idx, true);
        let memory = pair.driver.memory().clone();
        memory.write(0, &bytes[..memory.len()]);
        for (slot, (addr, len, id, flags)) in likely.into_iter().enumerate().take(usize::from(size)) {
            pair.put(slot, START + addr, len, id, flags);
        }
        let mut held = Vec::new();
        for round in 0..rounds {
            match pair.queue.pop() {
                Ok(Some(request)) => held.push(request),
                Ok(None) => {}
                Err(_) => break,
            }
            prop_assert!(held.len() <= usize::from(size));
            if round % 3 == 2 && let Some(request) = held.pop() {
                pair.queue.complete([(request, 1)]).unwrap();
            }
            pair.queue.look();
        }
        pair.queue.arm();
        for request in held {
            pair.queue.give_back(request);
        }
        pair.queue.stop();
    }
}

#[test]
fn each_way_to_break_a_packed_chain_is_named() {
    let pair = || Pair::new(4, 0, true, true);
    let broken = pair();
    for slot in 0..4 {
        broken.put(slot, BUFFERS, 8, 0, DESC_NEXT);
    }
    assert_eq!(broken.fault(), ChainError::TooLong(4));
    let broken = pair();
    broken.put(1, BUFFERS, 8, 0, 0);
    broken.put(0, BUFFERS, 8, 0, DESC_WRITE | DESC_NEXT);
    assert_eq!(broken.fault(), ChainError::Order);
    let broken = pair();
    broken.put(0, START + LEN, 8, 0, 0);
    let outside = ChainError::Address {
        addr: START + LEN,
        len: 8,
    };
    assert_eq!(broken.fault(), outside);
    let broken = pair();
    broken.put(0, BUFFERS, 8, 4, 0);
    assert_eq!(broken.fault(), ChainError::Id(4));
    for (len, flags) in [(0, 0), (17, 0), (16, DESC_NEXT)] {
        let broken = pair();
        broken.put(0, TABLES, len, 0, DESC_INDIRECT | flags);
        assert_eq!(broken.fault(), ChainError::Indirect { addr: TABLES, len });
    }
    let broken = pair();
    broken.put(0, START, 16, 0, DESC_INDIRECT);
    // The table is the ring itself: a table in a table.
    assert_eq!(
        broken.fault(),
        ChainError::Indirect {
            addr: START,
            len: 16
        }
    );
    let broken = pair();
    let len = 16 * (u32::from(chain::MAX_DESCRIPTORS) + 1);
    broken.put(0, TABLES, len, 0, DESC_INDIRECT);
    let limit = chain::MAX_DESCRIPTORS;
    assert_eq!(broken.fault(), ChainError::TooLong(limit));
    let unasked = Pair::new(4, 0, true, false);
    unasked.put(0, TABLES, 16, 0, DESC_INDIRECT);
    let table = ChainError::Indirect {
        addr: TABLES,
        len: 16,
    };
    assert_eq!(unasked.fault(), table);
}

/// A driver that makes slots available which it has not got back finds nobody who takes them.
#[test]
fn no_more_than_a_packed_ring_is_ever_in_flight() {
    let mut pair = Pair::new(4, 0, true, true);
    (0..4).for_each(|slot| pair.put(slot, BUFFERS, 8, slot as u16, 0));
    let mut held: Vec<_> = std::iter::from_fn(|| pair.queue.pop().unwrap()).collect();
    assert_eq!(held.len(), 4);
    // Available in the second lap.
    for slot in 0..4 {
        let at = slot * DESCRIPTOR_SIZE + 14;
        let memory = pair.driver.memory();
        memory.store_u16(at, 1 << 15, Ordering::Relaxed);
    }
    assert!(!pair.queue.look());
    assert!(pair.queue.pop().unwrap().is_none());
    let first = held.remove(0);
    pair.queue.complete([(first, 8)]).unwrap();
    // Its slot now says that it is used; nobody has made it available again.
    assert!(pair.queue.pop().unwrap().is_none());
    pair.queue
        .complete(held.into_iter().map(|r| (r, 8)))
        .unwrap();
}

#[test]
fn a_base_outside_of_the_ring_is_refused() {
    let mut pair = Pair::new(4, 0, true, true);
    let start = pair.queue.start.unwrap();
    for base in [4, 4 << 16, 0x8003_8001, 0x0001_8002] {
        let error = pair.queue.start(RingStart { base, ..start }).unwrap_err();
        assert_eq!(error, RingError::Base(base), "{base:#x}");
    }
    for base in [
        0x8000_8000,
        0x8003_8003,
        0x0001_0001,
        0x8001_8003,
        0x8002_0002,
    ] {
        pair.queue.start(RingStart { base, ..start }).unwrap();
        assert_eq!(pair.queue.stop(), base);
        pair.queue.start = Some(start);
    }
    // With the available position alone.
    for base in [0, 0x8000, 0x8001, 3] {
        pair.queue.start(RingStart { base, ..start }).unwrap();
        assert_eq!(pair.queue.stop(), base << 16 | base);
        pair.queue.start = Some(start);
    }
    pair.queue.start(start).unwrap();
}

#[test]
fn answers_wait_for_a_packed_rings_memory() {
    let mut pair = Pair::new(8, 6, true, true);
    let chain = [
        Buffer::readable(BUFFERS, 8),
        Buffer::writable(BUFFERS + 8, 8),
    ];
    for token in 0..3 {
        pair.driver
            .add(&chain[..=token as usize % 2], token)
            .unwrap();
    }
    pair.driver.publish();
    let held: Vec<_> = std::iter::from_fn(|| pair.queue.pop().unwrap()).collect();
    let memory = Arc::new(Memory::new(pair.queue.leases.memory().shared_regions()).unwrap());
    assert!(pair.queue.set_memory(Arc::default()).is_err());
    pair.queue
        .complete(held.into_iter().map(|r| (r, 2)))
        .unwrap();
    assert!(pair.driver.pop().unwrap().is_none());
    pair.queue.set_memory(memory).unwrap();
    for token in 0..3 {
        assert_eq!(
            pair.driver.pop().unwrap().map(|used| used.token),
            Some(token)
        );
    }
}
