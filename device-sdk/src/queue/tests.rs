//! What the reference does not do, or does otherwise: errors, giving back, memory changes, arming.
#![allow(clippy::arithmetic_side_effects)]

use virtio_queue::desc::{RawDescriptor, split::Descriptor as RefDescriptor};
use vm_memory::{Bytes, GuestAddress};

use super::compare::{Guest, Ring, SIZE, TABLES, USED};
use super::descriptor::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE};
use super::*;

fn store(ring: &Ring<'_>, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
    let desc = RefDescriptor::new(addr, len, flags, next);
    ring.table.store(index, RawDescriptor::from(desc)).unwrap();
}

/// Makes `n` one-buffer chains available, with heads 0 to n - 1.
fn offer(ring: &Ring<'_>, n: u16) {
    for i in 0..n {
        store(ring, i, 0x6000 + u64::from(i) * 0x10, 0x10, DESC_WRITE, 0);
        let slot = ring.avail.ring().ref_at(usize::from(i)).unwrap();
        slot.store(i);
    }
    ring.avail.idx().store(n);
}

/// Pops head 0 of a ring that holds it alone, and gives back what was wrong with it.
fn fault(guest: &Guest, ring: &Ring<'_>) -> ChainError {
    ring.avail.idx().store(1);
    let mut queue = guest.queue(false);
    let error = queue.pop().unwrap_err();
    assert!(matches!(queue.pop(), Err(QueueError::Broken { queue: 0 })));
    assert!(!queue.enabled() && !queue.arm());
    match error {
        QueueError::Chain { source, .. } => source,
        other => panic!("{other}"),
    }
}

/// A device may wait for the stop in two places at once, and a change of the ring comes between.
#[tokio::test]
async fn whoever_waits_for_the_stop_of_a_queue_hears_of_it() {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;
    let guest = Guest::new();
    let group = SharedGroup::new(vec![guest.queue(false)]);
    let stream = group.streams().remove(0);
    let (mut one, mut other) = (pin!(stream.stopped()), pin!(stream.stopped()));
    let mut polled = async || {
        poll_fn(|context| {
            let one = one.as_mut().poll(context).is_ready();
            Poll::Ready((one, other.as_mut().poll(context).is_ready()))
        })
        .await
    };
    assert_eq!(polled().await, (false, false));
    group.wake_all();
    assert_eq!(polled().await, (false, false));
    group.stop();
    assert_eq!(polled().await, (true, true));
}

#[test]
fn a_buffer_of_no_bytes_has_no_segment_and_is_counted() {
    let guest = Guest::new();
    let ring = Ring::new(&guest.reference);
    store(&ring, 0, 0x6000, 0, DESC_NEXT, 1);
    store(&ring, 1, 0x6000, 8, DESC_NEXT, 2);
    store(&ring, 2, u64::MAX, 0, DESC_WRITE, 0);
    ring.avail.ring().ref_at(0).unwrap().store(0);
    ring.avail.idx().store(1);
    let mut queue = guest.queue(false);
    let request = queue.pop().unwrap().unwrap();
    assert_eq!((request.segments().len(), request.buffers()), (1, 3));
    queue.complete([(request, 0)]).unwrap();
}

#[test]
fn each_way_to_break_a_chain_is_named() {
    let guest = Guest::new();
    let mem = &guest.reference;
    let ring = Ring::new(mem);
    store(&ring, 0, 0x6000, 0x10, DESC_NEXT, 0);
    assert_eq!(fault(&guest, &ring), ChainError::TooLong(1024));
    store(&ring, 0, 0x6000, 0x10, DESC_NEXT, SIZE);
    assert_eq!(fault(&guest, &ring), ChainError::Index(SIZE));
    store(&ring, 0, 0xffff, 2, 0, 0);
    let hole = ChainError::Address {
        addr: 0xffff,
        len: 2,
    };
    assert_eq!(fault(&guest, &ring), hole);
    store(&ring, 0, 0x6000, 1, DESC_WRITE | DESC_NEXT, 1);
    store(&ring, 1, 0x6000, 1, 0, 0);
    assert_eq!(fault(&guest, &ring), ChainError::Order);
    for (len, flags) in [
        (0, DESC_INDIRECT),
        (17, DESC_INDIRECT),
        (16, DESC_INDIRECT | DESC_NEXT),
    ] {
        store(&ring, 0, TABLES, len, flags, 1);
        let error = fault(&guest, &ring);
        assert_eq!(error, ChainError::Indirect { addr: TABLES, len });
    }
    // A table in a table.
    store(&ring, 0, TABLES, 16, DESC_INDIRECT, 0);
    let inner = RefDescriptor::new(TABLES, 16, DESC_INDIRECT, 0);
    mem.write_obj(inner, GuestAddress(TABLES)).unwrap();
    let nested = ChainError::Indirect {
        addr: TABLES,
        len: 16,
    };
    assert_eq!(fault(&guest, &ring), nested);
    // A table that loops within itself.
    let inner = RefDescriptor::new(0x6000, 16, DESC_NEXT, 0);
    mem.write_obj(inner, GuestAddress(TABLES)).unwrap();
    assert_eq!(fault(&guest, &ring), ChainError::TooLong(1024));
}

