//! Packed rings, of devices that offer them; the others have nothing to show here.

use super::{Bench, Endpoint, Outcome, Setup, ensure};
use crate::driver::connection::F_RING_PACKED;

/// Round trips, full rings and stops, over the wrap of both counters, with and without each feature of the
/// ring.
pub fn serves_packed_rings(endpoint: &mut dyn Endpoint) -> Outcome {
    for features in [Setup::default().features, Setup::plain().features] {
        for (size, base, indirect) in [
            (2, 0, 0),
            (64, 0, 4),
            (64, 61, 0),
            (64, 127, 0),
            (256, 3, 4),
        ] {
            let size = size.min(endpoint.expected().max_queue_size);
            let setup = Setup {
                features,
                packed: true,
                size,
                base,
                indirect,
                ..Setup::default()
            };
            let mut bench = Bench::start(endpoint, setup)?;
            if !bench.driver.has(F_RING_PACKED) {
                return Ok(());
            }
            bench.round_trips(100)?;
            let in_tables = indirect > 0 && features == Setup::default().features;
            let each = if in_tables { 1 } else { bench.chain_len() };
            let full = size / each;
            bench.submit(full)?;
            bench.collect(full)?;
            let index = bench.expected.probe.queue;
            let stopped = bench.driver.stop_queue(index)?;
            let passed = base.wrapping_add((100 + full) * each);
            let expected = bench.queue()?.ring().wire_base(passed);
            ensure!(
                stopped == expected,
                "a packed ring of {size} stopped at {stopped:#x} instead of {expected:#x}"
            );
            bench.driver.resume_queue(index, stopped)?;
            bench.round_trips(20)?;
        }
    }
    Ok(())
}

/// Whatever stands in a packed ring, the device is there for the next frontend.
pub fn survives_packed_rings_of_nonsense(endpoint: &mut dyn Endpoint) -> Outcome {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        // xorshift64: the same nonsense each time.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..20 {
        let setup = Setup {
            packed: true,
            ..Setup::default()
        };
        let mut bench = Bench::start(endpoint, setup)?;
        if !bench.driver.has(F_RING_PACKED) {
            return Ok(());
        }
        bench.round_trips(1)?;
        let queue = bench.queue()?;
        let memory = queue.ring().memory().clone();
        for at in (0..memory.len()).step_by(8) {
            // Available in one lap or the other, and short, more often than chance has it.
            let word = if at % 16 == 8 {
                random() & 0x0087_ffff_0000_0fff
            } else {
                random() % (80 << 20)
            };
            memory.write(at, &word.to_le_bytes());
        }
        queue.kick()?;
        bench.settle(|bench| Ok(bench.queue()?.take_errors()? > 0))?;
    }
    Bench::start(endpoint, Setup::default())?.round_trips(3)
}
