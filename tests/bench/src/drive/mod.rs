//! The loop that keeps requests outstanding and measures them.
//!
//! One thread drives all queues. It takes the time once for a batch of completions and once for a
//! batch of new requests, so that a clock costs a request little at any depth.

mod latencies;
mod pace;
mod sleep;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use outboard_device::driver::{DriverError, Queue};
use quanta::Clock;

use crate::clock::{self, ProcessClock};
use crate::error::{Error, Result};
use crate::figures::Counts;
use crate::load::Load;
use latencies::Latencies;
use pace::Pace;

/// A queue and its requests.
#[derive(Debug)]
pub struct Lane<L> {
    /// The queue, started.
    pub queue: Queue,
    /// Its requests.
    pub load: L,
    /// Slots with no request outstanding.
    free: Vec<u16>,
    /// When each slot's request was begun, or was due; in ticks of the clock.
    begun: Vec<u64>,
    /// Completions until the wish for no interrupts is to be renewed.
    quiet: u32,
}

impl<L> Lane<L> {
    /// A lane of `depth` slots.
    pub fn new(queue: Queue, load: L, depth: u16) -> Self {
        Self {
            queue,
            load,
            free: (0..depth).rev().collect(),
            begun: vec![0; usize::from(depth)],
            quiet: 0,
        }
    }

    fn outstanding(&self) -> usize {
        self.begun.len() - self.free.len()
    }
}

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Sleep until interrupted, rather than poll.
    pub sleep: bool,
    /// Run this long before measuring.
    pub warmup: Duration,
    /// Measure this long.
    pub time: Duration,
    /// Requests a second over all lanes.
    pub rate: Option<u64>,
    /// The backend's CPU clock.
    pub backend: Option<ProcessClock>,
    /// Set from elsewhere to end early.
    pub stop: &'a AtomicBool,
}

/// What was counted, and how long each request took, in nanoseconds.
#[derive(Debug)]
pub struct Measured {
    /// Counts of the measured time.
    pub counts: Counts,
    /// Of the requests completed in it.
    pub latencies: Histogram<u64>,
}

/// While there is nothing to do, the clock is read every so many rounds: it takes longer than a look at
/// a ring.
const ROUNDS_PER_TIME: u32 = 16;
/// A device that has completed nothing for so long is stuck.
const STUCK: Duration = Duration::from_secs(20);
/// The wish for no interrupts is good for 32768 completions; it is renewed well before.
const RENEWAL: u32 = 8192;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    WarmUp,
    Measuring,
    /// No new requests; wait for those outstanding.
    Draining,
}