#[test]
fn indirect_tables_need_the_feature_and_may_lie_anywhere() {
    let guest = Guest::new();
    let ring = Ring::new(&guest.reference);
    let at = GuestAddress(TABLES + 3);
    let inner = RefDescriptor::new(0x6000, 32, DESC_WRITE, 0);
    guest.reference.write_obj(inner, at).unwrap();
    store(&ring, 0, at.0, 16, DESC_INDIRECT, 0);
    ring.avail.idx().store(1);
    let mut queue = guest.queue(false);
    let request = queue.pop().unwrap().unwrap();
    assert_eq!(guest.ranges(request.writable()), [(0x6000, 32)]);
    queue.complete([(request, 0)]).unwrap();

    let mut queue = guest.queue(false);
    let start = RingStart {
        indirect: false,
        ..queue.start.unwrap()
    };
    queue.start(start).unwrap();
    assert!(queue.pop().is_err());
}

#[test]
fn an_available_index_beyond_the_ring_breaks_it() {
    let guest = Guest::new();
    let ring = Ring::new(&guest.reference);
    ring.avail.idx().store(SIZE + 1);
    let mut queue = guest.queue(false);
    assert!(matches!(
        queue.pop(),
        Err(QueueError::AvailableIndex { next: 0, .. })
    ));
}

#[test]
fn no_more_than_a_ring_is_ever_in_flight() {
    let guest = Guest::new();
    let ring = Ring::new(&guest.reference);
    offer(&ring, SIZE);
    let mut queue = guest.queue(false);
    let mut taken: Vec<_> = std::iter::from_fn(|| queue.pop().unwrap()).collect();
    assert_eq!(taken.len(), usize::from(SIZE));
    queue.complete(taken.pop().map(|r| (r, 0))).unwrap();
    // One has come back and may be offered again; a second one may not.
    ring.avail.idx().store(SIZE + 1);
    let request = queue.pop().unwrap().unwrap();
    ring.avail.idx().store(SIZE + 2);
    assert!(matches!(
        queue.pop(),
        Err(QueueError::AvailableIndex { .. })
    ));
    queue.complete([(request, 0)]).unwrap();
    assert_eq!(ring.used.idx().load(), 2);
}

#[test]
fn an_interrupt_due_before_there_was_a_descriptor_is_not_lost() {
    use std::io::Read;
    let eventfd = || {
        let flags = nix::sys::eventfd::EfdFlags::EFD_NONBLOCK;
        let fd = nix::sys::eventfd::EventFd::from_flags(flags).unwrap();
        std::fs::File::from(std::os::fd::OwnedFd::from(fd))
    };
    let guest = Guest::new();
    let ring = Ring::new(&guest.reference);
    offer(&ring, 1);
    let mut queue = guest.queue(false);
    let request = queue.pop().unwrap().unwrap();
    queue.complete([(request, 0)]).unwrap();
    for expected in [true, false] {
        let call = eventfd();
        queue.set_call(Some(call.try_clone().unwrap()));
        assert_eq!((&call).read(&mut [0; 8]).is_ok(), expected);
    }
}

#[test]
fn answers_wait_for_the_rings_memory() {
    let guest = Guest::new();
    let ring = Ring::new(&guest.reference);
    offer(&ring, 3);
    let mut queue = guest.queue(false);
    let mut taken: Vec<_> = std::iter::from_fn(|| queue.pop().unwrap()).collect();
    queue.complete(taken.pop().map(|r| (r, 1))).unwrap();
    assert!(queue.set_memory(Arc::default()).is_err());
    queue.complete(taken.drain(..).map(|r| (r, 2))).unwrap();
    assert_eq!(ring.used.idx().load(), 1);
    queue.set_memory(Arc::clone(&guest.memory)).unwrap();
    assert_eq!(ring.used.idx().load(), 3);
    let used = ring.used.ring().ref_at(1).unwrap().load();
    assert_eq!((used.id(), used.len()), (0, 2));
}

