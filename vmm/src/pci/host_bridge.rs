//! The host bridge: slot 0 of bus 0, a name for operating systems to find the bus by.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::Mutex;

use super::config_space::{ConfigSpace, Ids};
use super::function::PciFunction;
use super::lock;

/// Red Hat's generic PCI Express host bridge, which no operating system has quirks for.
const IDS: Ids = Ids {
    vendor: 0x1b36,
    device: 0x0008,
    revision: 0,
    class: 0x06_0000,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
};

/// The host bridge function: a config space and nothing behind it.
#[derive(Debug)]
pub struct HostBridge(Mutex<ConfigSpace>);

impl HostBridge {
    /// A host bridge as after power-on.
    pub fn new() -> Self {
        Self(Mutex::new(ConfigSpace::new(IDS)))
    }
}

impl Default for HostBridge {
    fn default() -> Self {
        Self::new()
    }
}

impl PciFunction for HostBridge {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        lock(&self.0).read(offset, data);
    }

    fn config_write(&self, offset: u16, data: &[u8]) {
        lock(&self.0).write(offset, data);
    }

    fn reset(&self) {
        lock(&self.0).reset();
    }
}
