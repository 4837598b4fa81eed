//! Guest memory that is in several regions, comes and goes.

use super::{Bench, CANARY, Endpoint, Failure, Outcome, Setup, ensure};
use crate::driver::{DriverError, GuestMemory, Segment, Window};

/// Memory that is added while the device runs can be used at once, and what it had stays.
pub fn follows_memory_that_changes(endpoint: &mut dyn Endpoint) -> Outcome {
    let mut bench = Bench::start(endpoint, Setup::default())?;
    // Eight regions in all, which every vhost-user device takes.
    for i in 0..6u64 {
        bench.round_trips(5)?;
        bench.submit(10)?;
        let addr = (16 + i) << 30;
        bench.driver.add_memory(addr, 1 << 20)?;
        bench.collect(10)?;
        bench.probe_from(addr)?;
    }
    bench.round_trips(5)
}

/// Memory that was taken away is not touched any more, and costs no more than the device.
pub fn forgets_memory_that_is_taken_away(endpoint: &mut dyn Endpoint) -> Outcome {
    let mut bench = Bench::start(endpoint, Setup::default())?;
    let addr = 16 << 30;
    bench.driver.add_memory(addr, 1 << 20)?;
    bench.probe_from(addr)?;
    let gone = bench
        .driver
        .memory()
        .window(addr, 4096)
        .map_err(DriverError::from)?;
    bench.driver.remove_memory(addr)?;
    bench.round_trips(3)?;
    // What the device would read stays readable; what it would write is gone.
    gone.fill(CANARY);
    let (readable, _) = bench.fill(0);
    let mut chain = vec![Segment::readable(readable.addr(), readable.len() as u32)];
    chain.push(Segment::writable(addr, bench.expected.probe.writable));
    chain.retain(|segment| segment.len > 0);
    if bench.expected.probe.writable == 0 {
        chain = vec![Segment::readable(addr, readable.len() as u32)];
    }
    bench.queue()?.submit(&chain, 0)?;
    bench.settle(|_| Ok(false))?;
    let touched = gone
        .to_vec(0, gone.len())
        .iter()
        .any(|byte| *byte != CANARY);
    ensure!(!touched, "the device wrote into memory that was taken away");
    bench.reset()?;
    bench.round_trips(3)
}

/// A buffer may go on from one memory region into the next, where they touch.
pub fn crosses_memory_regions(endpoint: &mut dyn Endpoint) -> Outcome {
    let mut bench = Bench::start(endpoint, Setup::default())?;
    let (low, border) = (8u64 << 30, (8u64 << 30) + 0x1_0000);
    bench.driver.add_memory(low, 0x1_0000)?;
    bench.driver.add_memory(border, 0x1_0000)?;
    let probe = bench.expected.probe.clone();
    let crossing_readable = probe.writable == 0;
    for before in [1u64, 3] {
        // One part lies across the border, beginning this many bytes before it; the other does not.
        let across = border - before;
        let (from, to) = if crossing_readable {
            (across, low)
        } else {
            (low, across)
        };
        let memory = bench.driver.memory();
        let readable = span(memory, from, probe.readable.len() as u64)?;
        let writable = span(memory, to, u64::from(probe.writable))?;
        let mut data = probe.readable.as_slice();
        for part in &readable {
            let (head, tail) = data.split_at(part.len());
            part.write(0, head);
            data = tail;
        }
        for part in &writable {
            part.fill(CANARY);
        }
        let mut chain = vec![Segment::readable(from, probe.readable.len() as u32)];
        chain.push(Segment::writable(to, probe.writable));
        chain.retain(|segment| segment.len > 0);
        let limit = bench.limit;
        let queue = bench.queue()?;
        queue.submit(&chain, 0)?;
        let used = queue.wait(limit)?;
        let data: Vec<u8> = writable
            .iter()
            .flat_map(|part| part.to_vec(0, part.len()))
            .collect();
        (probe.check)(used.written, &data)
            .map_err(|reason| Failure::new(format!("across two regions: {reason}")))?;
    }
    Ok(())
}

/// The windows that make up a range, which may go over any number of regions that touch.
fn span(memory: &GuestMemory, mut addr: u64, mut len: u64) -> Outcome<Vec<Window>> {
    let mut windows = Vec::new();
    while len > 0 {
        let regions = memory.layout();
        let region = regions
            .iter()
            .find(|&&(start, size)| addr >= start && addr - start < size);
        let here = region.map_or(0, |&(start, size)| (size - (addr - start)).min(len));
        windows.push(
            memory
                .window(addr, here.max(1))
                .map_err(DriverError::from)?,
        );
        addr += here;
        len -= here;
    }
    Ok(windows)
}
