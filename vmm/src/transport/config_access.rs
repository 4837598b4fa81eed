//! The PCI configuration access capability (virtio 1.2, 4.1.4.9): a window in config space onto
//! the virtio registers, for software that cannot map the BAR.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::capabilities::{NOTIFY, REGISTERS};
use crate::pci::ConfigSpace;

/// Offsets in the capability.
const BAR: u16 = 4;
const OFFSET: u16 = 8;
const LENGTH: u16 = 12;
const DATA: u16 = 16;
const END: u16 = 20;

/// What the driver aimed the window at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Aim {
    /// Offset in the registers' BAR.
    pub(super) offset: u64,
    /// 1, 2 or 4 bytes.
    pub(super) len: usize,
}

/// Where an access of `len` bytes at `offset` of config space goes, if it touches the window's
/// data. `None` also when the window is aimed at nothing that an access could reach.
pub(super) fn aim(config: &ConfigSpace, access: u16, offset: u16, len: usize) -> Option<Aim> {
    let data = usize::from(access.checked_add(DATA)?)..usize::from(access.checked_add(END)?);
    let start = usize::from(offset);
    if start >= data.end || start.checked_add(len)? <= data.start {
        return None;
    }
    let bar = config.word(access.checked_add(BAR)?) & 0xff;
    let target = u64::from(config.dword(access.checked_add(OFFSET)?));
    let length = config.dword(access.checked_add(LENGTH)?);
    let reachable = usize::from(bar) == REGISTERS
        && matches!(length, 1 | 2 | 4)
        && target.is_multiple_of(u64::from(length))
        && target < NOTIFY.end;
    reachable.then_some(Aim {
        offset: target,
        len: length as usize,
    })
}

/// The window's data.
pub(super) fn data(config: &ConfigSpace, access: u16) -> [u8; 4] {
    config.dword(access.saturating_add(DATA)).to_le_bytes()
}

/// Shows what a read through the window gave.
pub(super) fn set_data(config: &mut ConfigSpace, access: u16, data: [u8; 4]) {
    config.write(access.saturating_add(DATA), &data);
}
