//! The requests of each device class.

mod block;
mod frames;
mod plain;
mod relay;

use outboard_device::driver::{DriverError, Queue};

pub use block::{Area, Block};
pub use frames::{Frames, frame};
pub use plain::Plain;
pub use relay::Relay;

/// The requests of one queue, one in each of a number of slots.
pub trait Load {
    /// Adds the request of a slot that is free, unseen by the device as yet.
    fn add(&mut self, queue: &mut Queue, slot: u16) -> Result<(), DriverError>;

    /// Shows the device what was added. True if it had to be kicked.
    fn flush(&mut self, queue: &mut Queue) -> Result<bool, DriverError> {
        queue.flush()
    }

    /// Takes back one completed request, if there is one: its slot, and the bytes of data it moved.
    fn take(&mut self, queue: &mut Queue) -> Result<Option<(u16, u64)>, DriverError>;
}
