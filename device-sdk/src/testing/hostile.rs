//! Rings that break the rules. Whatever a guest writes costs at most its own device: after
//! a reset it works again, on the same connection, and on a fresh one.

use std::sync::atomic::Ordering;

use super::{Bench, Endpoint, Failure, Outcome, Setup, ensure};
use crate::driver::layout::RingLayout;
use crate::driver::raw::{self, Header};
use crate::driver::ring::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Descriptor};
use crate::driver::{DriverError, Window};

/// The probe's ring and some memory, to be filled with what does not belong there.
struct Ring<'a> {
    memory: &'a Window,
    layout: &'a RingLayout,
    /// Guest memory to point at, and to put indirect tables in.
    buffer: &'a Window,
}

impl Ring<'_> {
    fn size(&self) -> u16 {
        self.layout.size
    }

    /// Puts `entries` at the head of the descriptor table.
    fn describe(&self, entries: &[Descriptor]) {
        for (index, entry) in entries.iter().enumerate() {
            entry.store(self.memory, index);
        }
    }

    /// Puts `entries` into an indirect table of `len` bytes, and one descriptor that points at it.
    fn indirect(&self, entries: &[Descriptor], len: u32, flags: u16) {
        let table = self.buffer.part(0x1000, 0x1000);
        for (index, entry) in entries.iter().enumerate() {
            entry.store(&table, index);
        }
        let flags = DESC_INDIRECT | flags;
        self.describe(&[Descriptor {
            addr: table.addr(),
            len,
            flags,
            next: 1,
        }]);
    }

    /// Makes `heads` available.
    fn offer(&self, heads: &[u16]) {
        for (slot, head) in heads.iter().enumerate() {
            let at = self.layout.available_slot(slot as u16);
            self.memory.store_u16(at, *head, Ordering::Relaxed);
        }
        self.publish(heads.len() as u16);
    }

    fn publish(&self, index: u16) {
        self.memory
            .store_u16(self.layout.available_index(), index, Ordering::Release);
    }

    /// A good readable or writable descriptor of `len` bytes.
    fn good(&self, len: u32, flags: u16, next: u16) -> Descriptor {
        Descriptor {
            addr: self.buffer.addr(),
            len,
            flags,
            next,
        }
    }
}

/// A way to break a ring, and its name.
type Case<'a> = (&'a str, &'a dyn Fn(&Ring));

/// Breaks the ring by `cases`, one after another with a reset between, and sees the device through
/// each. A case is named and given the ring; the ring is shown to the device after it.
fn survive(endpoint: &mut dyn Endpoint, setup: Setup, cases: &[Case]) -> Outcome {
    let mut bench = Bench::start(endpoint, setup)?;
    for (name, case) in cases {
        let named = |failure: Failure| Failure::new(format!("{name}: {failure}"));
        abuse(&mut bench, *case).map_err(named)?;
        endpoint.check_alive().map_err(named)?;
        bench
            .reset()
            .and_then(|()| bench.round_trips(2))
            .map_err(named)?;
    }
    drop(bench);
    Bench::start(endpoint, setup)?.round_trips(2)
}

/// Breaks the ring once, and gives the device time to look at it.
fn abuse(bench: &mut Bench, case: &dyn Fn(&Ring)) -> Outcome {
    let buffer = bench.driver.allocate(0x4000, 0x1000)?;
    buffer.fill(0);
    let queue = bench.queue()?;
    let memory = queue.ring().memory().clone();
    let layout = *queue.ring().layout();
    case(&Ring {
        memory: &memory,
        layout: &layout,
        buffer: &buffer,
    });
    queue.kick()?;
    let before = queue.ring().device_used();
    bench.settle(|b| {
        let queue = b.queue()?;
        Ok(queue.take_errors()? > 0 || queue.ring().device_used() != before)
    })?;
    Ok(())
}

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

/// An available index that claims more chains than the ring holds.
pub fn survives_jumps_of_the_available_index(endpoint: &mut dyn Endpoint) -> Outcome {
    survive(
        endpoint,
        Setup::default(),
        &[
            ("one more than the ring holds", &|ring| {
                ring.publish(ring.size() + 1);
            }),
            ("half of all indices", &|ring| ring.publish(0x8000)),
            ("one step back", &|ring| ring.publish(0xffff)),
            ("the whole ring, of empty descriptors", &|ring| {
                ring.publish(ring.size());
            }),
        ],
    )
}

/// The request's number in the vhost-user specification.
const SET_VRING_ADDR: u32 = 9;

/// A change to the user addresses of descriptors, used ring and available ring, given the end of the
/// region they are in.
type Move = fn(&mut [u64; 3], u64);

