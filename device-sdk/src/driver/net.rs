//! Network frames (virtio 1.2, section 5.1).
//!
//! Every frame has a header in front of it. Without mergeable buffers one posted buffer must hold
//! a whole frame; with them a frame may fill several, which the device must complete together.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Driver;
use super::error::{DriverError, Result};
use super::memory::Window;
use super::queue::Queue;
use super::ring::{RingError, Segment};

/// The virtio device id (virtio 1.2, section 5).
pub const DEVICE_ID: u32 = 1;
/// The receive queue of pair 0; the pair's transmit queue follows it.
pub const RX: u16 = 0;
/// The transmit queue of pair 0.
pub const TX: u16 = 1;
/// Bytes in a frame's header, of a device that follows virtio 1.0 and later.
pub const HEADER_LEN: usize = 12;

/// Feature bit: the device takes frames whose checksum is not filled in.
pub const F_CSUM: u64 = 1 << 0;
/// Feature bit: the driver takes frames whose checksum is not filled in.
pub const F_GUEST_CSUM: u64 = 1 << 1;
/// Feature bit: the config space holds the MAC address.
pub const F_MAC: u64 = 1 << 5;
/// Feature bit: a received frame may fill several buffers.
pub const F_MRG_RXBUF: u64 = 1 << 15;
/// Feature bit: the config space holds the link's status.
pub const F_STATUS: u64 = 1 << 16;

/// The header of a frame (virtio 1.2, section 5.1.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// 1: the checksum is to be filled in; 2: the checksum was found good.
    pub flags: u8,
    /// 0: a plain frame; 1: TCP over IPv4 to be cut up; 4: TCP over IPv6.
    pub gso_type: u8,
    /// Bytes of headers repeated on each cut.
    pub hdr_len: u16,
    /// Bytes of payload in each cut.
    pub gso_size: u16,
    /// Where checksumming begins.
    pub csum_start: u16,
    /// Where, from there, the checksum is stored.
    pub csum_offset: u16,
    /// How many buffers the frame fills, with mergeable buffers.
    pub num_buffers: u16,
}

impl Header {
    /// The header as it lies in front of the frame.
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [self.flags, self.gso_type, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let words = [
            self.hdr_len,
            self.gso_size,
            self.csum_start,
            self.csum_offset,
            self.num_buffers,
        ];
        for (at, word) in words.iter().enumerate() {
            bytes[2 + 2 * at..4 + 2 * at].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The header in front of a frame.
    pub fn from_bytes(bytes: &[u8; HEADER_LEN]) -> Self {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            hdr_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
            num_buffers: word(10),
        }
    }
}

/// Frames to transmit, copied into buffers of the driver's.
#[derive(Debug)]
pub struct Transmit {
    buffers: Window,
    each: usize,
    free: Vec<u16>,
}

impl Transmit {
    /// Room for `depth` frames of at most `largest` bytes each.
    pub fn new(driver: &mut Driver, depth: u16, largest: usize) -> Result<Self> {
        let each = (HEADER_LEN + largest).next_multiple_of(64);
        let buffers = driver.allocate(each as u64 * u64::from(depth), 64)?;
        Ok(Self {
            buffers,
            each,
            free: (0..depth).rev().collect(),
        })
    }

    /// Adds a frame without showing it to the device: see [`Queue::flush`].
    pub fn add(&mut self, queue: &mut Queue, header: Header, frame: &[u8]) -> Result<()> {
        let Some(slot) = self.free.pop() else {
            return Err(RingError::Full { needed: 1, free: 0 }.into());
        };
        let at = usize::from(slot) * self.each;
        let buffer = self.buffers.part(at, self.each);
        buffer.write(0, &header.to_bytes());
        buffer.write(HEADER_LEN, frame);
        let chain = [Segment::readable(
            buffer.addr(),
            (HEADER_LEN + frame.len()) as u32,
        )];
        queue
            .add(&chain, u64::from(slot))
            .inspect_err(|_| self.free.push(slot))?;
        Ok(())
    }

