//! One case from start to end: backend, negotiation, queues, loop, figures.

use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use outboard_device::driver::connection::{
    DEFAULT_LIMIT, F_EVENT_IDX, F_INDIRECT_DESC, F_PROTOCOL_FEATURES, F_RING_PACKED, F_VERSION_1,
};
use outboard_device::driver::net::TX;
use outboard_device::driver::{Driver, Options, QueueOptions};
use vhost::vhost_user::VhostUserProtocolFeatures;

use crate::affinity::Affinity;
use crate::backend::{Backend, Places, Target};
use crate::bytes::Bytes;
use crate::case::{Case, Format, Op, Path, Switch, Wait};
use crate::clock::MachineTime;
use crate::drive::{self, Lane, Measured, Plan};
use crate::error::{Error, Result};
use crate::figures::Figures;
use crate::load::{Area, Block, Frames, Load, Plain, Relay, frame};
use crate::machine::Noise;
use crate::record::Record;
use crate::verify::{Verdict, Verifier};
use crate::wire::{Peer, Tap};

/// How long, and where.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// Before measuring.
    pub warmup: Duration,
    /// Measured.
    pub time: Duration,
    /// Placement of both sides.
    pub affinity: Affinity,
}

/// Whose figure a run gives.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Its name in tables.
    pub name: String,
    /// Where it is.
    pub target: Target,
    /// The image its command names.
    pub file: Option<std::path::PathBuf>,
    /// The tap its command names, made for each run.
    pub tap: Option<String>,
    /// It offers no `EVENT_IDX`: it is driven by flags also where a case has that, as by any guest.
    pub by_flags: bool,
}

/// Entries of a ring that has room for every request, and as many as guests use.
const USUAL_RING: u16 = 512;

/// Measures one case, with a backend of its own where it is started.
pub fn run(
    subject: &Subject,
    case: &Case,
    conditions: &Conditions,
    round: u32,
    stop: &AtomicBool,
) -> Result<Record> {
    let places = Places {
        file: subject.file.clone(),
        tap: subject.tap.clone(),
        queues: case.queues,
    };
    fits(case)?;
    // Gone only after the backend.
    let tap = subject.tap.as_deref().map(Tap::up).transpose()?;
    let mut backend = start(subject, &places, conditions)?;
    let mut driver = negotiate(backend.connect()?, case, subject)?;
    let before = MachineTime::now();
    let measured = match case.path {
        Path::Null | Path::Block => {
            let area = Area::of(&mut driver, case.size)?;
            let load = |driver: &mut Driver, queue| Block::new(driver, case, area, queue);
            measure(&mut driver, case, conditions, &backend, stop, load)
        }
        Path::Net if Frames::does(case.op) => {
            let _peer = peer(tap.as_ref(), case, conditions)?;
            let load = |driver: &mut Driver, n: u16| {
                let transmit = match case.op {
                    Op::Echo => {
                        driver.start_queue(2 * n + 1, &queue_options(case))?;
                        Some(driver.take_queue(2 * n + 1)?)
                    }
                    _ => None,
                };
                Frames::new(driver, case, transmit)
            };
            measure(&mut driver, case, conditions, &backend, stop, load)
        }
        Path::Switch => {
            let mut sender = negotiate(backend.connect_other()?, case, subject)?;
            let queue = |driver: &mut Driver, index| {
                driver.start_queue(index, &queue_options(case))?;
                driver.take_queue(index)
            };
            let hello = queue(&mut driver, TX)?;
            Relay::hello(&mut driver, hello)?;
            let transmit = queue(&mut sender, TX)?;
            sender.driver_ok()?;
            let mut relay = Some(Relay::new(&mut driver, &mut sender, transmit, case)?);
            let only = |_: &mut Driver, _| relay.take().ok_or_else(one_only);
            measure(&mut driver, case, conditions, &backend, stop, only)
        }
        Path::Net | Path::Console | Path::Rng => {
            let load = |driver: &mut Driver, _| Plain::new(driver, case);
            measure(&mut driver, case, conditions, &backend, stop, load)
        }
    }?;
    // Including the warm-up and what went before it, which the two sides' own time leaves out: little.
    let elapsed = MachineTime::now().since(before);
    let counts = &measured.counts;
    let share = (conditions.warmup + conditions.time).as_secs_f64()
        / conditions.time.as_secs_f64().max(1e-9);
    let ours = (counts.driver + counts.backend.unwrap_or_default()).mul_f64(share);
    let noise = Noise::of(elapsed, ours);
    let mut figures = Figures::new(counts, &measured.latencies);
    if (case.path, case.op) == (Path::Net, Op::Read) {
        // How long a buffer waits for a frame is nobody's latency.
        figures.latency = None;
    }
    Ok(Record::new(
        &subject.name,
        backend.command(),
        round,
        case,
        conditions,
        figures,
        noise,
    ))
}

