//! Chains of descriptors that make no sense.

use super::{Ring, survive};
use crate::driver::ring::{DESC_NEXT, DESC_WRITE, Descriptor};
use crate::testing::{Endpoint, Outcome, Setup};

/// A chain that never ends.
pub fn survives_loops(endpoint: &mut dyn Endpoint) -> Outcome {
    survive(
        endpoint,
        Setup::default(),
        &[
            ("a descriptor that follows itself", &|ring| {
                ring.describe(&[ring.good(16, DESC_NEXT, 0)]);
                ring.offer(&[0]);
            }),
            ("two that follow each other", &|ring| {
                ring.describe(&[
                    ring.good(16, DESC_NEXT, 1),
                    ring.good(16, DESC_NEXT | DESC_WRITE, 0),
                ]);
                ring.offer(&[0]);
            }),
            ("a loop through the whole table", &|ring| {
                let size = ring.size();
                let table: Vec<_> = (0..size)
                    .map(|i| ring.good(1, DESC_NEXT, (i + 1) % size))
                    .collect();
                ring.describe(&table);
                ring.offer(&[5]);
            }),
            ("a loop of empty buffers", &|ring| {
                ring.describe(&[ring.good(0, DESC_NEXT, 1), ring.good(0, DESC_NEXT, 0)]);
                ring.offer(&[0]);
            }),
        ],
    )
}

/// Heads and next fields that are no descriptor's index.
pub fn survives_indices_out_of_range(endpoint: &mut dyn Endpoint) -> Outcome {
    survive(
        endpoint,
        Setup::default(),
        &[
            ("a head just past the table", &|ring| {
                ring.offer(&[ring.size()]);
            }),
            ("a head far past the table", &|ring| ring.offer(&[0xffff])),
            ("a next just past the table", &|ring| {
                ring.describe(&[ring.good(16, DESC_NEXT, ring.size())]);
                ring.offer(&[0]);
            }),
            ("a next far past the table", &|ring| {
                ring.describe(&[ring.good(16, DESC_NEXT, 0xffff)]);
                ring.offer(&[0]);
            }),
            ("the same head twice", &|ring| {
                ring.describe(&[ring.good(16, DESC_NEXT, 1), ring.good(16, DESC_WRITE, 0)]);
                ring.offer(&[0, 0]);
            }),
            ("a readable buffer after a writable one", &|ring| {
                ring.describe(&[
                    ring.good(16, DESC_WRITE | DESC_NEXT, 1),
                    ring.good(16, 0, 0),
                ]);
                ring.offer(&[0]);
            }),
            ("flags that do not exist", &|ring| {
                ring.describe(&[ring.good(16, 0xfff8, 0)]);
                ring.offer(&[0]);
            }),
        ],
    )
}

/// Buffers of no bytes, and of more than there are.
pub fn survives_lengths_of_nothing_and_of_everything(endpoint: &mut dyn Endpoint) -> Outcome {
    survive(
        endpoint,
        Setup::default(),
        &[
            ("only an empty buffer", &|ring| {
                ring.describe(&[ring.good(0, 0, 0)]);
                ring.offer(&[0]);
            }),
            ("only an empty writable buffer", &|ring| {
                ring.describe(&[ring.good(0, DESC_WRITE, 0)]);
                ring.offer(&[0]);
            }),
            ("a request of one byte", &|ring| {
                ring.describe(&[ring.good(1, DESC_NEXT, 1), ring.good(1, DESC_WRITE, 0)]);
                ring.offer(&[0]);
            }),
            ("only a readable byte", &|ring| {
                ring.describe(&[ring.good(1, 0, 0)]);
                ring.offer(&[0]);
            }),
            ("only a writable byte", &|ring| {
                ring.describe(&[ring.good(1, DESC_WRITE, 0)]);
                ring.offer(&[0]);
            }),
            ("a readable buffer of 4 GiB", &|ring| {
                ring.describe(&[ring.good(u32::MAX, 0, 0)]);
                ring.offer(&[0]);
            }),
            ("a writable buffer of 4 GiB", &|ring| {
                ring.describe(&[
                    ring.good(16, DESC_NEXT, 1),
                    ring.good(u32::MAX, DESC_WRITE, 0),
                ]);
                ring.offer(&[0]);
            }),
            ("a chain of 64 times 4 GiB", &|ring| {
                let last = ring.size() - 1;
                let table: Vec<_> = (0..=last)
                    .map(|i| ring.good(u32::MAX, if i == last { 0 } else { DESC_NEXT }, i + 1))
                    .collect();
                ring.describe(&table);
                ring.offer(&[0]);
            }),
            ("a chain longer than its memory, all of it there", &|ring| {
                let last = ring.size() - 1;
                let table: Vec<_> = (0..=last)
                    .map(|i| {
                        let more = if i == last { 0 } else { DESC_NEXT };
                        ring.good(0x4000, DESC_WRITE | more, i + 1)
                    })
                    .collect();
                ring.describe(&table);
                ring.offer(&[0]);
            }),
        ],
    )
}

/// Buffers that are not, or not all, in guest memory.
pub fn survives_addresses_outside_memory(endpoint: &mut dyn Endpoint) -> Outcome {
    let at = |addr: u64, len: u32| {
        move |ring: &Ring| {
            for (head, flags) in [(0u16, 0), (2, DESC_WRITE)] {
                let first = ring.good(16, DESC_NEXT, head + 1);
                first.store(ring.memory, usize::from(head));
                let bad = Descriptor {
                    addr,
                    len,
                    flags,
                    next: 0,
                };
                bad.store(ring.memory, usize::from(head) + 1);
            }
            Descriptor {
                addr,
                len,
                flags: 0,
                next: 0,
            }
            .store(ring.memory, 4);
            ring.offer(&[0, 2, 4]);
        }
    };
    // The default memory is 32 MiB at 0 and at 4 GiB.
    survive(
        endpoint,
        Setup::default(),
        &[
            ("an address in the hole", &at(1 << 30, 64)),
            ("an address past all memory", &at(1 << 40, 64)),
            ("the last address of all", &at(u64::MAX, 1)),
            ("a buffer that wraps", &at(u64::MAX - 7, 64)),
            (
                "a buffer that runs over the end of a region",
                &at((32 << 20) - 8, 64),
            ),
            (
                "a buffer that begins before a region",
                &at((4 << 30) - 8, 64),
            ),
            ("a user address instead of a guest one", &|ring: &Ring| {
                at(ring.buffer.user_addr(), 64)(ring);
            }),
        ],
    )
}
