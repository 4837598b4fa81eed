//! The ring engine alone: a driver and a queue in one thread, so that nothing is in the figure but
//! instructions, and every run executes the same ones.

use std::fmt::Display;
use std::fs::File;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use outboard_device::counters::{Counters, Page};
use outboard_device::driver::DriverError;
use outboard_device::driver::layout::{DESCRIPTOR_SIZE, RingLayout};
use outboard_device::driver::memory::GuestMemory;
use outboard_device::driver::ring::{IndirectTables, PackedRing, Ring, Segment, SplitRing};
use outboard_device::memory::{Memory, Region, RegionLayout};
use outboard_device::queue::{RingAddresses, RingStart};
use outboard_device::{Queue, Request};

use crate::case::{Format, Switch};
use crate::error::{Error, Result};

/// Where the ring is, its indirect tables, and the buffers.
const RING: u64 = 1 << 20;
const TABLES: u64 = 2 << 20;
const BUFFERS: u64 = 3 << 20;
const LEN: u64 = 4 << 20;
const ENTRIES: u16 = 512;
/// Header, two pieces of data, status: as a guest cuts a block request whose pages do not touch.
const CHAIN: [Segment; 4] = [
    Segment::readable(BUFFERS, 16),
    Segment::writable(BUFFERS + 0x1000, 4096),
    Segment::writable(BUFFERS + 0x3000, 4096),
    Segment::writable(BUFFERS + 64, 1),
];

/// What is run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Layout of the ring.
    pub ring: Format,
    /// Whether each chain is in a table of its own.
    pub indirect: Switch,
    /// Whether the two sides tell each other by `EVENT_IDX` what they wait for, or by flags.
    pub event_idx: Switch,
    /// Whether the queue is counted on a page.
    pub counted: Switch,
    /// Whether the device's side also reads each request's header: more work, which a guard must see.
    pub wasteful: Switch,
    /// Requests made available together and answered together: 1 to 128.
    pub batch: u16,
    /// How many times.
    pub rounds: u32,
}

/// Runs it. The time that the device's side took.
pub fn run(plan: &Plan) -> Result<Duration> {
    let guest = GuestMemory::new(&[(0, LEN)]).map_err(unfit)?;
    let packed = plan.ring == Format::Packed;
    let layout = if packed {
        RingLayout::packed(ENTRIES)
    } else {
        RingLayout::new(ENTRIES)
    };
    let window = guest.window(RING, layout.len as u64).map_err(unfit)?;
    let event_idx = plan.event_idx == Switch::On;
    let indirect = plan.indirect == Switch::On;
    let entries = CHAIN.len() as u16;
    let len = u64::from(ENTRIES * entries) * DESCRIPTOR_SIZE as u64;
    let tables = guest.window(TABLES, len).map_err(unfit)?;
    let tables = indirect.then_some(IndirectTables {
        window: tables,
        entries,
    });
    let at = |offset: usize| window.user_addr() + offset as u64;
    let addresses = RingAddresses {
        descriptors: at(layout.descriptors),
        available: at(layout.available),
        used: at(layout.used),
    };
    let mut driver = if packed {
        Ring::Packed(PackedRing::new(window, layout, event_idx, tables, 0))
    } else {
        Ring::Split(SplitRing::new(window, layout, event_idx, tables, 0))
    };
    let start = RingStart {
        size: ENTRIES,
        addresses,
        base: driver.wire_base(0),
        packed,
        event_idx,
        indirect,
    };
    let mut queue = Queue::on_ring(mapped(&guest)?, start).map_err(unfit)?;
    if plan.counted == Switch::On {
        let page = Page::new().and_then(|page| page.share());
        let counters = page.and_then(Counters::map);
        queue = queue.counted_on(&counters.map_err(Error::system("make a page to count on"))?);
    }
    let mut answers = Vec::with_capacity(usize::from(plan.batch));
    let served = match plan.wasteful {
        Switch::Off => serve,
        Switch::On => serve_wastefully,
    };
    let mut time = Duration::ZERO;
    for _ in 0..plan.rounds {
        driver.disarm();
        for token in 0..plan.batch {
            driver
                .add(&CHAIN, token.into())
                .map_err(DriverError::from)?;
        }
        driver.publish();
        let began = Instant::now();
        served(&mut queue, &mut answers)?;
        time += began.elapsed();
        let mut left = plan.batch;
        while driver.pop().map_err(DriverError::from)?.is_some() {
            left -= 1;
        }
        if left > 0 {
            let all = plan.batch;
            return Err(unfit(format!("{left} of {all} requests did not come back")));
        }
    }
    Ok(time)
}

/// What is counted: all that is there is taken, and answered at once. A function of its own, for
/// instruction counters go by its name.
#[inline(never)]
pub fn serve(queue: &mut Queue, answers: &mut Vec<(Request, u32)>) -> Result<()> {
    while let Some(request) = queue.pop().map_err(unfit)? {
        answers.push((request, 1));
    }
    queue.complete(answers.drain(..)).map_err(unfit)
}

/// The same with work that nobody needs.
#[inline(never)]
pub fn serve_wastefully(queue: &mut Queue, answers: &mut Vec<(Request, u32)>) -> Result<()> {
    while let Some(request) = queue.pop().map_err(unfit)? {
        let mut header = [0; 16];
        request.reader().read_exact(&mut header).map_err(unfit)?;
        black_box(header);
        answers.push((request, 1));
    }
    queue.complete(answers.drain(..)).map_err(unfit)
}

/// The guest's memory, as a device maps it.
fn mapped(guest: &GuestMemory) -> Result<Arc<Memory>> {
    let regions = guest.table().into_iter().map(|region| {
        let file = File::options()
            .read(true)
            .write(true)
            .open(format!("/proc/self/fd/{}", region.mmap_handle))
            .map_err(Error::system("open guest memory once more"))?;
        let layout = RegionLayout {
            guest_addr: region.guest_phys_addr,
            user_addr: region.userspace_addr,
            size: region.memory_size,
            file_offset: region.mmap_offset,
        };
        Ok(Arc::new(Region::map(layout, &file).map_err(unfit)?))
    });
    let memory = Memory::new(regions.collect::<Result<_>>()?).map_err(unfit)?;
    Ok(Arc::new(memory))
}

fn unfit(error: impl Display) -> Error {
    Error::Unfit(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_comes_back_on_every_ring() {
        for ring in [Format::Split, Format::Packed] {
            for switch in [Switch::Off, Switch::On] {
                let plan = Plan {
                    ring,
                    indirect: switch,
                    event_idx: switch,
                    counted: Switch::On,
                    wasteful: switch,
                    batch: 100,
                    rounds: 1000,
                };
                run(&plan).unwrap();
            }
        }
    }
}
