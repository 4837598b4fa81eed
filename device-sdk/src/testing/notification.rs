//! Calls and kicks: as many as are needed, and none that was not asked for.

use std::time::Duration;

use super::{Bench, Endpoint, Outcome, Setup, ensure};
use crate::driver::DriverError;
use crate::driver::connection::F_EVENT_IDX;

/// Without event indices: a call follows a completion as long as the flag does not forbid it.
pub fn calls_when_asked_by_flags(endpoint: &mut dyn Endpoint) -> Outcome {
    calls_when_asked(endpoint, Setup::plain())
}

/// With event indices: a call follows exactly the completion that was asked for.
pub fn calls_when_asked_by_event_index(endpoint: &mut dyn Endpoint) -> Outcome {
    let setup = Setup {
        size: 128,
        ..Setup::default()
    };
    calls_when_asked(endpoint, setup)?;
    // Also over the wrap of the indices.
    for base in [0u16, 0xfff0] {
        let mut bench = Bench::start(endpoint, Setup { base, ..setup })?;
        if !bench.driver.has(F_EVENT_IDX) {
            return Ok(());
        }
        let limit = bench.limit;
        for count in [1u16, 2, 10, 40].map(|count| count.min(bench.fits())) {
            let queue = bench.queue()?;
            queue.take_calls()?;
            queue.ring_mut().arm_after(count);
            bench.submit(count - 1)?;
            let queue = bench.queue()?;
            ensure!(
                !queue.wait_call(Duration::from_millis(20))?,
                "it called after at most {} of the {count} completions asked for",
                count - 1
            );
            bench.add(count - 1).map_err(DriverError::from)?;
            let queue = bench.queue()?;
            queue.flush()?;
            ensure!(
                queue.wait_call(limit)?,
                "it did not call after {count} completions"
            );
            bench.collect(count)?;
        }
    }
    Ok(())
}

fn calls_when_asked(endpoint: &mut dyn Endpoint, setup: Setup) -> Outcome {
    let mut bench = Bench::start(endpoint, setup)?;
    let limit = bench.limit;
    for count in [1u16, 5] {
        let queue = bench.queue()?;
        queue.take_calls()?;
        queue.ring_mut().arm();
        bench.submit(count)?;
        ensure!(
            bench.queue()?.wait_call(limit)?,
            "it completed requests without a call"
        );
        bench.collect(count)?;
    }
    Ok(())
}

/// A driver that polls and wants no calls gets none.
pub fn keeps_quiet_when_asked(endpoint: &mut dyn Endpoint) -> Outcome {
    for setup in [Setup::plain(), Setup::default()] {
        let mut bench = Bench::start(endpoint, setup)?;
        let limit = bench.limit;
        // A device may make sure of a first call; what comes after counts.
        bench.round_trips(3)?;
        bench.queue()?.ring_mut().disarm();
        bench.settle(|_| Ok(false))?;
        bench.queue()?.take_calls()?;
        for _ in 0..20 {
            bench.submit(3)?;
            for _ in 0..3 {
                let used = bench.queue()?.spin(limit)?;
                bench.check(used)?;
                bench.queue()?.ring_mut().disarm();
            }
        }
        bench.settle(|_| Ok(false))?;
        let calls = bench.queue()?.take_calls()?;
        ensure!(
            calls == 0,
            "it called {calls} times though the driver asked it not to"
        );
    }
    Ok(())
}

/// A driver that kicks only when asked, and sleeps until called, is never left asleep: neither
/// side misses the other. Requests go out at uneven moments to meet the device at every point.
pub fn never_sleeps_over_a_request(endpoint: &mut dyn Endpoint) -> Outcome {
    for setup in [Setup::plain(), Setup::default()] {
        let mut bench = Bench::start(endpoint, setup)?;
        let mut pause = 1u32;
        for round in 0..1500u16 {
            let count = 1 + round % 4;
            bench.submit(count)?;
            bench.collect(count)?;
            pause = pause.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            for _ in 0..pause >> 22 {
                std::hint::spin_loop();
            }
        }
    }
    Ok(())
}

/// The call eventfd may be replaced while the queue runs; the new one is written from then on.
pub fn calls_a_replaced_eventfd(endpoint: &mut dyn Endpoint) -> Outcome {
    let mut bench = Bench::start(endpoint, Setup::default())?;
    let index = bench.expected.probe.queue;
    for _ in 0..5 {
        bench.round_trips(2)?;
        bench.driver.replace_call(index)?;
        bench.round_trips(2)?;
        let queue = bench.queue()?;
        queue.take_calls()?;
        queue.ring_mut().arm();
        bench.submit(1)?;
        let limit = bench.limit;
        ensure!(
            bench.queue()?.wait_call(limit)?,
            "the new eventfd was never written"
        );
        bench.collect(1)?;
    }
    Ok(())
}
