//! What leaving the guest costs, and what an interrupt does, by the time-stamp counter.
//!
//! A line `bench NAME COUNT TICKS` says how long COUNT times took; how long a tick is, the host knows.

use core::arch::asm;

use crate::block::{Disk, Wait};
use crate::port;
use crate::say;

/// A port that nobody has, not even to make a machine wait.
const NOBODY: u16 = 0x2f0;
const READ: u32 = 0;

fn ticks() -> u64 {
    let (low, high): (u32, u32);
    // No instruction before it is still under way.
    unsafe { asm!("lfence", "rdtsc", "lfence", out("eax") low, out("edx") high) };
    u64::from(high) << 32 | u64::from(low)
}

fn measure(name: &str, count: u64, mut once: impl FnMut()) {
    once();
    let start = ticks();
    for _ in 0..count {
        once();
    }
    say!("bench {name} {count} {}", ticks() - start);
}

/// Exits of each kind, kicks of a device that has nothing to do, a copy, and reads of a disk one at a time:
/// kick, backend, interrupt, handler.
pub fn run(slot: u8, count: u64) -> Result<(), &'static str> {
    let mut disk = Disk::open(slot, 0, 0x50, 1)?;
    measure("nothing", count, || {});
    measure("pio-out", count, || port::out8(NOBODY, 0));
    measure("pio-in", count, || {
        port::in8(NOBODY);
    });
    measure("mmio-read", count, || {
        disk.device.status();
    });
    measure("ioeventfd", count, || disk.kick());
    let mut done = Ok(());
    measure("request", count, || done = done.and(disk.one(READ, 0)));
    done?;
    let (from, to) = (crate::arena::pages(4096), crate::arena::pages(4096));
    measure("copy-4k", count, || unsafe {
        core::ptr::copy_nonoverlapping(from, to, 4096);
    });
    disk.device.reset()
}

/// Reads of a disk: one at a time and many, looking for the answers, and one at a time halted until its
/// interrupt. A disk that fails is seen by who looks: so that comes first.
///
/// A line `requests WAIT DEPTH COUNT TICKS KICKS CALLS MEAN P50 P99 P999 MAX` says how long all took and how
/// long each, in ticks.
pub fn requests(slot: u8, count: u64) -> Result<(), &'static str> {
    const DEPTH: u16 = 32;
    let mut disk = Disk::open(slot, 0, 0x50, DEPTH)?;
    let len = count.max(1) as usize;
    let times: &mut [u64] = unsafe { core::slice::from_raw_parts_mut(crate::arena::pages(8 * len).cast(), len) };
    for (name, wait, depth) in [("poll", Wait::Look, 1), ("poll", Wait::Look, DEPTH), ("sleep", Wait::Halt, 1)] {
        let warm_up = len.div_ceil(8);
        disk.time(depth, wait, ticks, &mut times[..warm_up])?;
        let start = ticks();
        let [kicks, calls] = disk.time(depth, wait, ticks, times)?;
        let all = ticks() - start;
        times.sort_unstable();
        let at = |thousandth: usize| times[(len * thousandth / 1000).min(len - 1)];
        let mean = times.iter().sum::<u64>() / len as u64;
        say!("requests {name} {depth} {len} {all} {kicks} {calls} {mean} {} {} {} {}", at(500), at(990), at(999), at(1000));
    }
    disk.device.reset()
}
