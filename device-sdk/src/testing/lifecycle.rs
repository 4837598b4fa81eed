//! Queues that start, stop, pause and reset at any moment.

use std::collections::BTreeSet;

use super::{Bench, Endpoint, Outcome, Setup, ensure};
use crate::driver::{DriverError, QueueOptions, Segment};

/// `GET_VRING_BASE` of an idle queue is the count of what it completed; asked again it is the same;
/// and started there, the queue goes on.
pub fn stops_at_the_index_it_would_go_on_at(endpoint: &mut dyn Endpoint) -> Outcome {
    let mut bench = Bench::start(endpoint, Setup::default())?;
    let index = bench.expected.probe.queue;
    let mut done = 0u16;
    for count in [0, 1, 7, 100] {
        bench.round_trips(count)?;
        done += count;
        let base = bench.driver.stop_queue(index)?;
        ensure!(
            base == u32::from(done),
            "the queue stopped at {base} after {done} requests"
        );
        let again = bench.driver.stop_queue(index)?;
        ensure!(
            again == base,
            "the queue stopped at {base}, then at {again}"
        );
        bench.driver.resume_queue(index, base)?;
    }
    bench.round_trips(10)
}

/// When a queue stops, everything before its base has completed and nothing after it; resumed
/// there, every request completes exactly once.
pub fn loses_nothing_when_stopped_with_requests_in_flight(endpoint: &mut dyn Endpoint) -> Outcome {
    let mut bench = Bench::start(
        endpoint,
        Setup {
            size: 256,
            ..Setup::default()
        },
    )?;
    let index = bench.expected.probe.queue;
    for round in 0..40u16 {
        let count = 1 + round * 3 % bench.fits().min(60);
        bench.submit(count)?;
        let mut completed = BTreeSet::new();
        // Stop now and then only after some have completed.
        if round % 2 == 1 {
            completed.extend(bench.collect(count / 2)?);
        }
        let base = bench.driver.stop_queue(index)?;
        let used = bench.queue()?.ring().split().device_used();
        ensure!(
            base == u32::from(used),
            "the queue stopped at {base} with the used index at {used}"
        );
        completed.extend(bench.collect_now()?);
        let settled = bench.settle(|b| Ok(b.queue()?.ring().split().device_used() != used))?;
        ensure!(!settled, "a request was completed on a stopped queue");
        bench.driver.resume_queue(index, base)?;
        let left = count - completed.len() as u16;
        completed.extend(bench.collect(left)?);
        ensure!(
            completed.len() == usize::from(count),
            "{count} requests completed as {completed:?}"
        );
    }
    Ok(())
}

/// Each other queue, in the probe's group or not, stops and resumes without the probe's noticing.
pub fn stops_one_queue_while_others_run(endpoint: &mut dyn Endpoint) -> Outcome {
    let mut bench = Bench::start(endpoint, Setup::default())?;
    let running = bench.expected.running.clone();
    for index in 0..bench.expected.queues {
        if !running.contains(&index) {
            let options = bench.queue_options(index);
            bench.driver.start_queue(index, &options)?;
        }
    }
    let probe = bench.expected.probe.queue;
    for index in (0..bench.expected.queues).filter(|index| *index != probe) {
        bench.submit(20)?;
        let base = bench.driver.stop_queue(index)?;
        ensure!(
            base == 0,
            "queue {index}, which was given nothing, stopped at {base}"
        );
        bench.collect(20)?;
        bench.round_trips(3)?;
        bench.driver.resume_queue(index, base)?;
        bench.round_trips(3)?;
    }
    Ok(())
}

/// A buffer that is posted for what may come is not lost by a stop: the queue stops at the last one
/// it completed. So it does on the queues that run beside the probe's: the receive queues.
pub fn gives_back_buffers_it_has_no_use_for_yet(endpoint: &mut dyn Endpoint) -> Outcome {
    let mut bench = Bench::start(endpoint, Setup::default())?;
    let buffer = bench.driver.allocate(2048, 64)?;
    for index in bench.expected.running.clone() {
        if index == bench.expected.probe.queue {
            continue;
        }
        for round in 0..5 {
            let queue = bench.driver.queue(index)?;
            if round == 0 {
                for token in 0..8 {
                    let segment = Segment::writable(buffer.addr() + token * 256, 256);
                    queue.add(&[segment], token).map_err(DriverError::from)?;
                }
            }
            queue.flush()?;
            bench.round_trips(2)?;
            let base = bench.driver.stop_queue(index)?;
            let used = bench.driver.queue(index)?.ring().split().device_used();
            ensure!(
                base == u32::from(used),
                "queue {index} stopped at {base} with the used index at {used}"
            );
            bench.driver.resume_queue(index, base)?;
        }
    }
    bench.round_trips(2)
}