/// Verifies a block device with one queue, in a case: on its first `size` bytes, or on all it has.
pub fn verify(
    subject: &Subject,
    case: &Case,
    conditions: &Conditions,
    size: Bytes,
    stop: &AtomicBool,
) -> Result<Verdict> {
    let places = Places {
        file: subject.file.clone(),
        tap: None,
        queues: 1,
    };
    let mut backend = start(subject, &places, conditions)?;
    let mut driver = negotiate(backend.connect()?, case, subject)?;
    let mut area = Area::of(&mut driver, case.size)?;
    area.blocks = area.blocks.min(size.0 / case.size.0).max(1);
    driver.start_queue(0, &queue_options(case))?;
    let queue = driver.take_queue(0)?;
    driver.driver_ok()?;
    backend.hold(&conditions.affinity.backend)?;
    let verifier = Verifier::new(&mut driver, queue, case, area, stop)?;
    let (queue, verdict) = blame(&backend, verifier.run(conditions.time))?;
    driver.put_queue(queue);
    Ok(verdict)
}

/// Starts the backend where it is to run: some look how many CPUs they have when they start.
fn start(subject: &Subject, places: &Places, conditions: &Conditions) -> Result<Backend> {
    conditions.affinity.backend.hold_this_thread()?;
    let backend = Backend::start(&subject.target, places);
    conditions.affinity.driver.hold_this_thread()?;
    backend
}

/// What no backend can be asked.
fn fits(case: &Case) -> Result<()> {
    if case.path == Path::Switch && case.queues != 1 {
        return Err(one_only());
    }
    let known = match case.path {
        Path::Net => matches!(case.op, Op::Write | Op::Read | Op::Echo),
        _ => case.op != Op::Echo,
    };
    if !known {
        return Err(Error::Unfit(format!("there is no such request: {case}")));
    }
    let frames = matches!(case.path, Path::Net | Path::Switch);
    if frames && !(60..=65_521).contains(&case.size.0) {
        return Err(Error::Unfit(format!(
            "a frame has 60 to 65521 bytes, and not {}",
            case.size
        )));
    }
    Ok(())
}

fn one_only() -> Error {
    Error::Unfit("a switch's ports are driven with one queue each".into())
}

/// Whoever is at the tap's other end.
fn peer(tap: Option<&Tap>, case: &Case, conditions: &Conditions) -> Result<Peer> {
    let tap = tap.ok_or_else(|| {
        Error::Unfit("frames come in only from a tap: name one with --tap".into())
    })?;
    let cpus = &conditions.affinity.backend;
    match case.op {
        Op::Echo => Peer::echo(tap, cpus),
        _ => Peer::flood(tap, cpus, frame(case.size.0 as usize, 0)),
    }
}

