//! Rings that break the rules. Whatever a guest writes costs at most its own device: after
//! a reset it works again, on the same connection, and on a fresh one.

mod chains;
mod random;
mod rings;
mod tables;

use std::sync::atomic::Ordering;

pub use chains::{
    survives_addresses_outside_memory, survives_indices_out_of_range,
    survives_lengths_of_nothing_and_of_everything, survives_loops,
};
pub use random::survives_random_rings;
pub use rings::{survives_jumps_of_the_available_index, survives_rings_outside_memory};
pub use tables::survives_bad_indirect_tables;

use super::{Bench, Endpoint, Failure, Outcome, Setup};
use crate::driver::Window;
use crate::driver::layout::RingLayout;
use crate::driver::ring::{DESC_INDIRECT, Descriptor};

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
    let before = queue.ring().split().device_used();
    bench.settle(|b| {
        let queue = b.queue()?;
        Ok(queue.take_errors()? > 0 || queue.ring().split().device_used() != before)
    })?;
    Ok(())
}
