//! A device set up and ready to be probed.

use std::time::{Duration, Instant};

use vhost::vhost_user::VhostUserProtocolFeatures as Protocol;

use super::{CANARY, Endpoint, Expected, Failure, Outcome, ensure};
use crate::driver::connection::{
    Connection, F_EVENT_IDX, F_INDIRECT_DESC, F_PROTOCOL_FEATURES, F_VERSION_1,
};
use crate::driver::ring::RingError;
use crate::driver::{Driver, DriverError, Options, Queue, QueueOptions, Segment, Used, Window};

/// How a [`Bench`] sets the device up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Virtio features wanted, of those offered.
    pub features: u64,
    /// Packed rings wanted, if they are offered.
    pub packed: bool,
    /// Protocol features wanted, of those offered; none for a frontend that knows none.
    pub protocol: Protocol,
    /// Entries in the probe's ring, if the device takes so many.
    pub size: u16,
    /// The index the probe's ring begins at.
    pub base: u16,
    /// Entries in each chain's indirect table; below 2, none is used.
    pub indirect: u16,
}

impl Default for Setup {
    /// Every feature of split rings, 64 entries from index 0, with no indirect tables.
    fn default() -> Self {
        Self {
            features: u64::MAX,
            packed: false,
            protocol: Protocol::all(),
            size: 64,
            base: 0,
            indirect: 0,
        }
    }
}

impl Setup {
    /// Features of the device's class only: no `EVENT_IDX`, no indirect descriptors.
    pub fn plain() -> Self {
        Self {
            features: !(F_EVENT_IDX | F_INDIRECT_DESC),
            ..Self::default()
        }
    }

    /// No feature that can be done without.
    pub fn bare() -> Self {
        Self {
            features: F_VERSION_1 | F_PROTOCOL_FEATURES,
            ..Self::default()
        }
    }
}

/// A device set up, its probe's queues running, with buffers to send probes from.
pub struct Bench {
    /// The driver.
    pub driver: Driver,
    /// What the device is expected to be.
    pub expected: Expected,
    /// How it is set up.
    pub setup: Setup,
    /// How long a device that answers nothing is waited for.
    pub limit: Duration,
    slots: Window,
    slot_len: usize,
}

/// How many probes have buffers of their own at once.
pub(super) const SLOTS: u16 = 256;

impl Bench {
    /// Connects afresh, sets the device up, and starts the queues that the probe needs.
    pub fn start(endpoint: &mut dyn Endpoint, setup: Setup) -> Outcome<Self> {
        let mut bench = Self::negotiate(endpoint, setup)?;
        bench.start_queues()?;
        Ok(bench)
    }

    /// Connects afresh and sets the device up, with no queue described or started.
    pub fn negotiate(endpoint: &mut dyn Endpoint, setup: Setup) -> Outcome<Self> {
        let limit = endpoint.limit();
        let options = Options {
            features: setup.features,
            packed: setup.packed,
            protocol: setup.protocol,
            limit,
            ..Options::default()
        };
        let connection = Connection::new(endpoint.connect()?, limit)?;
        let mut driver = Driver::over(connection, &options)?;
        let expected = endpoint.expected();
        let setup = Setup {
            size: setup.size.min(expected.max_queue_size),
            ..setup
        };
        let (slots, slot_len) = slots(&mut driver, &expected)?;
        Ok(Self {
            driver,
            expected,
            setup,
            limit,
            slots,
            slot_len,
        })
    }

    /// Starts and enables the queues that the probe needs.
    pub fn start_queues(&mut self) -> Outcome {
        for index in self.expected.running.clone() {
            let options = self.queue_options(index);
            self.driver.start_queue(index, &options)?;
        }
        Ok(())
    }

    /// How queue `index` is set up: the probe's as [`Setup`] says.
    pub fn queue_options(&self, index: u16) -> QueueOptions {
        let Setup {
            size,
            base,
            indirect,
            ..
        } = self.setup;
        if index == self.expected.probe.queue {
            QueueOptions {
                size,
                base,
                indirect,
            }
        } else {
            QueueOptions {
                size: 64.min(self.expected.max_queue_size),
                ..QueueOptions::default()
            }
        }
    }

    /// Resets the device, starts it again as before, and sends a probe through.
    pub fn reset(&mut self) -> Outcome {
        self.driver.reset()?;
        let (slots, slot_len) = slots(&mut self.driver, &self.expected)?;
        self.slots = slots;
        self.slot_len = slot_len;
        self.start_queues()
    }

    /// The probe's queue.
    pub fn queue(&mut self) -> Outcome<&mut Queue> {
        Ok(self.driver.queue(self.expected.probe.queue)?)
    }

    /// How many descriptors a probe takes.
    pub fn chain_len(&self) -> u16 {
        let probe = &self.expected.probe;
        u16::from(!probe.readable.is_empty()) + u16::from(probe.writable > 0)
    }

    /// How many probes fit in the ring at once.
    pub fn fits(&self) -> u16 {
        self.setup.size / self.chain_len().max(1)
    }

    /// Fills slot `slot` with a fresh probe; its readable and its writable part.
    pub fn fill(&mut self, slot: u16) -> (Window, Window) {
        let probe = &self.expected.probe;
        let at = usize::from(slot % SLOTS) * self.slot_len;
        let readable = self.slots.part(at, probe.readable.len());
        readable.write(0, &probe.readable);
        // On its own cache lines, apart from what the device only reads.
        let apart = probe.readable.len().next_multiple_of(64);
        let writable = self.slots.part(at + apart, probe.writable as usize);
        writable.fill(CANARY);
        (readable, writable)
    }

