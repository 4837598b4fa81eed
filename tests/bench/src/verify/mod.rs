//! Whether a block device keeps what is written to it.
//!
//! Every block is filled with its address and generation. A turn of a block reads it, writes it and
//! reads it again; many blocks are in turn at once, each in no more than one. Only so can a duplicated
//! write be told from two that were swapped: what a block should hold is known at every moment. When a
//! read gives something else, everything outstanding is waited for, and the evidence is taken alone.

pub mod fault;
pub mod stamp;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use outboard_device::driver::block::{BlockQueue, Kind as Request, Status};
use outboard_device::driver::connection::DEFAULT_LIMIT;
use outboard_device::driver::{Driver, DriverError, Queue, Segment, Window};

use crate::case::{Case, Wait};
use crate::error::{Error, Result};
use crate::load::Area;
use fault::{Evidence, Fault, Kind};
use stamp::{Content, Stamp};

/// What was checked, and what was found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Blocks in use.
    pub blocks: u64,
    /// Writes done.
    pub writes: u64,
    /// Reads checked.
    pub reads: u64,
    /// How many faults of each kind.
    pub faults: BTreeMap<Kind, u64>,
    /// The first of them.
    pub examples: Vec<Fault>,
}

/// Faults that are described and not only counted.
const EXAMPLES: usize = 10;

/// Where a block is in its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Before,
    Write,
    After,
    /// The last look at every block.
    Scan,
}

#[derive(Clone, Copy, Debug)]
struct Turn {
    block: u64,
    step: Step,
}

/// The blocks of one queue, and what each should hold.
pub struct Verifier<'a> {
    queue: Queue,
    requests: BlockQueue,
    data: Window,
    area: Area,
    sleep: bool,
    stop: &'a AtomicBool,
    /// By block: how often it was written; 0 for one whose content is not known.
    generations: Vec<u64>,
    busy: Vec<bool>,
    turns: Vec<Option<Turn>>,
    bytes: Vec<u8>,
    /// Reads that gave something else.
    suspects: Vec<(u64, Content)>,
    verdict: Verdict,
}

impl<'a> Verifier<'a> {
    /// Over the first `area` of a disk, through a started queue that was taken out of `driver`.
    pub fn new(
        driver: &mut Driver,
        queue: Queue,
        case: &Case,
        area: Area,
        stop: &'a AtomicBool,
    ) -> Result<Self> {
        let blocks = area.blocks as usize;
        Ok(Self {
            queue,
            requests: BlockQueue::new(driver, case.depth)?,
            data: driver.allocate(u64::from(area.size) * u64::from(case.depth), 4096)?,
            area,
            sleep: case.wait == Wait::Sleep,
            stop,
            generations: vec![0; blocks],
            busy: vec![false; blocks],
            turns: vec![None; usize::from(case.depth)],
            bytes: vec![0; area.size as usize],
            suspects: Vec::new(),
            verdict: Verdict {
                blocks: area.blocks,
                ..Verdict::default()
            },
        })
    }

    /// Writes every block once, then any block for a time, then reads them all.
    pub fn run(mut self, time: Duration) -> Result<(Queue, Verdict)> {
        let all = 0..self.area.blocks;
        let mut first = all.clone();
        self.turn_over(Step::Write, || first.next())?;
        let end = Instant::now() + time;
        let mut random = fastrand::Rng::with_seed(1);
        let blocks = self.area.blocks;
        self.turn_over(Step::Before, || {
            (Instant::now() < end).then(|| random.u64(..blocks))
        })?;
        let mut last = all;
        self.turn_over(Step::Scan, || last.next())?;
        Ok((self.queue, self.verdict))
    }

