//! The virtio transport: the virtio status machine and queue registers, shown as a PCI function.

pub mod device;

pub use device::{Identity, QueueStart, Start, TransportEvents, VirtioDevice};
