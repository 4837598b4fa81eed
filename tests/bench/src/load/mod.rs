//! The requests of each device class.

mod block;
mod frames;
mod plain;

use outboard_device::driver::{DriverError, Queue};

pub use block::{Area, Block};
pub use frames::{Frames, frame};
pub use plain::Plain;

/// The requests of one queue, one in each of a number of slots.
pub trait Load {
    /// Adds the request of a slot that is free, unseen by the device as yet.
    fn add(&mut self, queue: &mut Queue, slot: u16) -> Result<(), DriverError>;

    /// Takes back one completed request, if there is one: its slot, and the bytes of data it moved.
    fn take(&mut self, queue: &mut Queue) -> Result<Option<(u16, u64)>, DriverError>;
}
