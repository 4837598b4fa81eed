//! Block requests (virtio 1.2, section 5.2).
//!
//! A [`BlockQueue`] owns a header and a status byte for each request that can be outstanding, so
//! that submitting writes 16 bytes and one chain. Data stays where the caller put it.

use std::time::Duration;

use super::error::{DriverError, Result};
use super::memory::Window;
use super::queue::Queue;
use super::ring::Segment;
use super::{Driver, connection};

/// The virtio device id (virtio 1.2, section 5).
pub const DEVICE_ID: u32 = 2;
/// Bytes in a sector: the unit of every address and length on the wire.
pub const SECTOR: u64 = 512;
/// Bytes `GET_ID` writes.
pub const ID_LEN: usize = 20;

/// Feature bit: the device is read-only.
pub const F_RO: u64 = 1 << 5;
/// Feature bit: FLUSH is understood.
pub const F_FLUSH: u64 = 1 << 9;
/// Feature bit: there is more than one queue.
pub const F_MQ: u64 = 1 << 12;
/// Feature bit: DISCARD is understood.
pub const F_DISCARD: u64 = 1 << 13;
/// Feature bit: `WRITE_ZEROES` is understood.
pub const F_WRITE_ZEROES: u64 = 1 << 14;

/// The kinds of request (virtio 1.2, section 5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// Reads sectors.
    In = 0,
    /// Writes sectors.
    Out = 1,
    /// Makes what was written durable.
    Flush = 4,
    /// Reads the serial number.
    GetId = 8,
    /// Tells the device that sectors are of no use any more.
    Discard = 11,
    /// Zeroes sectors.
    WriteZeroes = 13,
}

/// The status byte of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Done.
    Ok,
    /// The device failed to do it.
    IoError,
    /// The device does not know the kind.
    Unsupported,
    /// Nothing the specification knows; 0xff is what this driver puts there beforehand.
    Other(u8),
}

impl From<u8> for Status {
    fn from(byte: u8) -> Self {
        match byte {
            0 => Self::Ok,
            1 => Self::IoError,
            2 => Self::Unsupported,
            other => Self::Other(other),
        }
    }
}

/// A completed block request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// What the caller gave with the request.
    pub token: u64,
    /// The device's verdict.
    pub status: Status,
    /// How many bytes the device says it wrote, status byte included.
    pub written: u32,
}

/// Bytes from one request's header to the next one's: header, status, and room to keep the
/// status byte on a line apart from the header's.
const SLOT: usize = 128;
const STATUS_AT: usize = 64;

/// The most data segments one request takes.
pub const MAX_SEGMENTS: usize = 126;

/// Block requests on one queue.
#[derive(Debug)]
pub struct BlockQueue {
    slots: Window,
    free: Vec<u16>,
    tokens: Box<[u64]>,
    chain: Vec<Segment>,
}

impl BlockQueue {
    /// Room for `depth` outstanding requests.
    pub fn new(driver: &mut Driver, depth: u16) -> Result<Self> {
        let slots = driver.allocate(SLOT as u64 * u64::from(depth), SLOT as u64)?;
        Ok(Self {
            slots,
            free: (0..depth).rev().collect(),
            tokens: vec![0; usize::from(depth)].into(),
            chain: Vec::with_capacity(MAX_SEGMENTS + 2),
        })
    }

    /// How many more requests can be outstanding.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Adds a request without showing it to the device: see [`Queue::flush`].
    ///
    /// `data` lies between the header and the status byte, as the kind wants it: writable for
    /// [`Kind::In`], readable for [`Kind::Out`]. At most [`MAX_SEGMENTS`].
    #[inline]
    pub fn add(
        &mut self,
        queue: &mut Queue,
        kind: Kind,
        sector: u64,
        data: &[Segment],
        token: u64,
    ) -> Result<()> {
        self.add_raw(queue, kind as u32, sector, data, token)
    }

    /// As [`BlockQueue::add`], of any kind, known or not.
    #[inline]
    pub fn add_raw(
        &mut self,
        queue: &mut Queue,
        kind: u32,
        sector: u64,
        data: &[Segment],
        token: u64,
    ) -> Result<()> {
        use std::sync::atomic::Ordering::Relaxed;
        let full = super::ring::RingError::Full {
            needed: data.len() + 2,
            free: 0,
        };
        if data.len() > MAX_SEGMENTS {
            return Err(full.into());
        }
        let Some(slot) = self.free.pop() else {
            return Err(full.into());
        };
        let at = usize::from(slot) * SLOT;
        // Type in the low half, reserved (was: priority) in the high half.
        self.slots.store_u64(at, u64::from(kind), Relaxed);
        self.slots.store_u64(at + 8, sector, Relaxed);
        self.slots.store_u32(at + STATUS_AT, 0xff, Relaxed);
        let addr = self.slots.addr() + at as u64;
        self.chain.clear();
        self.chain.push(Segment::readable(addr, 16));
        self.chain.extend_from_slice(data);
        self.chain
            .push(Segment::writable(addr + STATUS_AT as u64, 1));
        match queue.add(&self.chain, u64::from(slot)) {
            Ok(()) => {
                self.tokens[usize::from(slot)] = token;
                Ok(())
            }
            Err(error) => {
                self.free.push(slot);
                Err(error.into())
            }
        }
    }

