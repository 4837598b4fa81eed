//! The two ways a guest reaches config space: ports 0xcf8 and 0xcfc, and ECAM.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::root::PciRoot;
use crate::arch::x86_64::layout::{PCI_CONFIG_ADDRESS, PCI_CONFIG_DATA, RESET_CONTROL};
use crate::bus::BusDevice;

/// Address register: the data port reaches config space.
const ENABLE: u32 = 1 << 31;
/// Address register: the bits that hold something (PCI 3.0, 3.2.2.3.2).
const ADDRESS_BITS: u32 = ENABLE | 0x00ff_fffc;
/// The data port, from the start of the range.
const DATA: u64 = (PCI_CONFIG_DATA - PCI_CONFIG_ADDRESS) as u64;
/// The reset control register, from the start of the range.
const RESET: u64 = (RESET_CONTROL - PCI_CONFIG_ADDRESS) as u64;

/// Configuration mechanism 1: claims the 8 ports from [`PCI_CONFIG_ADDRESS`].
pub struct ConfigPorts {
    root: Arc<PciRoot>,
    address: AtomicU32,
    /// Chipset register that lies among ours.
    reset_control: Option<Arc<dyn BusDevice>>,
}

impl ConfigPorts {
    /// How many ports it claims.
    pub const LEN: u64 = 8;

    /// Ports that reach `root`. A byte access to the reset control register, which lies among
    /// them, goes to `reset_control` at offset 0.
    pub fn new(root: Arc<PciRoot>, reset_control: Option<Arc<dyn BusDevice>>) -> Self {
        Self {
            root,
            address: AtomicU32::new(0),
            reset_control,
        }
    }

    /// The VM resets.
    pub fn reset(&self) {
        self.address.store(0, Ordering::Relaxed);
    }

    /// Slot and register that a data access of `len` bytes at `offset` means. `None`: no function
    /// of ours, or across the register's end.
    fn target(&self, offset: u64, len: usize) -> Option<(u8, u16)> {
        let address = self.address.load(Ordering::Relaxed);
        let byte = u16::try_from(offset.checked_sub(DATA)?).ok()?;
        let within = usize::from(byte)
            .checked_add(len)
            .is_some_and(|end| end <= 4);
        // Bus 0, function 0.
        let ours = address & 0x00ff_0700 == 0;
        let slot = (address >> 11 & 0x1f) as u8;
        (address & ENABLE != 0 && ours && within).then_some((slot, (address & 0xfc) as u16 | byte))
    }
}

impl BusDevice for ConfigPorts {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let (RESET, [_], Some(reset)) = (offset, &mut *data, &self.reset_control) {
            reset.read(0, data);
        } else if offset < DATA {
            // Only a whole access reaches the address register; drivers probe for that.
            if let (0, Ok(data)) = (offset, <&mut [u8; 4]>::try_from(data)) {
                *data = self.address.load(Ordering::Relaxed).to_le_bytes();
            }
        } else if let Some((slot, register)) = self.target(offset, data.len()) {
            self.root.config_read(slot, register, data);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let (RESET, [_], Some(reset)) = (offset, data, &self.reset_control) {
            reset.write(0, data);
        } else if offset < DATA {
            if let (0, Ok(data)) = (offset, <[u8; 4]>::try_from(data)) {
                let address = u32::from_le_bytes(data) & ADDRESS_BITS;
                self.address.store(address, Ordering::Relaxed);
            }
        } else if let Some((slot, register)) = self.target(offset, data.len()) {
            self.root.config_write(slot, register, data);
        }
    }
}

/// The enhanced configuration access mechanism: 4 KiB of memory for each function
/// (PCI Express 5.0, 7.2.2), here of 256 buses of which only bus 0 has any.
pub struct Ecam(Arc<PciRoot>);

impl Ecam {
    /// Memory that reaches `root`.
    pub fn new(root: Arc<PciRoot>) -> Self {
        Self(root)
    }

    /// Slot and register of an offset; `None` where no function of ours can be.
    fn target(offset: u64) -> Option<(u8, u16)> {
        let slot = u8::try_from(offset >> 15).ok().filter(|slot| *slot < 32)?;
        let function = offset >> 12 & 7;
        (function == 0).then_some((slot, (offset & 0xfff) as u16))
    }
}

impl BusDevice for Ecam {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match Self::target(offset) {
            Some((slot, register)) => self.0.config_read(slot, register, data),
            None => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Some((slot, register)) = Self::target(offset) {
            self.0.config_write(slot, register, data);
        }
    }
}