    /// Fills slot `slot` and adds it to the ring, unseen by the device as yet. The slot is the token.
    pub fn add(&mut self, slot: u16) -> Result<(), RingError> {
        let (readable, writable) = self.fill(slot);
        let segments = [
            Segment::readable(readable.addr(), readable.len() as u32),
            Segment::writable(writable.addr(), writable.len() as u32),
        ];
        let chain = match (readable.is_empty(), writable.is_empty()) {
            (false, true) => &segments[..1],
            (true, false) => &segments[1..],
            _ => &segments[..],
        };
        let queue = self.driver.queue(self.expected.probe.queue);
        queue
            .map_err(|_| RingError::Empty)?
            .add(chain, u64::from(slot))
    }

    /// Adds probes into slots `0..count` and shows them to the device; it is kicked if it asked.
    pub fn submit(&mut self, count: u16) -> Outcome {
        for slot in 0..count {
            self.add(slot).map_err(DriverError::from)?;
        }
        self.queue()?.flush()?;
        Ok(())
    }

    /// Whether a completed probe was answered rightly.
    pub fn check(&self, used: Used) -> Outcome {
        let probe = &self.expected.probe;
        ensure!(
            used.written <= probe.writable,
            "the device says it wrote {} bytes of {}",
            used.written,
            probe.writable
        );
        let at = (used.token % u64::from(SLOTS)) as usize * self.slot_len;
        let apart = probe.readable.len().next_multiple_of(64);
        let mut data = vec![0; probe.writable as usize];
        self.slots.read(at + apart, &mut data);
        (probe.check)(used.written, &data)
            .map_err(|reason| Failure::new(format!("a probe was answered wrongly: {reason}")))?;
        ensure!(
            self.slots.to_vec(at, probe.readable.len()) == probe.readable,
            "the device wrote to a buffer it may only read"
        );
        Ok(())
    }

    /// Waits for `count` completions and checks each. Their tokens, in the order they came.
    pub fn collect(&mut self, count: u16) -> Outcome<Vec<u64>> {
        let limit = self.limit;
        let mut tokens = Vec::new();
        for _ in 0..count {
            let used = self.queue()?.wait(limit)?;
            self.check(used)?;
            tokens.push(used.token);
        }
        Ok(tokens)
    }

    /// Takes back what was completed until now, and checks each. Their tokens.
    pub fn collect_now(&mut self) -> Outcome<Vec<u64>> {
        let mut tokens = Vec::new();
        while let Some(used) = self.queue()?.poll()? {
            self.check(used)?;
            tokens.push(used.token);
        }
        Ok(tokens)
    }

    /// Sends `count` probes, one after another, each taken back before the next.
    pub fn round_trips(&mut self, count: u16) -> Outcome {
        for slot in 0..count {
            self.add(slot).map_err(DriverError::from)?;
            self.queue()?.flush()?;
            self.collect(1)?;
        }
        let left = self.queue()?.ring().outstanding();
        ensure!(left == 0, "{left} requests were never completed");
        Ok(())
    }

    /// Gives the device a moment to do what it should not: long enough that a device which does
    /// it is usually caught, short enough to be often done. Ends early when `done` says so.
    pub fn settle(&mut self, mut done: impl FnMut(&mut Self) -> Outcome<bool>) -> Outcome<bool> {
        let end = Instant::now() + Duration::from_millis(30);
        while Instant::now() < end {
            if done(self)? {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(false)
    }
}

fn slots(driver: &mut Driver, expected: &Expected) -> Outcome<(Window, usize)> {
    let probe = &expected.probe;
    let len = probe.readable.len().next_multiple_of(64) + probe.writable as usize;
    let len = len.next_multiple_of(64);
    let slots = driver.allocate(len as u64 * u64::from(SLOTS), 64)?;
    Ok((slots, len))
}

impl Bench {
    /// Sends one probe whose buffers lie at guest physical address `addr` onwards.
    pub fn probe_from(&mut self, addr: u64) -> Outcome {
        let probe = self.expected.probe.clone();
        let readable = probe.readable.len() as u32;
        let apart = u64::from(readable.next_multiple_of(64));
        let memory = self.driver.memory();
        memory
            .window(addr, readable.into())
            .map_err(DriverError::from)?
            .write(0, &probe.readable);
        let window = memory
            .window(addr + apart, probe.writable.into())
            .map_err(DriverError::from)?;
        window.fill(CANARY);
        let mut chain = Vec::new();
        if readable > 0 {
            chain.push(Segment::readable(addr, readable));
        }
        if probe.writable > 0 {
            chain.push(Segment::writable(addr + apart, probe.writable));
        }
        let limit = self.limit;
        let queue = self.queue()?;
        queue.submit(&chain, u64::MAX)?;
        let used = queue.wait(limit)?;
        ensure!(
            used.token == u64::MAX,
            "another request completed than the one sent"
        );
        (probe.check)(used.written, &window.to_vec(0, window.len()))
            .map_err(|reason| Failure::new(format!("a probe at {addr:#x}: {reason}")))
    }
}
