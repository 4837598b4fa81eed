//! What the machine itself does in the same minutes: no backend can be expected to do better.

pub mod copy;
mod dpdk;
pub mod eventfd;
mod fio;
mod tap;

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::case::{Case, Op, Path, Wait};
use crate::clock::MachineTime;
use crate::error::{Error, Result};
use crate::figures::{Counts, Figures};
use crate::machine::Noise;
use crate::record::Record;
use crate::run::Conditions;

pub use dpdk::installed as dpdk_is_installed;
pub use fio::{Engine, Fio, installed as fio_is_installed};

/// A floor.
#[derive(Clone, Debug)]
pub enum Floor {
    /// The same I/O on the same file, by fio.
    Fio(Fio),
    /// The data copied in memory, once, by one thread: from anywhere in 256 MiB, as out of a page cache.
    Copy,
    /// Two threads that wake each other by eventfds, where the driver and the backend are.
    Eventfd,
    /// The same with one that looks at shared memory, and wakes the driver by an eventfd.
    Echo,
    /// The same frames through a tap of this name, with no ring.
    Tap(String),
    /// Frames through one copy between two processes of DPDK's.
    Dpdk,
}

impl Floor {
    /// Its name in tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Fio(fio) => fio.engine.name(),
            Self::Copy => "memory copy",
            Self::Eventfd => "eventfd round trip",
            Self::Echo => "polling echo",
            Self::Tap(_) => "bare tap",
            Self::Dpdk => "DPDK vhost to virtio_user",
        }
    }

    /// Whether it says anything about a case.
    pub fn fits(&self, case: &Case) -> bool {
        match self {
            // One thread, one request at a time: psync has no depth.
            Self::Fio(fio) if fio.engine == Engine::Psync && case.depth > 1 => false,
            Self::Fio(_) => case.path == Path::Block && case.op != Op::Flush && case.queues == 1,
            Self::Copy => case.path == Path::Block && case.op != Op::Flush,
            Self::Eventfd | Self::Echo => case.wait == Wait::Sleep && case.depth == 1,
            Self::Tap(_) => case.path == Path::Net && case.op != Op::Echo,
            Self::Dpdk => case.path == Path::Switch,
        }
    }

    /// Measures it as the case is measured.
    pub fn run(
        &self,
        case: &Case,
        how: &Conditions,
        round: u32,
        stop: &AtomicBool,
    ) -> Result<Record> {
        let before = MachineTime::now();
        let (command, figures) = match self {
            Self::Fio(fio) => fio.run(case, how)?,
            Self::Copy => ("memory copy".into(), copy::run(case.size, how, stop)?),
            Self::Eventfd => ("two eventfds".into(), eventfd::run(how, stop)?),
            Self::Echo => ("memory and an eventfd".into(), eventfd::echo(how, stop)?),
            Self::Tap(name) => ("bare tap".into(), tap::run(name, case, how, stop)?),
            Self::Dpdk => dpdk::run(case, how, stop)?,
        };
        let each = figures.driver_cpu.unwrap_or(0.0) + figures.backend_cpu.unwrap_or(0.0);
        let share = (how.warmup + how.time).as_secs_f64() / how.time.as_secs_f64().max(1e-9);
        let ours = Duration::from_secs_f64((each * figures.requests as f64 / 1e6 * share).max(0.0));
        let noise = Noise::of(MachineTime::now().since(before), ours);
        Ok(Record::new(
            self.name(),
            &command,
            round,
            case,
            how,
            figures,
            noise,
        ))
    }
}

/// Does something again and again, timed and counted after a warm-up.
fn repeat(
    how: &Conditions,
    stop: &AtomicBool,
    bytes: u64,
    mut once: impl FnMut() -> Result<()>,
) -> Result<Figures> {
    use std::sync::atomic::Ordering;
    let clock = quanta::Clock::new();
    let no_histogram = |_| Error::Unfit("no histogram can be made".into());
    let mut latencies = Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(no_histogram)?;
    let mut counts = Counts::default();
    let begin = clock.raw();
    let mut start = None;
    loop {
        let before = clock.raw();
        let elapsed = Duration::from_nanos(clock.delta_as_nanos(begin, before));
        if elapsed >= how.warmup && start.is_none() {
            start = Some((elapsed, crate::clock::this_thread()));
        }
        if let Some((from, cpu)) = start
            && elapsed >= from + how.time
        {
            counts.time = elapsed.saturating_sub(from);
            counts.driver = crate::clock::this_thread().saturating_sub(cpu);
            return Ok(Figures::new(&counts, &latencies));
        }
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        once()?;
        if start.is_some() {
            latencies.saturating_record(clock.delta_as_nanos(before, clock.raw()).max(1));
            counts.requests += 1;
            counts.bytes += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::affinity::Affinity;
    use crate::case::Sweep;

    #[test]
    fn the_machine_copies_and_wakes() {
        let how = Conditions {
            warmup: Duration::from_millis(5),
            time: Duration::from_millis(30),
            affinity: Affinity::default(),
        };
        let sweep = Sweep {
            wait: vec![Wait::Sleep],
            ..Sweep::default()
        };
        let case = sweep.cases(Path::Block).swap_remove(0);
        let stop = AtomicBool::new(false);
        for floor in [Floor::Copy, Floor::Eventfd, Floor::Echo] {
            assert!(floor.fits(&case));
            let record = floor.run(&case, &how, 1, &stop).unwrap();
            assert!(
                record.figures.requests > 0 && record.figures.latency.is_some(),
                "{record:?}"
            );
        }
    }
}
