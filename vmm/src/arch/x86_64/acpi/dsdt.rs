//! The DSDT: what devices there are besides those that PCI shows by itself.

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Memory32Fixed, Name,
    Package, PackageBuilder, ResourceTemplate, Scope, ZERO,
};
use acpi_tables::sdt::Sdt;
use acpi_tables::{Aml, AmlSink};

use super::{Machine, OEM_ID, OEM_REVISION, OEM_TABLE_ID, bytes, slots};
use crate::arch::x86_64::layout;
use crate::chipset::power::SLEEP_TYPE_S5;

/// Header of a table without content.
const HEADER: u32 = 36;
/// The first GSI beyond the ISA interrupts; PCI's four pins share the eight that follow.
const PCI_GSI: u32 = 16;

/// The whole table.
pub(super) fn dsdt(machine: &Machine) -> Sdt {
    let mut dsdt = Sdt::new(*b"DSDT", HEADER, 2, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    let mut body = bytes(&sleep_states());
    let devices = [
        processors(machine.apic_ids.len()),
        bytes(&pci_root(machine)),
        motherboard(),
        serial(),
        clock(),
    ];
    body.extend(Scope::raw("\\_SB_".into(), devices.concat()));
    body.extend(slots::event_handler());
    dsdt.append_slice(&body);
    dsdt
}

/// AML that is encoded already, to stand among other objects.
pub(super) struct Raw(pub(super) Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

/// `\_S5`: the sleep type that switches the machine off.
fn sleep_states() -> Name {
    let package = Package::new(vec![&SLEEP_TYPE_S5, &SLEEP_TYPE_S5, &ZERO, &ZERO]);
    Name::new("\\_S5_".into(), &package)
}

/// A processor device for each CPU, its `_UID` that of the MADT's entry.
fn processors(count: usize) -> Vec<u8> {
    let processor = |uid: u32| {
        let name = format!("C{uid:03X}");
        let id = Name::new("_HID".into(), &"ACPI0007");
        let uid = Name::new("_UID".into(), &uid);
        bytes(&Device::new(name.as_str().into(), vec![&id, &uid]))
    };
    (0u32..).take(count).flat_map(processor).collect()
}

/// `PCI0`: the PCI Express root, its windows, its interrupts and its slots.
fn pci_root(machine: &Machine) -> Raw {
    let id = Name::new("_HID".into(), &EISAName::new("PNP0A08"));
    let compatible = Name::new("_CID".into(), &EISAName::new("PNP0A03"));
    let segment = Name::new("_SEG".into(), &ZERO);
    let bus = Name::new("_BBN".into(), &ZERO);
    let uid = Name::new("_UID".into(), &ZERO);
    let resources = windows(machine);
    let interrupts = interrupt_routing();
    let slots = Raw(slots::slots());
    Raw(bytes(&Device::new(
        "PCI0".into(),
        vec![
            &id,
            &compatible,
            &segment,
            &bus,
            &uid,
            &resources,
            &interrupts,
            &slots,
        ],
    )))
}

/// What the root passes on to the bus behind it.
fn windows(machine: &Machine) -> Name {
    let uncached = AddressSpaceCacheable::NotCacheable;
    let (low, high) = (layout::MMIO32, &machine.mmio64);
    let buses = AddressSpace::new_bus_number(0u16, 0xff);
    let config = IO::new(layout::PCI_CONFIG_ADDRESS, layout::PCI_CONFIG_ADDRESS, 1, 8);
    let low_ports = AddressSpace::new_io(0u16, layout::PCI_CONFIG_ADDRESS - 1, None);
    let high_ports = AddressSpace::new_io(0x0d00u16, 0xffff, None);
    let memory32 =
        AddressSpace::new_memory(uncached, true, low.start as u32, (low.end - 1) as u32, None);
    let mut all: Vec<&dyn Aml> = vec![&buses, &config, &low_ports, &high_ports, &memory32];
    let memory64 = AddressSpace::new_memory(
        uncached,
        true,
        high.start,
        high.end.saturating_sub(1).max(high.start),
        None,
    );
    if !high.is_empty() {
        all.push(&memory64);
    }
    Name::new("_CRS".into(), &ResourceTemplate::new(all))
}

/// `_PRT`: which GSI a slot's pin raises. No device of ours has a pin; a kernel wants to know all
/// the same.
fn interrupt_routing() -> Name {
    let mut routes = PackageBuilder::new();
    for slot in 1..u32::from(layout::PCI_SLOTS) {
        for pin in 0..4u32 {
            let gsi = PCI_GSI + (slot + pin) % 8;
            routes.add_element(&Package::new(vec![
                &(slot << 16 | 0xffff),
                &pin,
                &ZERO,
                &gsi,
            ]));
        }
    }
    Name::new("_PRT".into(), &routes)
}

/// What is taken outside PCI: configuration space and the chipset's registers.
fn motherboard() -> Vec<u8> {
    let id = Name::new("_HID".into(), &EISAName::new("PNP0C02"));
    let ecam = Memory32Fixed::new(
        true,
        layout::ECAM.start as u32,
        (layout::ECAM.end - layout::ECAM.start) as u32,
    );
    let ports =
        |range: std::ops::Range<u16>| IO::new(range.start, range.start, 1, range.len() as u8);
    let (power, hotplug) = (ports(layout::PM), ports(layout::PCI_HOTPLUG));
    let resources = Name::new(
        "_CRS".into(),
        &ResourceTemplate::new(vec![&ecam, &power, &hotplug]),
    );
    bytes(&Device::new("MBRD".into(), vec![&id, &resources]))
}

/// COM1.
fn serial() -> Vec<u8> {
    let id = Name::new("_HID".into(), &EISAName::new("PNP0501"));
    let uid = Name::new("_UID".into(), &ZERO);
    let description = Name::new("_DDN".into(), &"COM1");
    let ports = IO::new(
        layout::COM1.start,
        layout::COM1.start,
        1,
        layout::COM1.len() as u8,
    );
    let interrupt = Interrupt::new(true, true, false, false, layout::IRQ_COM1);
    let resources = Name::new(
        "_CRS".into(),
        &ResourceTemplate::new(vec![&ports, &interrupt]),
    );
    bytes(&Device::new(
        "COM1".into(),
        vec![&id, &uid, &description, &resources],
    ))
}

/// The CMOS clock, which raises no interrupt.
fn clock() -> Vec<u8> {
    let id = Name::new("_HID".into(), &EISAName::new("PNP0B00"));
    let ports = IO::new(
        layout::RTC.start,
        layout::RTC.start,
        1,
        layout::RTC.len() as u8,
    );
    let resources = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&ports]));
    bytes(&Device::new("RTC_".into(), vec![&id, &resources]))
}
