//! What the driver has made of a device, for people to look at.

use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::machine::{DRIVER_OK, FAILED, NEEDS_RESET};

/// A device at one moment, as its driver drives it.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The device status register (virtio 1.2, 2.1).
    pub status: u8,
    /// The features the device offers.
    pub offered: u64,
    /// Those the driver has written so far.
    pub taken: u64,
    /// Every queue, in order.
    pub queues: Vec<QueueSnapshot>,
}

/// A queue at one moment.
#[derive(Debug, Clone)]
pub struct QueueSnapshot {
    /// Its number.
    pub index: u16,
    /// Number of descriptors.
    pub size: u16,
    /// The driver uses it.
    pub enabled: bool,
    /// Its MSI-X vector, if it has one.
    pub vector: Option<u16>,
    /// Guest physical addresses of the 16-bit indices of its available and used rings, which lie in
    /// RAM; `None` for a packed ring, which has none, and for a queue that is not enabled.
    pub indices: Option<(u64, u64)>,
    /// What the driver signals; `None` of a queue that is not enabled.
    pub kick: Option<Arc<EventFd>>,
}

impl Snapshot {
    /// What its driver is up to, in a word or two.
    pub fn driver(&self) -> &'static str {
        match self.status {
            0 => "none",
            status if status & FAILED != 0 => "failed",
            status if status & NEEDS_RESET != 0 => "needs reset",
            status if status & DRIVER_OK != 0 => "running",
            _ => "starting",
        }
    }
}
