//! The ring against an independent device side: `virtio-queue`, in this process.

use std::sync::atomic::{Ordering, fence};

use proptest::prelude::*;
use virtio_queue::{Queue as DeviceQueue, QueueOwnedT, QueueT};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};

use super::layout::{DESCRIPTOR_SIZE, RingLayout};
use super::memory::{GuestMemory, Window};
use super::ring::{IndirectTables, RingError, Segment, SplitRing, Used, crosses};

struct Rig {
    ring: SplitRing,
    device: DeviceQueue,
    device_memory: GuestMemoryMmap,
}

impl Rig {
    fn new(size: u16, event_idx: bool, indirect: u16, base: u16) -> Self {
        let memory = GuestMemory::new(&[(0x10_0000, 1 << 20)]).unwrap();
        let device_memory = same_memory(&memory);
        let layout = RingLayout::new(size);
        let window = memory.window(0x10_0000, layout.len as u64).unwrap();
        let tables: Option<Window> = (indirect > 0).then(|| {
            let len = u64::from(size) * u64::from(indirect) * DESCRIPTOR_SIZE as u64;
            memory.window(0x14_0000, len).unwrap()
        });
        let indirect = tables.map(|window| IndirectTables {
            window,
            entries: indirect,
        });
        let mut device = DeviceQueue::new(size).unwrap();
        device.set_size(size);
        let at = |offset: usize| GuestAddress(window.addr() + offset as u64);
        device
            .try_set_desc_table_address(at(layout.descriptors))
            .unwrap();
        device
            .try_set_avail_ring_address(at(layout.available))
            .unwrap();
        device.try_set_used_ring_address(at(layout.used)).unwrap();
        device.set_next_avail(base);
        device.set_next_used(base);
        device.set_event_idx(event_idx);
        device.set_ready(true);
        let ring = SplitRing::new(window, layout, event_idx, indirect, base);
        assert!(device.is_valid(&device_memory));
        Self {
            ring,
            device,
            device_memory,
        }
    }

    /// Every chain now available, as the device sees it: head and segments.
    fn take(&mut self) -> Vec<(u16, Vec<Segment>)> {
        let chains = self.device.iter(&self.device_memory).unwrap();
        chains
            .map(|chain| {
                let head = chain.head_index();
                let segments = chain.map(|d| Segment {
                    addr: d.addr().0,
                    len: d.len(),
                    writable: d.is_write_only(),
                });
                (head, segments.collect())
            })
            .collect()
    }
}

/// The same memfds, mapped once more as a device would.
fn same_memory(memory: &GuestMemory) -> GuestMemoryMmap {
    let ranges = memory.table().into_iter().map(|region| {
        let path = format!("/proc/self/fd/{}", region.mmap_handle);
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        let file = FileOffset::new(file, region.mmap_offset);
        (
            GuestAddress(region.guest_phys_addr),
            region.memory_size as usize,
            Some(file),
        )
    });
    GuestMemoryMmap::from_ranges_with_files(ranges).unwrap()
}

/// Segments that virtio-queue does not object to: readable ones first, 4 GiB together at most.
fn chain() -> impl Strategy<Value = Vec<Segment>> {
    let segment = (0u64..1 << 40, 0u32..1 << 28).prop_map(|(addr, len)| (addr, len));
    (prop::collection::vec(segment, 1..6), 0usize..6).prop_map(|(parts, readable)| {
        let parts = parts.into_iter().enumerate();
        parts
            .map(|(i, (addr, len))| Segment {
                addr,
                len,
                writable: i >= readable,
            })
            .collect()
    })
}