/// Connects and agrees on what the case wants.
fn negotiate(stream: UnixStream, case: &Case, subject: &Subject) -> Result<Driver> {
    let event_idx = if subject.by_flags {
        Switch::Off
    } else {
        case.event_idx
    };
    let mut unwanted = 0;
    for (switch, feature) in [(event_idx, F_EVENT_IDX), (case.indirect, F_INDIRECT_DESC)] {
        if switch == Switch::Off {
            unwanted |= feature;
        }
    }
    let features = match case.path {
        // Nothing of a card's offloads: frames are what they seem.
        Path::Net | Path::Switch => {
            F_VERSION_1 | F_PROTOCOL_FEATURES | F_EVENT_IDX | F_INDIRECT_DESC
        }
        _ => u64::MAX,
    };
    let options = Options {
        memory: vec![(0, memory(case))],
        features: features & !unwanted,
        packed: case.ring == Format::Packed,
        protocol: VhostUserProtocolFeatures::all(),
        // Some backends know no other way.
        by_region: true,
        limit: DEFAULT_LIMIT,
    };
    let driver = Driver::new(stream, &options)?;
    for (wanted, feature, name) in [
        (case.ring == Format::Packed, F_RING_PACKED, "packed rings"),
        (event_idx == Switch::On, F_EVENT_IDX, "EVENT_IDX"),
        (
            case.indirect == Switch::On,
            F_INDIRECT_DESC,
            "indirect descriptors",
        ),
    ] {
        if wanted && !driver.has(feature) {
            return Err(Error::Unfit(format!("the backend does not offer {name}")));
        }
    }
    Ok(driver)
}

/// Bytes of guest memory for all rings and buffers.
fn memory(case: &Case) -> u64 {
    let Bytes(size) = case.size;
    // Header, status and header of a frame, each on lines of its own.
    let each = 3 * (size.next_multiple_of(4096) + 4096);
    let queue = each * u64::from(case.depth) + (4 << 20);
    (queue * u64::from(case.queues)).next_multiple_of(2 << 20)
}

/// Which queue of the device lane `n` drives.
fn queue_index(case: &Case, n: u16) -> u16 {
    match case.path {
        Path::Net if Frames::does(case.op) => 2 * n,
        Path::Switch => 2 * n,
        // The transmit queue of each pair; a console's port 0 only has one.
        Path::Net | Path::Console => 2 * n + 1,
        Path::Null | Path::Block | Path::Rng => n,
    }
}

fn measure<L: Load>(
    driver: &mut Driver,
    case: &Case,
    conditions: &Conditions,
    backend: &Backend,
    stop: &AtomicBool,
    mut load: impl FnMut(&mut Driver, u16) -> Result<L>,
) -> Result<Measured> {
    let queues = driver.negotiated().queues.max(1);
    let last = queue_index(case, case.queues - 1);
    if last >= queues {
        return Err(Error::Unfit(format!(
            "the case wants {} queues, the device has {queues} in all",
            case.queues
        )));
    }
    let options = queue_options(case);
    let mut lanes = Vec::new();
    for n in 0..case.queues {
        let load = load(driver, n)?;
        let index = queue_index(case, n);
        driver.start_queue(index, &options)?;
        lanes.push(Lane::new(driver.take_queue(index)?, load, case.depth));
    }
    driver.driver_ok()?;
    backend.hold(&conditions.affinity.backend)?;
    let plan = Plan {
        sleep: case.wait == Wait::Sleep,
        warmup: conditions.warmup,
        time: conditions.time,
        rate: case.rate,
        backend: backend.clock(),
        stop,
    };
    let measured = drive::run(&mut lanes, &plan);
    for lane in lanes {
        driver.put_queue(lane.queue);
    }
    blame(backend, measured)
}

/// A ring with room for every request.
fn queue_options(case: &Case) -> QueueOptions {
    let descriptors = match case.path {
        Path::Null | Path::Block => Block::descriptors(case.path),
        _ => 1,
    };
    let (entries, indirect) = match case.indirect {
        Switch::On => (case.depth, descriptors.next_power_of_two()),
        Switch::Off => (case.depth * descriptors, 0),
    };
    let entries = entries.max(Relay::buffers(case));
    QueueOptions {
        size: entries.next_power_of_two().max(USUAL_RING),
        base: 0,
        indirect,
    }
}

/// What the driver has met with is told with the backend's last words.
fn blame<T>(backend: &Backend, result: Result<T>) -> Result<T> {
    match result {
        Err(Error::Driver(error)) => Err(backend.failed(&format!("failed: {error}"))),
        other => other,
    }
}