/// Runs the lanes as planned, and leaves nothing outstanding.
pub fn run<L: Load>(lanes: &mut [Lane<L>], plan: &Plan<'_>) -> Result<Measured> {
    let clock = Clock::new();
    let start = clock.raw();
    let since_start = |now: u64| Duration::from_nanos(clock.delta_as_nanos(start, now));
    let mut pace = plan.rate.map(|rate| Pace::new(rate, clock.clone()));
    let mut phase = Phase::WarmUp;
    let mut edge = plan.warmup;
    let mut last_done = Duration::ZERO;
    let mut counts = Counts::default();
    let mut before = Counts::default();
    let mut latencies = Latencies::new(clock.clone())?;
    let mut now = Duration::ZERO;
    let mut rounds = 0u32;
    loop {
        if rounds.is_multiple_of(ROUNDS_PER_TIME) {
            now = since_start(clock.raw());
        }
        rounds = rounds.wrapping_add(1);
        if now >= edge {
            let snapshot = snapshot(lanes, &counts, plan, now)?;
            if phase == Phase::WarmUp {
                phase = Phase::Measuring;
                before = snapshot;
                edge = now + plan.time;
            } else if phase == Phase::Measuring {
                phase = Phase::Draining;
                counts = difference(&snapshot, &before);
                edge = Duration::MAX;
            }
        }
        if plan.stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        let mut progress = false;
        for lane in &mut *lanes {
            let mut arrived = 0;
            while let Some((slot, bytes)) = lane.load.take(&mut lane.queue)? {
                if !progress {
                    progress = true;
                    last_done = now;
                }
                if arrived == 0 {
                    arrived = clock.raw();
                }
                lane.free.push(slot);
                if phase != Phase::Draining {
                    counts.requests += 1;
                    counts.bytes += bytes;
                }
                if phase == Phase::Measuring {
                    let begun = lane.begun.get(usize::from(slot)).copied();
                    latencies.note(begun.unwrap_or(arrived), arrived);
                }
                lane.quiet = lane.quiet.saturating_sub(1);
            }
            if !plan.sleep && lane.quiet == 0 {
                lane.queue.ring_mut().disarm();
                lane.quiet = RENEWAL;
            }
            if phase != Phase::Draining && !lane.free.is_empty() {
                progress |= refill(lane, pace.as_mut(), &clock, &mut counts)?;
            }
        }
        if progress {
            continue;
        }
        let outstanding: usize = lanes.iter().map(Lane::outstanding).sum();
        if outstanding == 0 && phase == Phase::Draining {
            break;
        }
        if outstanding > 0 && now > last_done + STUCK {
            let queue = lanes.first().map_or(0, |lane| lane.queue.index());
            return Err(DriverError::Timeout {
                queue,
                limit: STUCK,
            }
            .into());
        }
        if plan.sleep {
            rounds = 0;
            let due = pace.as_ref().map(Pace::left);
            let until_edge = edge.saturating_sub(since_start(clock.raw()));
            counts.calls += sleep::until_called(lanes, due.unwrap_or(until_edge).min(until_edge))?;
        } else {
            std::hint::spin_loop();
        }
    }
    let latencies = latencies.finish();
    Ok(Measured { counts, latencies })
}

/// Begins as many requests as there are slots, or as are due. True if there were any.
#[inline]
fn refill<L: Load>(
    lane: &mut Lane<L>,
    pace: Option<&mut Pace>,
    clock: &Clock,
    counts: &mut Counts,
) -> Result<bool> {
    let mut began = false;
    if let Some(pace) = pace {
        while let Some(slot) = lane.free.last().copied()
            && let Some(due) = pace.next_due()
        {
            lane.free.pop();
            lane.load.add(&mut lane.queue, slot)?;
            began = true;
            if let Some(begun) = lane.begun.get_mut(usize::from(slot)) {
                *begun = due;
            }
        }
    } else {
        let now = clock.raw();
        while let Some(slot) = lane.free.pop() {
            lane.load.add(&mut lane.queue, slot)?;
            began = true;
            if let Some(begun) = lane.begun.get_mut(usize::from(slot)) {
                *begun = now;
            }
        }
    }
    if began && lane.load.flush(&mut lane.queue)? {
        counts.kicks += 1;
    }
    Ok(began)
}

/// The counts until now, with what is only asked at the ends of the measured time.
fn snapshot<L>(
    lanes: &[Lane<L>],
    counts: &Counts,
    plan: &Plan<'_>,
    now: Duration,
) -> Result<Counts> {
    let mut calls = counts.calls;
    if !plan.sleep {
        for lane in lanes {
            calls += lane.queue.take_calls()?;
        }
    }
    Ok(Counts {
        time: now,
        calls,
        driver: clock::this_thread(),
        backend: plan.backend.and_then(ProcessClock::now),
        ..*counts
    })
}

fn difference(after: &Counts, before: &Counts) -> Counts {
    Counts {
        time: after.time.saturating_sub(before.time),
        requests: after.requests - before.requests,
        bytes: after.bytes - before.bytes,
        kicks: after.kicks - before.kicks,
        calls: after.calls.saturating_sub(before.calls),
        driver: after.driver.saturating_sub(before.driver),
        backend: match (after.backend, before.backend) {
            (Some(after), Some(before)) => Some(after.saturating_sub(before)),
            _ => None,
        },
    }
}
