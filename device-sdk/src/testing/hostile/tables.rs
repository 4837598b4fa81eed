//! Indirect tables that make no sense.

use super::{Ring, survive};
use crate::driver::ring::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Descriptor};
use crate::testing::{Endpoint, Outcome, Setup};

/// Indirect tables that are not tables.
pub fn survives_bad_indirect_tables(endpoint: &mut dyn Endpoint) -> Outcome {
    let good = |ring: &Ring, flags: u16, next: u16| ring.good(16, flags, next);
    survive(
        endpoint,
        Setup::default(),
        &[
            ("an indirect table in an indirect table", &|ring| {
                let inner = Descriptor {
                    addr: ring.buffer.addr() + 0x1000,
                    len: 16,
                    flags: DESC_INDIRECT,
                    next: 0,
                };
                ring.indirect(&[inner], 16, 0);
                ring.offer(&[0]);
            }),
            ("an indirect table of no bytes", &|ring| {
                ring.indirect(&[good(ring, 0, 0)], 0, 0);
                ring.offer(&[0]);
            }),
            ("an indirect table of half a descriptor", &|ring| {
                ring.indirect(&[good(ring, 0, 0)], 8, 0);
                ring.offer(&[0]);
            }),
            ("an indirect table of one and a half", &|ring| {
                ring.indirect(&[good(ring, DESC_NEXT, 1), good(ring, 0, 0)], 24, 0);
                ring.offer(&[0]);
            }),
            ("an indirect table of 4 GiB", &|ring| {
                ring.indirect(&[good(ring, 0, 0)], 0xffff_fff0, 0);
                ring.offer(&[0]);
            }),
            ("an indirect table of more than 65536 entries", &|ring| {
                ring.indirect(&[good(ring, DESC_NEXT, 1)], 65_537 * 16, 0);
                ring.offer(&[0]);
            }),
            ("an indirect table with a next", &|ring| {
                ring.indirect(&[good(ring, 0, 0)], 16, DESC_NEXT);
                good(ring, DESC_WRITE, 0).store(ring.memory, 1);
                ring.offer(&[0]);
            }),
            ("a writable indirect table", &|ring| {
                ring.indirect(&[good(ring, 0, 0)], 16, DESC_WRITE);
                ring.offer(&[0]);
            }),
            ("a loop in an indirect table", &|ring| {
                ring.indirect(&[good(ring, DESC_NEXT, 1), good(ring, DESC_NEXT, 0)], 32, 0);
                ring.offer(&[0]);
            }),
            ("a next out of an indirect table", &|ring| {
                ring.indirect(&[good(ring, DESC_NEXT, 2), good(ring, 0, 0)], 32, 0);
                ring.offer(&[0]);
            }),
            ("an indirect table outside memory", &|ring| {
                ring.describe(&[Descriptor {
                    addr: 1 << 40,
                    len: 32,
                    flags: DESC_INDIRECT,
                    next: 0,
                }]);
                ring.offer(&[0]);
            }),
            ("an indirect table over the end of memory", &|ring| {
                let addr = (32 << 20) - 16;
                ring.describe(&[Descriptor {
                    addr,
                    len: 64,
                    flags: DESC_INDIRECT,
                    next: 0,
                }]);
                ring.offer(&[0]);
            }),
            ("an indirect table at an odd address", &|ring| {
                let addr = ring.buffer.addr() + 0x1001;
                ring.describe(&[Descriptor {
                    addr,
                    len: 32,
                    flags: DESC_INDIRECT,
                    next: 0,
                }]);
                ring.offer(&[0]);
            }),
            ("an indirect table at the end of a chain", &|ring| {
                ring.indirect(&[good(ring, DESC_WRITE, 0)], 16, 0);
                good(ring, DESC_NEXT, 0).store(ring.memory, 1);
                ring.offer(&[1]);
            }),
        ],
    )?;
    survive(
        endpoint,
        Setup::plain(),
        &[("indirect, which was not negotiated", &|ring| {
            ring.indirect(
                &[good(ring, DESC_NEXT, 1), good(ring, DESC_WRITE, 0)],
                32,
                0,
            );
            ring.offer(&[0]);
        })],
    )
}