    /// Gives blocks their turn, from `step` on, until there are no more.
    fn turn_over(&mut self, step: Step, mut next: impl FnMut() -> Option<u64>) -> Result<()> {
        let mut more = true;
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            while more && self.suspects.is_empty() && self.requests.free() > 0 {
                match next() {
                    Some(block) if self.claim(block) => self.submit(Turn { block, step })?,
                    Some(_) => {}
                    None => more = false,
                }
            }
            self.queue.flush()?;
            let outstanding = self.turns.iter().flatten().count();
            if outstanding > 0 {
                self.reap()?;
            } else if !self.suspects.is_empty() {
                self.examine()?;
            } else if !more {
                return Ok(());
            }
        }
    }

    /// Makes the block busy, if it is not.
    fn claim(&mut self, block: u64) -> bool {
        let busy = self.busy.get_mut(block as usize);
        busy.is_some_and(|busy| !std::mem::replace(busy, true))
    }

    fn release(&mut self, block: u64) {
        if let Some(busy) = self.busy.get_mut(block as usize) {
            *busy = false;
        }
    }

    fn expected(&self, block: u64) -> Stamp {
        let generation = self.generations.get(block as usize).copied().unwrap_or(0);
        Stamp { block, generation }
    }

    /// Adds the request of a turn's step, in a slot that is free.
    fn submit(&mut self, turn: Turn) -> Result<()> {
        let Some(slot) = self.turns.iter().position(Option::is_none) else {
            return Err(Error::Unfit("more requests than slots".into()));
        };
        let at = slot * self.area.size as usize;
        let buffer = self.data.part(at, self.area.size as usize);
        let len = self.area.size;
        let (kind, segment) = if turn.step == Step::Write {
            let mut stamp = self.expected(turn.block);
            stamp.generation += 1;
            stamp::fill(&mut self.bytes, stamp);
            buffer.write(0, &self.bytes);
            (Request::Out, Segment::readable(buffer.addr(), len))
        } else {
            // Nothing that is left here from before may pass for what the device has read.
            buffer.write(0, &[0; 8]);
            (Request::In, Segment::writable(buffer.addr(), len))
        };
        let sector = self.area.sector(turn.block);
        self.requests
            .add(&mut self.queue, kind, sector, &[segment], slot as u64)?;
        if let Some(place) = self.turns.get_mut(slot) {
            *place = Some(turn);
        }
        Ok(())
    }

    /// Takes back what is done, waiting for one, and takes each turn a step further.
    fn reap(&mut self) -> Result<()> {
        let mut done = if self.sleep {
            Some(self.requests.wait(&mut self.queue, DEFAULT_LIMIT)?)
        } else {
            self.requests.poll(&mut self.queue)?
        };
        while let Some(request) = done {
            let slot = request.token as usize;
            let Some(turn) = self.turns.get_mut(slot).and_then(Option::take) else {
                return Err(DriverError::Device(format!("slot {slot} completed twice")).into());
            };
            if request.status != Status::Ok {
                let failed = format!(
                    "a request of block {} ended with {:?}",
                    turn.block, request.status
                );
                return Err(DriverError::Device(failed).into());
            }
            if let Some(next) = self.finish(slot, turn) {
                self.submit(Turn {
                    block: turn.block,
                    step: next,
                })?;
            } else {
                self.release(turn.block);
            }
            done = self.requests.poll(&mut self.queue)?;
        }
        self.queue.flush()?;
        Ok(())
    }

    /// Notes what a step came to; the turn's next step.
    fn finish(&mut self, slot: usize, turn: Turn) -> Option<Step> {
        if turn.step == Step::Write {
            self.verdict.writes += 1;
            if let Some(generation) = self.generations.get_mut(turn.block as usize) {
                *generation += 1;
            }
            return Some(Step::After);
        }
        self.verdict.reads += 1;
        let found = self.content(slot);
        if found != Content::Whole(self.expected(turn.block)) {
            self.suspects.push((turn.block, found));
            return None;
        }
        (turn.step == Step::Before).then_some(Step::Write)
    }

    fn content(&mut self, slot: usize) -> Content {
        self.data
            .read(slot * self.area.size as usize, &mut self.bytes);
        stamp::read(&self.bytes)
    }

    /// Takes the evidence on every suspect, with nothing else outstanding, and mends what is wrong.
    fn examine(&mut self) -> Result<()> {
        let mut mended = Vec::new();
        for (block, first) in std::mem::take(&mut self.suspects) {
            if mended.contains(&block) {
                continue;
            }
            let again = self.look(block)?;
            let other = match again {
                Content::Whole(stamp) if stamp.block != block && stamp.block < self.area.blocks => {
                    let there = self.look(stamp.block)?;
                    Some((there, self.expected(stamp.block)))
                }
                _ => None,
            };
            let expected = self.expected(block);
            let evidence = Evidence {
                expected,
                first: &first,
                again: &again,
                other: other.as_ref().map(|(content, stamp)| (content, *stamp)),
            };
            if let Some(kind) = evidence.verdict() {
                *self.verdict.faults.entry(kind).or_default() += 1;
                if self.verdict.examples.len() < EXAMPLES {
                    let found = first;
                    self.verdict.examples.push(Fault {
                        kind,
                        expected,
                        found,
                    });
                }
            }
            for block in [Some(block), other.map(|(_, stamp)| stamp.block)]
                .into_iter()
                .flatten()
            {
                self.mend(block)?;
                mended.push(block);
            }
        }
        Ok(())
    }

    /// What a block holds now.
    fn look(&mut self, block: u64) -> Result<Content> {
        let step = Step::Scan;
        self.alone(Turn { block, step })?;
        Ok(self.content(0))
    }

    /// Writes a block again, until it is what it should be: the same fault may strike once more.
    fn mend(&mut self, block: u64) -> Result<()> {
        for _ in 0..4 {
            let step = Step::Write;
            self.alone(Turn { block, step })?;
            if let Some(generation) = self.generations.get_mut(block as usize) {
                *generation += 1;
            }
            self.verdict.writes += 1;
            if self.look(block)? == Content::Whole(self.expected(block)) {
                break;
            }
        }
        Ok(())
    }

    /// Does one request, in slot 0, with nothing else outstanding.
    fn alone(&mut self, turn: Turn) -> Result<()> {
        self.submit(turn)?;
        self.queue.flush()?;
        let done = self.requests.wait(&mut self.queue, DEFAULT_LIMIT)?;
        self.turns.fill(None);
        match done.status {
            Status::Ok => Ok(()),
            status => Err(DriverError::Device(format!("a request ended with {status:?}")).into()),
        }
    }
}
