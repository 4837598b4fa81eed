//! Block requests.

use outboard_device::driver::block::{BlockQueue, Kind, SECTOR, Status};
use outboard_device::driver::{Driver, DriverError, Queue, Segment, Window};

use super::Load;
use crate::bytes::Bytes;
use crate::case::{Case, Op, Path, Pattern};
use crate::error::{Error, Result};

/// The blocks of a disk that are used.
#[derive(Clone, Copy, Debug)]
pub struct Area {
    /// Bytes in a block.
    pub size: u32,
    /// How many there are.
    pub blocks: u64,
}

impl Area {
    /// As many blocks of that size as the disk holds.
    pub fn of(driver: &mut Driver, size: Bytes) -> Result<Self> {
        if size.0 == 0 || !size.0.is_multiple_of(SECTOR) || size.0 > 16 << 20 {
            return Err(Error::Unfit(format!(
                "a block of {size} is not 1 to 32768 whole sectors of {SECTOR} bytes"
            )));
        }
        let mut capacity = [0; 8];
        driver.read_config(0, &mut capacity)?;
        let sectors = u64::from_le_bytes(capacity);
        let blocks = sectors / (size.0 / SECTOR);
        if blocks == 0 {
            return Err(Error::Unfit(format!(
                "the disk has {sectors} sectors, less than one block of {size}"
            )));
        }
        Ok(Self {
            size: size.0 as u32,
            blocks,
        })
    }

    /// The first sector of a block.
    pub fn sector(&self, block: u64) -> u64 {
        block * (u64::from(self.size) / SECTOR)
    }
}

/// Block requests of one queue.
#[derive(Debug)]
pub struct Block {
    requests: BlockQueue,
    data: Window,
    area: Area,
    op: Op,
    pattern: Pattern,
    /// The data of a request is in this many pieces.
    pieces: u32,
    next: u64,
    random: fastrand::Rng,
}

impl Block {
    /// Descriptors that a request of `path` takes.
    pub fn descriptors(path: Path) -> u16 {
        2 + Self::pieces(path)
    }

    /// Of the bare ring two, as a guest's pages that do not touch each other.
    fn pieces(path: Path) -> u16 {
        if path == Path::Null { 2 } else { 1 }
    }

    /// `slot`s for a queue that is one of several: each queue begins elsewhere.
    pub fn new(driver: &mut Driver, case: &Case, area: Area, queue: u16) -> Result<Self> {
        let requests = BlockQueue::new(driver, case.depth)?;
        let data = driver.allocate(u64::from(area.size) * u64::from(case.depth), 4096)?;
        let mut random = fastrand::Rng::with_seed(u64::from(queue) + 1);
        // What is written cannot be compressed or recognised as zeroes.
        let mut bytes = vec![0; data.len()];
        random.fill(&mut bytes);
        data.write(0, &bytes);
        Ok(Self {
            requests,
            data,
            area,
            op: case.op,
            pattern: case.pattern,
            pieces: u32::from(Self::pieces(case.path)),
            next: area.blocks / u64::from(case.queues) * u64::from(queue),
            random,
        })
    }

    fn block(&mut self) -> u64 {
        match self.pattern {
            Pattern::Random => self.random.u64(..self.area.blocks),
            Pattern::Sequential => {
                let block = self.next;
                self.next = if block + 1 < self.area.blocks {
                    block + 1
                } else {
                    0
                };
                block
            }
        }
    }

    fn kind(&mut self) -> Kind {
        match self.op {
            Op::Read => Kind::In,
            Op::Flush => Kind::Flush,
            Op::Mixed if self.random.u8(..10) < 7 => Kind::In,
            Op::Mixed | Op::Write | Op::Echo => Kind::Out,
        }
    }
}

impl Load for Block {
    #[inline]
    fn add(&mut self, queue: &mut Queue, slot: u16) -> std::result::Result<(), DriverError> {
        let kind = self.kind();
        if kind == Kind::Flush {
            return self.requests.add(queue, kind, 0, &[], u64::from(slot));
        }
        let block = self.block();
        let sector = self.area.sector(block);
        let len = self.area.size / self.pieces;
        let start = self.data.addr() + u64::from(self.area.size) * u64::from(slot);
        let piece = |n: u32| {
            let addr = start + u64::from(n * len);
            match kind {
                Kind::In => Segment::writable(addr, len),
                _ => Segment::readable(addr, len),
            }
        };
        let pieces = [piece(0), piece(1)];
        let pieces = pieces.get(..self.pieces as usize).unwrap_or(&pieces);
        self.requests
            .add(queue, kind, sector, pieces, u64::from(slot))
    }

    #[inline]
    fn take(&mut self, queue: &mut Queue) -> std::result::Result<Option<(u16, u64)>, DriverError> {
        let Some(done) = self.requests.poll(queue)? else {
            return Ok(None);
        };
        if done.status != Status::Ok {
            let failed = format!("a {:?} request ended with {:?}", self.op, done.status);
            return Err(DriverError::Device(failed));
        }
        let bytes = if self.op == Op::Flush {
            0
        } else {
            u64::from(self.area.size)
        };
        Ok(Some((done.token as u16, bytes)))
    }
}
