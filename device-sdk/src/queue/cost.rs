//! What a request costs in the engine alone. A measurement, not a check:
//! `cargo test --release -p outboard-device --lib -- --ignored --nocapture cost`
#![allow(clippy::arithmetic_side_effects)]

use std::time::Instant;

use virtio_queue::desc::{RawDescriptor, split::Descriptor as RefDescriptor};

use super::compare::{Guest, Ring, SIZE};
use super::descriptor::{DESC_NEXT, DESC_WRITE};

const ROUNDS: u32 = 1_000_000;

#[test]
#[ignore = "a measurement"]
fn cost_of_a_request() {
    for (name, far) in [("one region", 0x6000), ("two regions in turn", 0x4_0000)] {
        let guest = Guest::new();
        let ring = Ring::new(&guest.reference);
        // Chains of four: header, two buffers, status.
        for index in 0..SIZE {
            let (flags, addr) = match index % 4 {
                0 => (DESC_NEXT, 0x5000),
                1 => (DESC_NEXT | DESC_WRITE, far),
                2 => (DESC_NEXT | DESC_WRITE, far + 0x1000),
                _ => (DESC_WRITE, 0x5100),
            };
            let desc = RefDescriptor::new(addr, 16, flags, index + 1);
            let table = &ring.table;
            table.store(index, RawDescriptor::from(desc)).unwrap();
        }
        let batch = SIZE / 4;
        for slot in 0..SIZE {
            let head = slot % batch * 4;
            ring.avail
                .ring()
                .ref_at(usize::from(slot))
                .unwrap()
                .store(head);
        }
        let mut queue = guest.queue(true);
        let mut done = Vec::with_capacity(usize::from(batch));
        let mut avail = 0u16;
        let start = Instant::now();
        for _ in 0..ROUNDS {
            avail = avail.wrapping_add(batch);
            ring.avail.idx().store(avail);
            while let Some(request) = queue.pop().unwrap() {
                done.push((request, 1));
            }
            queue.complete(done.drain(..)).unwrap();
        }
        let cost = start.elapsed().as_nanos() / u128::from(ROUNDS * u32::from(batch));
        println!("{name}: {cost} ns a request of 4 descriptors, in batches of {batch}");
    }
}