/// Rings that are not in guest memory, or not aligned, are refused or never looked at.
pub fn survives_rings_outside_memory(endpoint: &mut dyn Endpoint) -> Outcome {
    let probe = endpoint.expected().probe.queue;
    let moves: [(&str, Move); 6] = [
        ("descriptors outside memory", |ring, _| ring[0] = 0x10),
        ("a used ring outside memory", |ring, _| ring[1] = 0x10),
        ("an available ring outside memory", |ring, _| ring[2] = 0x10),
        ("descriptors over the end of memory", |ring, end| {
            ring[0] = end - 16;
        }),
        ("a used ring over the end of memory", |ring, end| {
            ring[1] = end - 4;
        }),
        ("an odd address", |ring, _| {
            ring[2] += 1;
        }),
    ];
    for (name, change) in moves {
        let mut bench = Bench::start(endpoint, Setup::default())?;
        bench.driver.stop_queue(probe)?;
        let ring = bench.queue()?.ring();
        let (start, layout) = (ring.memory().user_addr(), *ring.layout());
        let region = bench
            .driver
            .memory()
            .window(0, 32 << 20)
            .map_err(DriverError::from)?;
        let end = region.user_addr() + region.len() as u64;
        let mut addrs =
            [layout.descriptors, layout.used, layout.available].map(|at| start + at as u64);
        change(&mut addrs, end);
        let mut payload = u32::from(probe).to_ne_bytes().to_vec();
        payload.extend([0; 4]);
        payload.extend(addrs.iter().flat_map(|addr| addr.to_ne_bytes()));
        payload.extend([0; 8]);
        let flags = raw::VERSION | raw::NEED_REPLY;
        let header = Header {
            request: SET_VRING_ADDR,
            flags,
            size: payload.len() as u32,
        };
        let answer = bench
            .driver
            .connection()
            .exchange("SET_VRING_ADDR", header, &payload);
        let hung = matches!(answer, Err(DriverError::Deadline { .. }));
        ensure!(!hung, "{name}: SET_VRING_ADDR was never answered");
        // Whatever it said, starting the queue now must not bring it down.
        if bench.driver.ready_queue(probe).is_ok() {
            bench.queue()?.kick()?;
            bench.settle(|_| Ok(false))?;
        }
        drop(bench);
        endpoint.check_alive()?;
        Bench::start(endpoint, Setup::default())?
            .round_trips(1)
            .map_err(|failure| Failure::new(format!("{name}: {failure}")))?;
    }
    Ok(())
}

/// Random rings, made mostly of the values that matter, always the same ones.
pub fn survives_random_rings(endpoint: &mut dyn Endpoint) -> Outcome {
    let mut bench = Bench::start(endpoint, Setup::default())?;
    let mut random = Random(0x0bad_5eed);
    for round in 0..150 {
        let seed = random.0;
        let fill = |ring: &Ring| {
            let mut random = Random(seed);
            let table = ring.buffer.part(0x1000, 0x1000);
            for index in 0..usize::from(ring.size()) {
                random.descriptor(ring).store(ring.memory, index);
                random.descriptor(ring).store(&table, index);
            }
            let heads: Vec<u16> = (0..8).map(|_| random.index(ring.size())).collect();
            ring.offer(&heads);
        };
        random.next();
        let named = |f: Failure| Failure::new(format!("random ring {round} ({seed:#x}): {f}"));
        abuse(&mut bench, &fill).map_err(named)?;
        bench.reset().map_err(named)?;
        if round % 10 == 0 {
            endpoint.check_alive().map_err(named)?;
            bench.round_trips(1).map_err(named)?;
            // A request of the probe's class may do what its device class allows: start afresh.
            drop(bench);
            bench = Bench::start(endpoint, Setup::default())?;
        }
    }
    bench.round_trips(2)
}

/// A small generator: the same rings on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[(self.next() >> 8) as usize % choices.len()]
    }

    /// Mostly an index of a table of `size`.
    fn index(&mut self, size: u16) -> u16 {
        match self.next() % 16 {
            0 => self.next() as u16,
            1 => size,
            _ => (self.next() >> 8) as u16 % size,
        }
    }

    fn descriptor(&mut self, ring: &Ring) -> Descriptor {
        let buffer = ring.buffer.addr();
        let any = self.next();
        let table = buffer + 0x1000;
        let places = [
            buffer,
            buffer,
            buffer + 0x3ff8,
            table,
            table,
            (32 << 20) - 8,
            any,
        ];
        let lens = [0, 1, 16, 16, 32, 512, 4096, 1024, 0xffff_fff0, any as u32];
        let (next, write, indirect) = (DESC_NEXT, DESC_WRITE, DESC_INDIRECT);
        let flags = [
            0,
            next,
            next,
            next,
            write,
            write,
            next | write,
            indirect,
            any as u16 & 15,
        ];
        Descriptor {
            addr: self.of(&places),
            len: self.of(&lens),
            flags: self.of(&flags),
            next: self.index(ring.size()),
        }
    }
}