    /// Takes back one completed request, if there is one.
    #[inline]
    pub fn poll(&mut self, queue: &mut Queue) -> Result<Option<Done>> {
        Ok(queue.poll()?.map(|used| self.finish(used)))
    }

    /// Takes back one completed request, sleeping for at most `limit`.
    pub fn wait(&mut self, queue: &mut Queue, limit: Duration) -> Result<Done> {
        let used = queue.wait(limit)?;
        Ok(self.finish(used))
    }

    fn finish(&mut self, used: super::Used) -> Done {
        let slot = used.token as usize;
        let mut status = [0];
        self.slots.read(slot * SLOT + STATUS_AT, &mut status);
        self.free.push(slot as u16);
        Done {
            token: self.tokens[slot],
            status: Status::from(status[0]),
            written: used.written,
        }
    }
}

/// A block device used one request at a time, with data copied in and out: for tests.
pub struct Disk<'a> {
    driver: &'a mut Driver,
    index: u16,
    requests: BlockQueue,
    bounce: Window,
}

impl<'a> Disk<'a> {
    /// Drives the started queue `index`, in transfers of at most `largest` bytes.
    pub fn new(driver: &'a mut Driver, index: u16, largest: u64) -> Result<Self> {
        let requests = BlockQueue::new(driver, 1)?;
        let bounce = driver.allocate(largest.max(SECTOR), 4096)?;
        Ok(Self {
            driver,
            index,
            requests,
            bounce,
        })
    }

    /// The disk's size in sectors, from its config space.
    pub fn sectors(&mut self) -> Result<u64> {
        let mut capacity = [0; 8];
        self.driver.read_config(0, &mut capacity)?;
        Ok(u64::from_le_bytes(capacity))
    }

    /// Does one request with at most one data segment, and says how it ended.
    pub fn request(&mut self, kind: u32, sector: u64, data: Option<Segment>) -> Result<Status> {
        let queue = self.driver.queue(self.index)?;
        self.requests
            .add_raw(queue, kind, sector, data.as_slice(), 0)?;
        queue.flush()?;
        Ok(self.requests.wait(queue, connection::DEFAULT_LIMIT)?.status)
    }

    /// Reads whole sectors.
    pub fn read(&mut self, sector: u64, data: &mut [u8]) -> Result<()> {
        let segment = Segment::writable(self.bounce.addr(), data.len() as u32);
        let status = self.request(Kind::In as u32, sector, Some(segment))?;
        self.bounce.read(0, data);
        done("read", status)
    }

    /// Writes whole sectors.
    pub fn write(&mut self, sector: u64, data: &[u8]) -> Result<()> {
        self.bounce.write(0, data);
        let segment = Segment::readable(self.bounce.addr(), data.len() as u32);
        done(
            "write",
            self.request(Kind::Out as u32, sector, Some(segment))?,
        )
    }

    /// Makes what was written durable.
    pub fn flush(&mut self) -> Result<()> {
        done("flush", self.request(Kind::Flush as u32, 0, None)?)
    }

    /// Discards sectors.
    pub fn discard(&mut self, sector: u64, sectors: u32) -> Result<()> {
        done("discard", self.range(Kind::Discard, sector, sectors, 0)?)
    }

    /// Zeroes sectors; `unmap` allows the device to give their space back.
    pub fn write_zeroes(&mut self, sector: u64, sectors: u32, unmap: bool) -> Result<()> {
        done(
            "write zeroes",
            self.range(Kind::WriteZeroes, sector, sectors, u32::from(unmap))?,
        )
    }

    /// The serial number, without the zeroes that end it.
    pub fn id(&mut self) -> Result<Vec<u8>> {
        self.bounce.part(0, ID_LEN).fill(0xee);
        let segment = Segment::writable(self.bounce.addr(), ID_LEN as u32);
        done(
            "get-id",
            self.request(Kind::GetId as u32, 0, Some(segment))?,
        )?;
        let mut id = self.bounce.to_vec(0, ID_LEN);
        if let Some(end) = id.iter().position(|&byte| byte == 0) {
            id.truncate(end);
        }
        Ok(id)
    }

    /// Sends a discard or write-zeroes request of one range (virtio 1.2, section 5.2.6.2).
    pub fn range(&mut self, kind: Kind, sector: u64, sectors: u32, flags: u32) -> Result<Status> {
        self.bounce.write(0, &sector.to_le_bytes());
        self.bounce.write(8, &sectors.to_le_bytes());
        self.bounce.write(12, &flags.to_le_bytes());
        let segment = Segment::readable(self.bounce.addr(), 16);
        self.request(kind as u32, 0, Some(segment))
    }
}

fn done(what: &str, status: Status) -> Result<()> {
    match status {
        Status::Ok => Ok(()),
        other => Err(DriverError::Device(format!("{what} ended with {other:?}"))),
    }
}
