//! The ring engine on rings of nonsense, beside an independent implementation: what the engine
//! accepts, `virtio-queue` reads the same way, all of it is guest memory, and nothing is written but
//! the used ring and what was the device's to write.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use outboard_device::queue::{RingAddresses, RingStart};
use outboard_device::{Queue, Request};
use outboard_fuzz::Number;
use outboard_fuzz::ring::{
    AVAILABLE, DESCRIPTORS, Desc, GUEST, SIZE_MAX, TABLES, USED, USER, complete, joined,
};
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue as Reference, QueueT};

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

#[derive(Debug, Arbitrary)]
enum Step {
    Pop,
    Complete { which: u8, write: u8, says: Number },
    GiveBack { which: u8 },
    Advance(u8),
    Rest,
    Poke { addr: u16, value: u8 },
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

fuzz_target!(|ring: Ring| {
    let guest = &*GUEST;
    guest.clear();
    let size = 1u16 << (ring.size % 5);
    for (at, descriptor) in (0..).zip(&ring.descriptors) {
        guest.put(DESCRIPTORS + 16 * at, &descriptor.split());
    }
    for (at, descriptor) in (0..0x100).zip(&ring.tables) {
        guest.put(TABLES + 16 * at, &descriptor.split());
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
    let start = RingStart {
        size,
        addresses,
        base: ring.base.into(),
        packed: false,
        event_idx: ring.event_idx,
        indirect: ring.indirect,
    };
    let mut queue = Queue::on_ring(Arc::clone(&guest.memory), start).unwrap();
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
                    let used = USED..USED + 6 + 8 * u64::from(SIZE_MAX);
                    complete(&mut queue, request, write, says.0, used);
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