#[test]
fn what_is_given_back_comes_again_in_order_or_is_left_to_the_next() {
    let guest = Guest::new();
    let ring = Ring::new(&guest.reference);
    offer(&ring, 4);
    let mut queue = guest.queue(false);
    let mut taken: Vec<_> = std::iter::from_fn(|| queue.pop().unwrap()).collect();
    assert_eq!(queue.in_flight(), 4);
    for request in taken.drain(2..).chain([]) {
        queue.give_back(request);
    }
    queue.give_back(taken.pop().unwrap());
    assert_eq!(queue.in_flight(), 1);
    let again: Vec<_> = std::iter::from_fn(|| queue.pop().unwrap()).collect();
    assert_eq!(
        again.iter().map(Request::head).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    for request in again {
        queue.give_back(request);
    }
    queue.complete(taken.pop().map(|r| (r, 16))).unwrap();
    queue.begin_drain();
    assert!(queue.pop().unwrap().is_none());
    assert_eq!(queue.stop(), 1);
    assert_eq!(ring.used.idx().load(), 1);
}

#[test]
fn a_request_of_another_queue_is_refused() {
    let guest = Guest::new();
    let ring = Ring::new(&guest.reference);
    offer(&ring, 2);
    let (mut one, mut two) = (guest.queue(false), guest.queue(false));
    let request = one.pop().unwrap().unwrap();
    let own = two.pop().unwrap().unwrap();
    let error = two.complete([(request, 0), (own, 7)]).unwrap_err();
    assert_eq!(error, QueueError::Foreign { queue: 0 });
    assert_eq!(ring.used.idx().load(), 1);
    let used = ring.used.ring().ref_at(0).unwrap().load();
    assert_eq!((used.id(), used.len()), (0, 7));
}

#[test]
fn memory_may_be_replaced_while_requests_are_in_flight() {
    let guest = Guest::new();
    let reference = guest.reference.clone();
    let ring = Ring::new(&reference);
    offer(&ring, 2);
    let mut queue = guest.queue(false);
    let first = queue.pop().unwrap().unwrap();
    let old = Arc::downgrade(&guest.memory);
    let Guest { memory, .. } = guest;
    // The same regions under a new table; the old one goes when `first` does.
    let next = Memory::new(memory.shared_regions()).unwrap();
    drop(memory);
    queue.set_memory(Arc::new(next)).unwrap();
    let second = queue.pop().unwrap().unwrap();
    assert!(old.upgrade().is_some());
    first.writer().write_all(b"0123456789abcdef").unwrap();
    queue.complete([(second, 0), (first, 16)]).unwrap();
    assert!(old.upgrade().is_none());
    assert_eq!(ring.used.idx().load(), 2);
    let mut text = [0; 16];
    reference
        .read_slice(&mut text, GuestAddress(0x6000))
        .unwrap();
    assert_eq!(&text, b"0123456789abcdef");
    // Without the ring's own memory the queue stands still, and comes back with it.
    assert!(queue.set_memory(Arc::default()).is_err());
    assert!(!queue.enabled());
    assert!(queue.pop().unwrap().is_none());
}

#[test]
fn arming_asks_for_the_next_chain_and_looks_again() {
    for event_idx in [false, true] {
        let guest = Guest::new();
        let ring = Ring::new(&guest.reference);
        let mut queue = guest.queue(event_idx);
        let avail_event = || -> u16 {
            let at = USED + 4 + 8 * u64::from(SIZE);
            guest.reference.read_obj(GuestAddress(at)).unwrap()
        };
        let flags = || -> u16 { guest.reference.read_obj(GuestAddress(USED)).unwrap() };
        queue.disarm();
        assert_eq!(flags(), u16::from(!event_idx));
        assert!(!queue.arm());
        assert_eq!(flags(), 0);
        // Woken by something else than a kick.
        queue.disarm();
        if event_idx {
            assert_eq!(avail_event(), u16::MAX, "the next chain needs no kick");
        }
        assert!(!queue.arm());
        offer(&ring, 3);
        assert!(queue.arm(), "a chain came before the sleep");
        // Seen and left alone: no reason to stay awake.
        assert!(!queue.arm());
        if event_idx {
            assert_eq!(avail_event(), 3);
        }
        let request = queue.pop().unwrap().unwrap();
        assert!(!queue.look());
        queue.complete([(request, 0)]).unwrap();
        // A worker that wants no kicks gets none.
        queue.set_kicks(false);
        ring.avail.idx().store(4);
        assert!(!queue.arm() && !queue.look());
        assert_eq!(flags(), u16::from(!event_idx));
    }
}

#[test]
fn flags_left_by_another_server_do_not_keep_kicks_away() {
    let guest = Guest::new();
    let _ring = Ring::new(&guest.reference);
    guest.reference.write_obj(1u16, GuestAddress(USED)).unwrap();
    let mut queue = guest.queue(false);
    assert!(!queue.arm());
    let flags: u16 = guest.reference.read_obj(GuestAddress(USED)).unwrap();
    assert_eq!(flags, 0);
}

#[test]
fn a_ring_outside_of_memory_or_askew_is_refused() {
    let guest = Guest::new();
    let mut queue = guest.queue(false);
    let good = queue.start.unwrap();
    for size in [0, 3, 0x8001] {
        let error = queue.start(RingStart { size, ..good }).unwrap_err();
        assert_eq!(error, RingError::Size(size));
    }
    let at = |descriptors, available, used| RingStart {
        addresses: RingAddresses {
            descriptors,
            available,
            used,
        },
        ..good
    };
    let RingAddresses {
        descriptors: d,
        available: a,
        used: u,
    } = good.addresses;
    for bad in [at(d + 8, a, u), at(d, a + 1, u), at(d, a, u + 2)] {
        let error = queue.start(bad).unwrap_err();
        assert!(matches!(error, RingError::Misaligned { .. }), "{error}");
    }
    // Guest addresses where the frontend's are asked for; the end of a region; the end of all.
    for bad in [at(0, a, u), at(d, d + 0x7ffe, u), at(d, a, u64::MAX - 3)] {
        let error = queue.start(bad).unwrap_err();
        assert!(matches!(error, RingError::Outside { .. }), "{error}");
    }
}