    /// Takes back the buffers of frames that were sent; how many.
    pub fn reap(&mut self, queue: &mut Queue) -> Result<usize> {
        let mut reaped = 0;
        while let Some(used) = queue.poll()? {
            self.free.push(used.token as u16);
            reaped += 1;
        }
        Ok(reaped)
    }
}

/// A frame that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its header.
    pub header: Header,
    /// Its bytes, from the destination address on.
    pub data: Vec<u8>,
}

/// Posted receive buffers.
#[derive(Debug)]
pub struct Receive {
    buffers: Window,
    each: usize,
    mergeable: bool,
    ready: VecDeque<Frame>,
}

impl Receive {
    /// Posts `depth` buffers of `each` bytes, header included, and shows them to the device.
    pub fn new(driver: &mut Driver, queue: u16, depth: u16, each: usize) -> Result<Self> {
        let buffers = driver.allocate(each as u64 * u64::from(depth), 64)?;
        let mergeable = driver.has(F_MRG_RXBUF);
        let receive = Self {
            buffers,
            each,
            mergeable,
            ready: VecDeque::new(),
        };
        let queue = driver.queue(queue)?;
        for slot in 0..depth {
            receive.post(queue, slot)?;
        }
        queue.flush()?;
        Ok(receive)
    }

    /// The next frame, if one came in. Its buffers are posted again.
    pub fn poll(&mut self, queue: &mut Queue) -> Result<Option<Frame>> {
        if self.ready.is_empty() {
            self.collect(queue)?;
        }
        Ok(self.ready.pop_front())
    }

    /// The next frame, waited for at most `limit`.
    pub fn wait(&mut self, queue: &mut Queue, limit: Duration) -> Result<Frame> {
        let end = Instant::now() + limit;
        loop {
            if let Some(frame) = self.poll(queue)? {
                return Ok(frame);
            }
            if Instant::now() >= end {
                return Err(DriverError::Timeout {
                    queue: queue.index(),
                    limit,
                });
            }
            if !queue.ring_mut().arm() {
                queue.wait_call(end.saturating_duration_since(Instant::now()))?;
            }
        }
    }

    fn collect(&mut self, queue: &mut Queue) -> Result<()> {
        let Some(first) = queue.poll()? else {
            return Ok(());
        };
        let wrong = |reason: String| DriverError::Device(reason);
        let bytes = self.take(queue, first)?;
        let Some((header, data)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Err(wrong(format!(
                "a frame of {} bytes has no header",
                bytes.len()
            )));
        };
        let header = Header::from_bytes(header);
        let mut data = data.to_vec();
        let buffers = if self.mergeable {
            header.num_buffers
        } else {
            1
        };
        if buffers == 0 {
            return Err(wrong("a frame that fills no buffers".into()));
        }
        for _ in 1..buffers {
            // The device completes all of a frame's buffers at once, or Linux would drop it.
            let Some(used) = queue.poll()? else {
                return Err(wrong(format!(
                    "not all {buffers} buffers of a frame came together"
                )));
            };
            data.extend_from_slice(&self.take(queue, used)?);
        }
        self.ready.push_back(Frame { header, data });
        queue.flush()?;
        Ok(())
    }

    fn take(&self, queue: &mut Queue, used: super::Used) -> Result<Vec<u8>> {
        let written = used.written as usize;
        if written > self.each {
            let reason = format!("{written} bytes in a buffer of {}", self.each);
            return Err(DriverError::Device(reason));
        }
        let bytes = self
            .buffers
            .to_vec(used.token as usize * self.each, written);
        self.post(queue, used.token as u16)?;
        Ok(bytes)
    }

    fn post(&self, queue: &mut Queue, slot: u16) -> Result<()> {
        let addr = self.buffers.addr() + (usize::from(slot) * self.each) as u64;
        queue.add(
            &[Segment::writable(addr, self.each as u32)],
            u64::from(slot),
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_its_bytes() {
        let header = Header {
            flags: 1,
            gso_type: 4,
            hdr_len: 0x1234,
            gso_size: 0x5678,
            csum_start: 0x9abc,
            csum_offset: 0xdef0,
            num_buffers: 3,
        };
        let bytes = header.to_bytes();
        assert_eq!(bytes[..4], [1, 4, 0x34, 0x12]);
        assert_eq!(Header::from_bytes(&bytes), header);
    }
}