/// Rings begin where `SET_VRING_BASE` says, and indices wrap.
pub fn starts_at_any_index(endpoint: &mut dyn Endpoint) -> Outcome {
    for features in [Setup::default().features, Setup::plain().features] {
        for base in [1u16, 63, 64, 0x7fff, 0xfff0, 0xffff] {
            let setup = Setup {
                features,
                base,
                ..Setup::default()
            };
            let mut bench = Bench::start(endpoint, setup)?;
            bench.round_trips(40)?;
            let stopped = bench.driver.stop_queue(bench.expected.probe.queue)?;
            let expected = base.wrapping_add(40);
            ensure!(
                stopped == u32::from(expected),
                "40 requests from {base} end at {stopped}"
            );
        }
    }
    Ok(())
}

/// A stopped queue starts again with rings elsewhere, of another size, from 0.
pub fn starts_again_with_another_ring(endpoint: &mut dyn Endpoint) -> Outcome {
    let mut bench = Bench::start(endpoint, Setup::default())?;
    let index = bench.expected.probe.queue;
    for size in [16u16, 256, 32].map(|size| size.min(bench.expected.max_queue_size)) {
        bench.round_trips(size)?;
        bench.driver.stop_queue(index)?;
        let options = QueueOptions {
            size,
            ..QueueOptions::default()
        };
        bench.driver.start_queue(index, &options)?;
    }
    bench.round_trips(50)
}

/// A queue that was kicked but not enabled completes nothing; once enabled it completes what it
/// was kicked for, with no further kick.
pub fn does_nothing_before_enable(endpoint: &mut dyn Endpoint) -> Outcome {
    let mut bench = Bench::negotiate(endpoint, Setup::default())?;
    let index = bench.expected.probe.queue;
    for other in bench.expected.running.clone() {
        let options = bench.queue_options(other);
        bench.driver.describe_queue(other, &options)?;
        if other != index {
            bench.driver.ready_queue(other)?;
        }
    }
    let queue = bench.driver.take_queue(index)?;
    bench.driver.connection().start_queue(&queue)?;
    bench.driver.put_queue(queue);
    bench.submit(3)?;
    bench.queue()?.kick()?;
    still(&mut bench, "before it was enabled")?;
    bench.driver.connection().enable_queue(index, true)?;
    bench.collect(3)?;
    bench.round_trips(3)
}

/// A queue that is disabled while it runs completes nothing until it is enabled again, and then
/// everything.
pub fn pauses_while_disabled(endpoint: &mut dyn Endpoint) -> Outcome {
    let mut bench = Bench::start(endpoint, Setup::default())?;
    let index = bench.expected.probe.queue;
    for _ in 0..5 {
        bench.round_trips(3)?;
        bench.driver.connection().enable_queue(index, false)?;
        bench.submit(3)?;
        bench.queue()?.kick()?;
        still(&mut bench, "while it was disabled")?;
        bench.driver.connection().enable_queue(index, true)?;
        bench.collect(3)?;
    }
    Ok(())
}

/// A probe that has no bytes to write may be discarded by a disabled queue: a net device's
/// transmit queue must do so (vhost-user, "Ring states").
fn still(bench: &mut Bench, when: &str) -> Outcome {
    if bench.expected.probe.writable == 0 {
        return Ok(());
    }
    let base = bench.queue()?.ring().split().used();
    let moved = bench.settle(|b| Ok(b.queue()?.ring().split().device_used() != base))?;
    ensure!(!moved, "the queue completed requests {when}");
    Ok(())
}

/// A queue that was described but never started is not looked at, let alone written to.
pub fn leaves_queues_alone_that_were_not_started(endpoint: &mut dyn Endpoint) -> Outcome {
    let mut bench = Bench::negotiate(endpoint, Setup::default())?;
    let mut watched = Vec::new();
    let queues = bench.expected.queues;
    for index in (0..queues).filter(|i| !bench.expected.running.contains(i)) {
        let options = QueueOptions {
            size: 16,
            ..QueueOptions::default()
        };
        bench.driver.describe_queue(index, &options)?;
        watched.push(index);
    }
    // The probe's own queue is watched first, before it is started.
    let probe = bench.expected.probe.queue;
    let options = bench.queue_options(probe);
    bench.driver.describe_queue(probe, &options)?;
    watched.push(probe);
    for &index in &watched {
        if index == probe {
            bench.add(0).map_err(DriverError::from)?;
        }
        let queue = bench.driver.queue(index)?;
        queue.ring_mut().publish();
        queue.kick()?;
    }
    // Something to wake it up.
    bench.driver.connection().features()?;
    bench.settle(|_| Ok(false))?;
    for &index in &watched {
        let ring = bench.driver.queue(index)?.ring();
        let used = ring.split().device_used();
        ensure!(
            used == 0,
            "queue {index} was used {used} times but never started"
        );
    }
    watched.pop();
    for index in bench.expected.running.clone() {
        if index != probe {
            let options = bench.queue_options(index);
            bench.driver.start_queue(index, &options)?;
        }
    }
    bench.driver.ready_queue(probe)?;
    bench.queue()?.kick()?;
    bench.collect(1)?;
    bench.round_trips(20)?;
    for &index in &watched {
        let used = bench.driver.queue(index)?.ring().split().device_used();
        ensure!(
            used == 0,
            "queue {index} was used {used} times while another ran"
        );
    }
    Ok(())
}
