//! Frames that come in, by themselves or as the echo of others.

use outboard_device::driver::net::{HEADER_LEN, Header};
use outboard_device::driver::{Driver, DriverError, Queue, Segment, Window};

use super::Load;
use crate::case::{Case, Op};
use crate::error::Result;
use crate::wire::{ETHERNET, ETHERTYPE};

/// A frame of `len` bytes: to everybody, of the bench's type, with a number, and filled so that each byte
/// depends on it and on its place.
pub fn frame(len: usize, number: u16) -> Vec<u8> {
    let mut frame = b"\xff\xff\xff\xff\xff\xff\x02\x0b\x0e\x0c\x00\x01".to_vec();
    frame.extend(ETHERTYPE.to_be_bytes());
    frame.extend(number.to_be_bytes());
    let seed = number.wrapping_mul(0x9e37);
    frame.extend(
        (frame.len()..len.max(frame.len()))
            .map(|at| (at as u16 ^ seed).wrapping_mul(0xa5e1).to_be_bytes()[0]),
    );
    frame
}

/// The frames of a card's receive queue, which is the lane's.
#[derive(Debug)]
pub struct Frames {
    buffers: Buffers,
    /// When frames are sent to be sent back: the transmit queue, and the frames.
    sent: Option<(Queue, Buffers)>,
    len: usize,
    bytes: Vec<u8>,
}

/// Room for a number of frames.
#[derive(Debug)]
pub(super) struct Buffers {
    pub(super) window: Window,
    pub(super) each: usize,
}

impl Buffers {
    pub(super) fn new(driver: &mut Driver, count: u16, each: usize) -> Result<Self> {
        let each = each.next_multiple_of(64);
        let window = driver.allocate(each as u64 * u64::from(count), 4096)?;
        Ok(Self { window, each })
    }

    pub(super) fn addr(&self, slot: u16) -> u64 {
        self.window.addr() + (usize::from(slot) * self.each) as u64
    }
}

impl Frames {
    /// Of a case; `transmit` is started, and `None` where frames come by themselves.
    pub fn new(driver: &mut Driver, case: &Case, transmit: Option<Queue>) -> Result<Self> {
        let len = case.size.0 as usize;
        let buffers = Buffers::new(driver, case.depth, HEADER_LEN + len)?;
        let sent = match transmit {
            Some(queue) => {
                let frames = Buffers::new(driver, case.depth, HEADER_LEN + len)?;
                for slot in 0..case.depth {
                    let at = usize::from(slot) * frames.each;
                    frames.window.write(at, &Header::default().to_bytes());
                    frames.window.write(at + HEADER_LEN, &frame(len, slot));
                }
                Some((queue, frames))
            }
            None => None,
        };
        let bytes = vec![0; len];
        Ok(Self {
            buffers,
            sent,
            len,
            bytes,
        })
    }

    /// What a case of a card asks of it is done by this load.
    pub fn does(op: Op) -> bool {
        matches!(op, Op::Read | Op::Echo)
    }

    /// The number of the frame in a buffer, if all of it is as it was sent.
    fn number(&mut self, buffer: u16) -> Option<u16> {
        let at = usize::from(buffer) * self.buffers.each + HEADER_LEN;
        self.buffers.window.read(at, &mut self.bytes);
        let number = self.bytes.get(ETHERNET..ETHERNET + 2)?.try_into().ok();
        let number = u16::from_be_bytes(number?);
        (self.bytes == frame(self.len, number)).then_some(number)
    }
}

impl Load for Frames {
    /// Posts a buffer, and sends a frame that will come back in it or in another.
    #[inline]
    fn add(&mut self, queue: &mut Queue, slot: u16) -> std::result::Result<(), DriverError> {
        let len = (HEADER_LEN + self.len) as u32;
        queue.add(
            &[Segment::writable(self.buffers.addr(slot), len)],
            u64::from(slot),
        )?;
        if let Some((transmit, frames)) = &mut self.sent {
            // The buffer must be there before the frame is.
            queue.flush()?;
            while transmit.poll()?.is_some() {}
            transmit.submit(
                &[Segment::readable(frames.addr(slot), len)],
                u64::from(slot),
            )?;
        }
        Ok(())
    }

    #[inline]
    fn take(&mut self, queue: &mut Queue) -> std::result::Result<Option<(u16, u64)>, DriverError> {
        let Some(used) = queue.poll()? else {
            return Ok(None);
        };
        let wanted = HEADER_LEN + self.len;
        if used.written as usize != wanted {
            let failed = format!("a frame of {} bytes came, of {wanted} sent", used.written);
            return Err(DriverError::Device(failed));
        }
        let buffer = used.token as u16;
        let data = self.len as u64;
        if self.sent.is_none() {
            return Ok(Some((buffer, data)));
        }
        match self.number(buffer) {
            // Frames keep their order, and so do buffers: the frame is its buffer's.
            Some(number) if number == buffer => Ok(Some((buffer, data))),
            Some(number) => Err(DriverError::Device(format!(
                "frame {number} came in the place of frame {buffer}"
            ))),
            None => Err(DriverError::Device(
                "a frame came back other than it was sent".into(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_differ_by_their_number() {
        assert_eq!(frame(64, 1).len(), 64);
        assert_eq!(frame(60, 7)[14..16], [0, 7]);
        let (one, two) = (frame(1500, 1), frame(1500, 2));
        let same = one
            .iter()
            .zip(&two)
            .skip(16)
            .filter(|(a, b)| a == b)
            .count();
        assert!(same < 100, "{same}");
    }
}
