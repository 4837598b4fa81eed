//! The slots of PCI bus 0, and the general-purpose event by which a guest hears that a device came
//! or shall go.
//!
//! ```text
//! Device (PCI0) {
//!     OperationRegion (HPRG, SystemIO, 0xAE00, 0x0C)
//!     Field (HPRG, DWordAcc, NoLock, WriteAsZeros) { SLUP, 32, SLDN, 32, SLEJ, 32 }
//!     Mutex (HPLK, 0)
//!     Device (S01_) { Name (_ADR, 0x00010000) Name (_SUN, 1) Method (_EJ0, 1) { SLEJ = 2 } }
//!     ...
//!     Method (SCAN) {
//!         Acquire (HPLK, 0xFFFF) Local0 = SLUP Local1 = SLDN Release (HPLK)
//!         If (Local0 & 2) { Notify (S01_, 1) } If (Local1 & 2) { Notify (S01_, 3) }
//!         ...
//!     }
//! }
//! Scope (\_GPE) { Method (_E01) { \_SB.PCI0.SCAN () } }
//! ```

use acpi_tables::Aml;
use acpi_tables::aml::{
    Acquire, And, Device, Field, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, If,
    Local, Method, MethodCall, Mutex, Name, Notify, ONE, OpRegion, OpRegionSpace, Path, Release,
    Scope, Store, ZERO,
};

use super::bytes;
use super::dsdt::Raw;
use crate::arch::x86_64::layout;
use crate::chipset::hotplug::{DOWN, EJECT, UP};

/// Notification values (ACPI 6.5, 5.6.6): look for a device here; the device shall be ejected.
const DEVICE_CHECK: u8 = 1;
const EJECT_REQUEST: u8 = 3;
/// `Acquire` that waits for ever.
const FOR_EVER: u16 = 0xffff;

/// The slots hotplug knows; slot 0 holds the host bridge.
fn numbers() -> impl Iterator<Item = u8> {
    1..layout::PCI_SLOTS
}

fn name(slot: u8) -> Path {
    Path::new(&format!("S{slot:02X}_"))
}

/// What belongs into `PCI0`: the registers, a device for each slot, and the method `SCAN`.
pub(super) fn slots() -> Vec<u8> {
    // The registers follow one another in this order.
    const { assert!(UP == 0 && DOWN == 4 && EJECT == 8) };
    let port = layout::PCI_HOTPLUG.start;
    let region = OpRegion::new("HPRG".into(), OpRegionSpace::SystemIO, &port, &12u8);
    let field = Field::new(
        "HPRG".into(),
        FieldAccessType::DWord,
        FieldLockRule::NoLock,
        FieldUpdateRule::WriteAsZeroes,
        [*b"SLUP", *b"SLDN", *b"SLEJ"]
            .map(|name| FieldEntry::Named(name, 32))
            .to_vec(),
    );
    let mutex = Mutex::new("HPLK".into(), 0);
    let mut all = [bytes(&region), bytes(&field), bytes(&mutex)].concat();
    all.extend(numbers().flat_map(slot));
    all.extend(scan());
    all
}

/// One slot.
fn slot(slot: u8) -> Vec<u8> {
    let address = Name::new("_ADR".into(), &(u32::from(slot) << 16));
    let number = Name::new("_SUN".into(), &slot);
    let (register, bit) = (Path::new("SLEJ"), 1u32 << slot);
    let write = Store::new(&register, &bit);
    let eject = Method::new("_EJ0".into(), 1, true, vec![&write]);
    bytes(&Device::new(name(slot), vec![&address, &number, &eject]))
}

/// `SCAN`: reads the registers, which clears them, and notifies the slots they name.
fn scan() -> Vec<u8> {
    let (up, down) = (Path::new("SLUP"), Path::new("SLDN"));
    let acquire = Acquire::new("HPLK".into(), FOR_EVER);
    let read_up = Store::new(&Local(0), &up);
    let read_down = Store::new(&Local(1), &down);
    let release = Release::new("HPLK".into());
    let notify = |slot: u8| {
        let (name, bit) = (name(slot), 1u32 << slot);
        let notify_if = |local: u8, value: u8| {
            let value: &dyn Aml = if value == DEVICE_CHECK {
                &ONE
            } else {
                &EJECT_REQUEST
            };
            bytes(&If::new(
                &And::new(&ZERO, &Local(local), &bit),
                vec![&Notify::new(&name, value)],
            ))
        };
        [notify_if(0, DEVICE_CHECK), notify_if(1, EJECT_REQUEST)].concat()
    };
    let notifications = Raw(numbers().flat_map(notify).collect());
    bytes(&Method::new(
        "SCAN".into(),
        0,
        true,
        vec![&acquire, &read_up, &read_down, &release, &notifications],
    ))
}

/// `\_GPE._E01`: the handler of the chipset's
/// [`GENERAL_EVENT`](crate::chipset::hotplug::GENERAL_EVENT), edge-triggered.
pub(super) fn event_handler() -> Vec<u8> {
    let scan = MethodCall::new("\\_SB_.PCI0.SCAN".into(), vec![]);
    let handler = Method::new("_E01".into(), 0, false, vec![&scan]);
    bytes(&Scope::new("\\_GPE".into(), vec![&handler]))
}