proptest! {
    /// Chains reach the device as they were added, in order, and each comes back once, with its own
    /// token, in whatever order the device completes them; over index wraps, with or without
    /// indirect tables.
    #[test]
    fn chains_cross_and_come_back(
        chains in prop::collection::vec(chain(), 1..60),
        base: u16,
        indirect in prop_oneof![Just(0u16), Just(4), Just(8)],
        event_idx: bool,
        order: u64,
    ) {
        let mut rig = Rig::new(8, event_idx, indirect, base);
        let mut held: Vec<(u16, u64)> = Vec::new();
        let mut waiting = chains.iter().enumerate().peekable();
        let mut back = Vec::new();
        let mut order = order;
        while back.len() < chains.len() {
            let mut sent = Vec::new();
            while let Some((token, chain)) = waiting.peek() {
                match rig.ring.add(chain, *token as u64) {
                    Ok(()) => sent.push(waiting.next().unwrap()),
                    Err(RingError::Full { .. }) => break,
                    Err(other) => return Err(TestCaseError::fail(other.to_string())),
                }
            }
            prop_assert!(rig.take().is_empty(), "nothing is seen before it is published");
            rig.ring.publish();
            let seen = rig.take();
            prop_assert_eq!(seen.len(), sent.len());
            for ((head, segments), (token, chain)) in seen.into_iter().zip(sent) {
                prop_assert_eq!(&segments, chain);
                held.push((head, token as u64));
            }
            // Complete some of what the device holds, from anywhere in it.
            for _ in 0..=order % 3 {
                if held.is_empty() {
                    break;
                }
                order = order.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let (head, token) = held.swap_remove((order % held.len() as u64) as usize);
                rig.device.add_used(&rig.device_memory, head, token as u32 + 1).unwrap();
                back.push(token);
                let used = Used { token, written: token as u32 + 1 };
                prop_assert_eq!(rig.ring.pop(), Ok(Some(used)));
            }
            prop_assert_eq!(rig.ring.pop(), Ok(None));
            prop_assert_eq!(usize::from(rig.ring.outstanding()), held.len());
        }
        back.sort_unstable();
        prop_assert!(back.into_iter().eq(0..chains.len() as u64));
        prop_assert_eq!(rig.ring.free(), 8);
    }

    /// A device that writes anything into its used ring costs an error, never a panic.
    #[test]
    fn any_used_ring_is_survived(index: u16, id: u32, len: u32, added in 0usize..8) {
        let mut rig = Rig::new(8, false, 0, 0);
        for token in 0..added {
            rig.ring.add(&[Segment::readable(0, 1)], token as u64).unwrap();
        }
        rig.ring.publish();
        let layout = *rig.ring.layout();
        let memory = rig.ring.memory().clone();
        for slot in 0..8 {
            memory.store_u32(layout.used_slot(slot), id, Ordering::Relaxed);
            memory.store_u32(layout.used_slot(slot) + 4, len, Ordering::Relaxed);
        }
        memory.store_u16(layout.used_index(), index, Ordering::Release);
        let mut popped = 0;
        while let Ok(Some(used)) = rig.ring.pop() {
            prop_assert!((used.token as usize) < added);
            popped += 1;
        }
        prop_assert!(popped <= 1, "one head can be outstanding once");
    }

    #[test]
    fn crossing_an_event_is_passing_it(event: u16, old: u16, steps in 0u16..1000) {
        let passed = (0..steps).any(|i| old.wrapping_add(i) == event);
        prop_assert_eq!(crosses(event, old.wrapping_add(steps), old), passed);
    }
}

#[test]
fn kicks_follow_the_flags() {
    let mut rig = Rig::new(8, false, 0, 0);
    let flags = rig.ring.layout().used;
    assert!(!rig.ring.needs_kick(), "nothing was published");
    rig.ring.add(&[Segment::readable(0, 1)], 0).unwrap();
    rig.ring.publish();
    assert!(rig.ring.needs_kick());
    assert!(!rig.ring.needs_kick(), "that was decided");
    rig.ring.memory().store_u16(flags, 1, Ordering::Relaxed);
    rig.ring.add(&[Segment::readable(0, 1)], 0).unwrap();
    rig.ring.publish();
    assert!(!rig.ring.needs_kick());
}

