//! Frames from one port of a switch to another.

use std::time::Duration;

use outboard_device::driver::net::{HEADER_LEN, Header};
use outboard_device::driver::{Driver, DriverError, Queue, Segment};

use super::Load;
use super::frames::{Buffers, frame};
use crate::case::{Case, Path};
use crate::error::Result;

/// The addresses of both guests.
const RECEIVER: [u8; 6] = *b"\x02\x0b\x0e\x0c\x00\x02";
const SENDER: [u8; 6] = *b"\x02\x0b\x0e\x0c\x00\x01";
/// Where a frame's number is: behind addresses and type.
const NUMBER: usize = 14;
/// Of so many frames all bytes are compared of one, and of each those that share a cache line with its
/// header: whoever reads all of each measures that.
const LOOK: u32 = 64;
const START: usize = 64 - HEADER_LEN;
/// The shortest frame on a cable, without its checksum.
const SHORTEST: usize = 60;
/// After so many frames the sender says again that it wants no interrupts: the wish is good for 32768.
const RENEWAL: u32 = 8192;
/// How long the switch may take to hear of the receiver.
const LIMIT: Duration = Duration::from_secs(5);

/// What is sent by one guest's transmit queue, and comes in by the other's receive queue, the lane's.
#[derive(Debug)]
pub struct Relay {
    transmit: Queue,
    frames: Buffers,
    buffers: Buffers,
    /// Each slot's frame.
    sent: Vec<Vec<u8>>,
    /// The buffers are posted.
    posted: bool,
    /// Bytes of a frame.
    len: usize,
    bytes: Vec<u8>,
    looked: u32,
}

impl Relay {
    /// Buffers that a case posts: twice as many as there are frames under way, so that none is ever lost.
    pub fn buffers(case: &Case) -> u16 {
        match case.path {
            Path::Switch => case.depth.saturating_mul(2),
            _ => 0,
        }
    }

    /// Has the switch hear where the receiver is, from its transmit queue.
    pub fn hello(receiver: &mut Driver, mut transmit: Queue) -> Result<()> {
        let frame = addressed([0xff; 6], RECEIVER, frame(SHORTEST, 0));
        let buffer = receiver.allocate((HEADER_LEN + SHORTEST) as u64, 64)?;
        buffer.write(0, &Header::default().to_bytes());
        buffer.write(HEADER_LEN, &frame);
        transmit.submit(
            &[Segment::readable(
                buffer.addr(),
                (HEADER_LEN + SHORTEST) as u32,
            )],
            0,
        )?;
        transmit.wait(LIMIT)?;
        receiver.put_queue(transmit);
        Ok(())
    }

    /// Between two guests of a switch; `transmit` is the sender's, started.
    pub fn new(
        receiver: &mut Driver,
        sender: &mut Driver,
        transmit: Queue,
        case: &Case,
    ) -> Result<Self> {
        let len = case.size.0 as usize;
        let frames = Buffers::new(sender, case.depth, HEADER_LEN + len)?;
        let sent: Vec<_> = (0..case.depth)
            .map(|slot| addressed(RECEIVER, SENDER, frame(len, slot)))
            .collect();
        for (slot, frame) in sent.iter().enumerate() {
            let at = slot * frames.each;
            frames.window.write(at, &Header::default().to_bytes());
            frames.window.write(at + HEADER_LEN, frame);
        }
        Ok(Self {
            transmit,
            frames,
            buffers: Buffers::new(receiver, Self::buffers(case), HEADER_LEN + len)?,
            sent,
            posted: false,
            len,
            bytes: vec![0; len],
            looked: 0,
        })
    }

    fn post(&self, queue: &mut Queue, buffer: u16) -> std::result::Result<(), DriverError> {
        let (addr, len) = (self.buffers.addr(buffer), (HEADER_LEN + self.len) as u32);
        Ok(queue.add(&[Segment::writable(addr, len)], u64::from(buffer))?)
    }

    /// The slot whose frame is in a buffer.
    #[inline]
    fn slot(&mut self, buffer: u16) -> Option<u16> {
        self.looked = self.looked.wrapping_add(1);
        let all = self.looked.is_multiple_of(LOOK);
        let bytes = self.bytes.get_mut(..if all { self.len } else { START })?;
        let at = usize::from(buffer) * self.buffers.each + HEADER_LEN;
        self.buffers.window.read(at, bytes);
        let number = u16::from_be_bytes(bytes.get(NUMBER..NUMBER + 2)?.try_into().ok()?);
        let sent = self.sent.get(usize::from(number))?;
        sent.starts_with(bytes).then_some(number)
    }
}

impl Load for Relay {
    #[inline]
    fn add(&mut self, queue: &mut Queue, slot: u16) -> std::result::Result<(), DriverError> {
        if !self.posted {
            self.posted = true;
            for buffer in 0..self.sent.len() as u16 * 2 {
                self.post(queue, buffer)?;
            }
            queue.flush()?;
            self.transmit.ring_mut().disarm();
        }
        let segment = Segment::readable(self.frames.addr(slot), (HEADER_LEN + self.len) as u32);
        // A frame may have come before its sender is told.
        while self.transmit.poll()?.is_some() {}
        Ok(self.transmit.add(&[segment], u64::from(slot))?)
    }

    #[inline]
    fn flush(&mut self, queue: &mut Queue) -> std::result::Result<bool, DriverError> {
        let posted = queue.flush()?;
        Ok(self.transmit.flush()? || posted)
    }

    #[inline]
    fn take(&mut self, queue: &mut Queue) -> std::result::Result<Option<(u16, u64)>, DriverError> {
        let Some(used) = queue.poll()? else {
            return Ok(None);
        };
        let buffer = used.token as u16;
        if used.written as usize != HEADER_LEN + self.len {
            let (written, len) = (used.written, HEADER_LEN + self.len);
            return Err(DriverError::Device(format!(
                "{written} bytes came, of {len} sent"
            )));
        }
        let slot = self
            .slot(buffer)
            .ok_or_else(|| DriverError::Device("a frame came in other than it was sent".into()))?;
        self.post(queue, buffer)?;
        if self.looked.is_multiple_of(RENEWAL) {
            self.transmit.ring_mut().disarm();
        }
        Ok(Some((slot, self.len as u64)))
    }
}

fn addressed(to: [u8; 6], from: [u8; 6], mut frame: Vec<u8>) -> Vec<u8> {
    for (place, byte) in frame.iter_mut().zip(to.into_iter().chain(from)) {
        *place = byte;
    }
    frame
}
