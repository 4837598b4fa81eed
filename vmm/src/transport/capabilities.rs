//! How a virtio device looks in PCI config space (virtio 1.2, 4.1.2 to 4.1.4): ids, BARs, and the
//! capabilities that say which registers are where.
//!
//! ```text
//! BAR 0  0x0000 common configuration     BAR 1  0x0000 MSI-X table
//!        0x1000 ISR status                      half   MSI-X pending bits
//!        0x2000 device configuration
//!        0x3000 notify addresses, 4 bytes a queue
//! ```

use std::ops::Range;

use super::common;
use super::device::Identity;
use super::machine::MAX_QUEUES;
use crate::pci::msix::{self, Msix};
use crate::pci::{BarKind, BarSpec, ConfigSpace, Ids, Wiring};

/// The BAR of the virtio registers.
pub(super) const REGISTERS: usize = 0;
/// The BAR of MSI-X.
pub(super) const MSIX: usize = 1;

/// The common configuration in [`REGISTERS`].
pub(super) const COMMON: Range<u64> = 0x0000..0x1000;
/// The ISR status.
pub(super) const ISR: Range<u64> = 0x1000..0x2000;
/// The device's own configuration.
pub(super) const DEVICE: Range<u64> = 0x2000..0x3000;
/// The notify addresses.
pub(super) const NOTIFY: Range<u64> = 0x3000..0x4000;
/// Bytes between the notify addresses of two queues: each has its own, so that a doorbell needs
/// no look at the value.
pub(super) const NOTIFY_MULTIPLIER: u32 = 4;

const VENDOR: u16 = 0x1af4;
/// Device ids from here on are modern virtio devices (virtio 1.2, 4.1.2.1).
const DEVICE_BASE: u16 = 0x1040;
/// Subsystem id of a device that no legacy driver may take (0x40 or more).
const SUBSYSTEM: u16 = 0x1100;

/// Vendor-specific capability.
const CAPABILITY_VENDOR: u8 = 0x09;
/// Capability types (virtio 1.2, 4.1.4).
const COMMON_CFG: u8 = 1;
const NOTIFY_CFG: u8 = 2;
const ISR_CFG: u8 = 3;
const DEVICE_CFG: u8 = 4;
const PCI_CFG: u8 = 5;

/// Where things are in config space.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offsets {
    /// The MSI-X message control.
    pub(super) msix_control: u16,
    /// The PCI configuration access capability.
    pub(super) access: u16,
}

/// How many MSI-X vectors a device of `queues` queues gets: one each, and one for its config.
pub(super) fn vectors(queues: u16) -> u16 {
    queues.min(MAX_QUEUES).saturating_add(1)
}

/// The config space of a device. `None` only when it has no room, which the sizes rule out.
pub(super) fn config_space<W: Wiring>(identity: Identity) -> Option<(ConfigSpace, Offsets)> {
    let mut space = ConfigSpace::new(Ids {
        vendor: VENDOR,
        device: DEVICE_BASE.saturating_add(identity.device_id as u16),
        revision: 1,
        class: class(identity.device_id),
        subsystem_vendor: VENDOR,
        subsystem: SUBSYSTEM,
    });
    let vectors = vectors(identity.queues);
    let kind = BarKind::Memory32;
    let registers = BarSpec {
        index: REGISTERS,
        kind,
        size: NOTIFY.end,
    };
    let msix = BarSpec {
        index: MSIX,
        kind,
        size: Msix::<W>::bar_size(vectors),
    };
    if !(space.add_bar(registers) && space.add_bar(msix)) {
        return None;
    }
    let (body, writable) = Msix::<W>::capability(vectors, MSIX as u8);
    let msix = space.add_capability(msix::CAPABILITY_ID, &body, &writable)?;
    let notify_len = u32::from(identity.queues.min(MAX_QUEUES)).saturating_mul(NOTIFY_MULTIPLIER);
    add(&mut space, COMMON_CFG, COMMON.start, common::LEN, &[], &[])?;
    let multiplier = NOTIFY_MULTIPLIER.to_le_bytes();
    add(
        &mut space,
        NOTIFY_CFG,
        NOTIFY.start,
        notify_len,
        &multiplier,
        &[],
    )?;
    add(&mut space, ISR_CFG, ISR.start, 1, &[], &[])?;
    if identity.config_len > 0 {
        let len = identity.config_len.min((DEVICE.end - DEVICE.start) as u32);
        add(&mut space, DEVICE_CFG, DEVICE.start, len, &[], &[])?;
    }
    // Its BAR, offset, length and data are the driver's to write.
    let mut writable = [0xff; 18];
    for (byte, mask) in writable.iter_mut().zip([0, 0, 0xff, 0, 0, 0]) {
        *byte = mask;
    }
    let access = add(&mut space, PCI_CFG, 0, 0, &[0; 4], &writable)?;
    Some((
        space,
        Offsets {
            msix_control: msix.checked_add(2)?,
            access,
        },
    ))
}

/// Appends a `struct virtio_pci_cap` of a part of [`REGISTERS`], with `more` behind it.
fn add(
    space: &mut ConfigSpace,
    kind: u8,
    offset: u64,
    len: u32,
    more: &[u8],
    writable: &[u8],
) -> Option<u16> {
    let cap_len = u8::try_from(more.len()).ok()?.checked_add(16)?;
    let mut body = vec![cap_len, kind, REGISTERS as u8, 0, 0, 0];
    body.extend_from_slice(&(offset as u32).to_le_bytes());
    body.extend_from_slice(&len.to_le_bytes());
    body.extend_from_slice(more);
    space.add_capability(CAPABILITY_VENDOR, &body, writable)
}

/// The PCI class that drivers and tools know the device class by.
fn class(device_id: u32) -> u32 {
    match device_id {
        1 => 0x02_0000,      // net: network, Ethernet
        2 | 8 => 0x01_0000,  // block, SCSI host: mass storage, SCSI
        26 => 0x01_8000,     // file system: mass storage, other
        3 | 19 => 0x07_8000, // console, vsock: communication, other
        18 => 0x09_8000,     // input: input device, other
        _ => 0x00_ff00,      // none of the classes
    }
}