#[test]
fn kicks_follow_the_event_index() {
    let mut rig = Rig::new(8, true, 0, u16::MAX - 1);
    let event = rig.ring.layout().avail_event();
    for (expected, at) in [(true, u16::MAX - 1), (false, 5), (false, 5), (true, 1)] {
        rig.ring.memory().store_u16(event, at, Ordering::Relaxed);
        rig.ring.add(&[Segment::readable(0, 1)], 0).unwrap();
        rig.ring.publish();
        assert_eq!(rig.ring.needs_kick(), expected, "event at {at}");
    }
}

#[test]
fn arming_asks_the_device_to_call() {
    for event_idx in [false, true] {
        let mut rig = Rig::new(8, event_idx, 0, 0xfffe);
        for _ in 0..6 {
            rig.ring.add(&[Segment::readable(0, 1)], 0).unwrap();
        }
        rig.ring.publish();
        let heads: Vec<u16> = rig.take().into_iter().map(|(head, _)| head).collect();
        let mut heads = heads.into_iter();
        let mut complete = |rig: &mut Rig| {
            let head = heads.next().unwrap();
            rig.device.add_used(&rig.device_memory, head, 0).unwrap();
            fence(Ordering::SeqCst);
            rig.device.needs_notification(&rig.device_memory).unwrap()
        };
        // virtio-queue's first answer with event_idx is always yes.
        complete(&mut rig);
        rig.ring.pop().unwrap().unwrap();
        if event_idx {
            rig.ring.disarm();
            assert!(!complete(&mut rig), "disarmed");
            assert!(rig.ring.arm(), "one is already there");
            rig.ring.pop().unwrap().unwrap();
            assert!(!rig.ring.arm());
            assert!(complete(&mut rig), "armed");
            rig.ring.pop().unwrap().unwrap();
            assert!(!rig.ring.arm_after(2));
            assert!(!complete(&mut rig), "one of two");
            assert!(complete(&mut rig), "two of two");
        } else {
            assert!(!rig.ring.arm());
            assert!(complete(&mut rig), "armed");
            rig.ring.disarm();
            assert_eq!(
                rig.ring
                    .memory()
                    .load_u16(rig.ring.layout().available, Ordering::Relaxed),
                1
            );
        }
    }
}

#[test]
fn a_full_ring_says_so_and_goes_on_after() {
    let mut rig = Rig::new(4, false, 0, 0);
    let two = [Segment::readable(0, 1), Segment::writable(8, 1)];
    rig.ring.add(&two, 1).unwrap();
    rig.ring.add(&two[..1], 2).unwrap();
    assert_eq!(
        rig.ring.add(&two, 3),
        Err(RingError::Full { needed: 2, free: 1 })
    );
    assert_eq!(rig.ring.add(&[], 3), Err(RingError::Empty));
    rig.ring.publish();
    let seen = rig.take();
    rig.device
        .add_used(&rig.device_memory, seen[0].0, 0)
        .unwrap();
    assert_eq!(rig.ring.pop().unwrap().unwrap().token, 1);
    rig.ring.add(&two, 3).unwrap();
}

#[test]
fn a_head_is_not_believed_twice() {
    let mut rig = Rig::new(4, false, 0, 0);
    for token in 0..2 {
        rig.ring.add(&[Segment::readable(0, 1)], token).unwrap();
    }
    rig.ring.publish();
    let seen = rig.take();
    rig.device
        .add_used(&rig.device_memory, seen[0].0, 0)
        .unwrap();
    rig.device
        .add_used(&rig.device_memory, seen[0].0, 0)
        .unwrap();
    assert!(rig.ring.pop().unwrap().is_some());
    assert_eq!(
        rig.ring.pop(),
        Err(RingError::NotOutstanding(u32::from(seen[0].0)))
    );
}
