//! Guests that mean ill.

use super::{Bench, MEMORY, Registers};
use crate::testing::{Outcome, ensure};

/// Accesses of one round.
const ACCESSES: usize = 2000;

/// Whatever is written where, the device goes on, and is as new after a reset.
pub fn survives_random_accesses(registers: &Registers) -> Outcome {
    torment(&Bench::new(registers)?, registers)
}

/// The same, where none of the addresses it is told is memory.
pub fn survives_without_memory(registers: &Registers) -> Outcome {
    let bench = Bench::without_memory(registers)?;
    bench.begin()?;
    torment(&bench, registers)
}

fn torment(bench: &Bench, registers: &Registers) -> Outcome {
    let accesses = bench.accesses();
    let first = Bench::new(registers)?.values()?;
    for seed in 0..4 {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ seed);
        for _ in 0..ACCESSES {
            let Some(&(offset, width)) = random.of(&accesses) else {
                break;
            };
            if random.next().is_multiple_of(4) {
                bench.read(offset, width)?;
                continue;
            }
            let value = match random.next() % 6 {
                0 => 0,
                1 => u64::MAX,
                2 => MEMORY - 1,
                3 => random.next() % MEMORY,
                4 => 1 << (random.next() % 64),
                _ => random.next(),
            };
            let bytes = value.to_le_bytes();
            bench.write(offset, bytes.get(..width).unwrap_or_default())?;
        }
        bench.reset()?;
        let now = bench.values()?;
        ensure!(
            first == now,
            "seed {seed}: after a reset there is {now:x?}, and {first:x?} at first"
        );
    }
    Ok(())
}

/// Splitmix64: the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        let count = all.len().max(1) as u64;
        all.get((self.next() % count) as usize)
    }
}
