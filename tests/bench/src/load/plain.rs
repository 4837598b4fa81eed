//! Requests of one buffer: entropy to be filled in, console bytes and frames to be taken away.

use outboard_device::driver::net::{HEADER_LEN, Header};
use outboard_device::driver::{Driver, DriverError, Queue, Segment, Window};

use super::Load;
use super::frame;
use crate::case::{Case, Path};
use crate::error::Result;

/// Requests of one buffer each.
#[derive(Debug)]
pub struct Plain {
    buffers: Window,
    /// Bytes from one buffer to the next.
    stride: usize,
    len: u32,
    /// What the device adds or takes that is no data.
    overhead: u64,
    writable: bool,
}

impl Plain {
    /// Buffers for every slot of a queue.
    pub fn new(driver: &mut Driver, case: &Case) -> Result<Self> {
        let overhead = if case.path == Path::Net {
            HEADER_LEN
        } else {
            0
        };
        let len = case.size.0 as usize + overhead;
        let stride = len.next_multiple_of(64);
        let buffers = driver.allocate(stride as u64 * u64::from(case.depth), 4096)?;
        for slot in 0..usize::from(case.depth) {
            let buffer = buffers.part(slot * stride, len);
            match case.path {
                Path::Net => {
                    buffer.write(0, &Header::default().to_bytes());
                    buffer.write(HEADER_LEN, &frame(len - HEADER_LEN, slot as u16));
                }
                _ => buffer.fill(b'.'),
            }
        }
        Ok(Self {
            buffers,
            stride,
            len: len as u32,
            overhead: overhead as u64,
            writable: case.path == Path::Rng,
        })
    }
}

impl Load for Plain {
    #[inline]
    fn add(&mut self, queue: &mut Queue, slot: u16) -> std::result::Result<(), DriverError> {
        let addr = self.buffers.addr() + (usize::from(slot) * self.stride) as u64;
        let segment = if self.writable {
            Segment::writable(addr, self.len)
        } else {
            Segment::readable(addr, self.len)
        };
        Ok(queue.add(&[segment], u64::from(slot))?)
    }

    #[inline]
    fn take(&mut self, queue: &mut Queue) -> std::result::Result<Option<(u16, u64)>, DriverError> {
        let Some(used) = queue.poll()? else {
            return Ok(None);
        };
        let bytes = if self.writable {
            u64::from(used.written.min(self.len))
        } else {
            u64::from(self.len) - self.overhead
        };
        Ok(Some((used.token as u16, bytes)))
    }
}
