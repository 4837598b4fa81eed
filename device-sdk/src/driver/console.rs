//! Console bytes (virtio 1.2, section 5.3): port 0's two queues.

use std::time::Duration;

use super::Driver;
use super::connection::DEFAULT_LIMIT;
use super::error::{DriverError, Result};
use super::memory::Window;
use super::ring::Segment;

/// The virtio device id (virtio 1.2, section 5).
pub const DEVICE_ID: u32 = 3;
/// The queue of port 0 that brings bytes to the guest.
pub const RX: u16 = 0;
/// The queue of port 0 that takes bytes from the guest.
pub const TX: u16 = 1;

/// Feature bit: the config space holds the size of the terminal.
pub const F_SIZE: u64 = 1 << 0;

/// How many receive buffers are posted, and how large each is.
const RX_BUFFERS: u16 = 16;
const BUFFER: usize = 4096;

/// A console's port 0, one write at a time.
#[derive(Debug)]
pub struct Port {
    receive: Window,
    transmit: Window,
}

impl Port {
    /// Uses the driver's started queues [`RX`] and [`TX`]; posts buffers to receive into.
    pub fn new(driver: &mut Driver) -> Result<Self> {
        let receive = driver.allocate(BUFFER as u64 * u64::from(RX_BUFFERS), 4096)?;
        let transmit = driver.allocate(BUFFER as u64, 4096)?;
        let port = Self { receive, transmit };
        let queue = driver.queue(RX)?;
        for slot in 0..RX_BUFFERS {
            queue.add(&[port.buffer(slot)], u64::from(slot))?;
        }
        queue.flush()?;
        Ok(port)
    }

    /// Writes all of `data`, and returns when the device has taken it.
    pub fn write(&mut self, driver: &mut Driver, data: &[u8]) -> Result<()> {
        let queue = driver.queue(TX)?;
        for piece in data.chunks(BUFFER) {
            self.transmit.write(0, piece);
            queue.submit(
                &[Segment::readable(self.transmit.addr(), piece.len() as u32)],
                0,
            )?;
            queue.wait(DEFAULT_LIMIT)?;
        }
        Ok(())
    }

    /// The next bytes that came in, waited for at most `limit`.
    pub fn read(&mut self, driver: &mut Driver, limit: Duration) -> Result<Vec<u8>> {
        let queue = driver.queue(RX)?;
        let used = queue.wait(limit)?;
        let written = used.written as usize;
        if written > BUFFER {
            let reason = format!("{written} bytes in a buffer of {BUFFER}");
            return Err(DriverError::Device(reason));
        }
        let bytes = self.receive.to_vec(used.token as usize * BUFFER, written);
        queue.submit(&[self.buffer(used.token as u16)], used.token)?;
        Ok(bytes)
    }

    fn buffer(&self, slot: u16) -> Segment {
        let addr = self.receive.addr() + (usize::from(slot) * BUFFER) as u64;
        Segment::writable(addr, BUFFER as u32)
    }
}
