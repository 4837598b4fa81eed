//! Random rings.

use super::{Ring, abuse};
use crate::driver::ring::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Descriptor};
use crate::testing::{Bench, Endpoint, Failure, Outcome, Setup};

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
