//! The tables without AML: FADT, MADT and MCFG (ACPI 6.5, 5.2.9 and 5.2.12; PCI Firmware 3.2, 4.1.2).

use acpi_tables::fadt::{FADT, FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::mcfg::MCFG;
use acpi_tables::sdt::Sdt;

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};
use crate::arch::x86_64::layout;
use crate::chipset::reset::ResetControl;
use crate::chipset::rtc;

/// FADT boot flags: there are ISA devices, there is no VGA, and link power management is not the
/// operating system's. No i8042 flag: no keyboard to look for.
const BOOT_ARCH: u16 = 1 << 0 | 1 << 2 | 1 << 4;
/// Latencies that mean: no such state (ACPI 6.5, table 5.9).
const NO_C2: u16 = 101;
const NO_C3: u16 = 1001;

/// The FADT. There is no SMI command port, so ACPI is always enabled. The power button is in the
/// PM1 block, and there is no sleep button.
pub(super) fn fadt(facs: u64, dsdt: u64) -> FADT {
    let port = |start: u16, width: u8, access| {
        GAS::new(AddressSpace::SystemIo, width, 0, access, start.into())
    };
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup)
        .firmware_ctrl_32(facs as u32)
        .gpe_info(layout::GPE0.start.into(), 0, layout::GPE0.len() as u8, 0, 0);
    fadt.dsdt = (dsdt as u32).into();
    fadt.x_dsdt = dsdt.into();
    fadt.sci_int = (layout::IRQ_SCI as u16).into();
    fadt.pm1a_evt_blk = u32::from(layout::PM1_EVENT.start).into();
    fadt.pm1_evt_len = layout::PM1_EVENT.len() as u8;
    fadt.x_pm1a_evt_blk = port(layout::PM1_EVENT.start, 32, AccessSize::WordAccess);
    fadt.pm1a_cnt_blk = u32::from(layout::PM1_CONTROL.start).into();
    fadt.pm1_cnt_len = layout::PM1_CONTROL.len() as u8;
    fadt.x_pm1a_cnt_blk = port(layout::PM1_CONTROL.start, 16, AccessSize::WordAccess);
    fadt.pm_tmr_blk = u32::from(layout::PM_TIMER.start).into();
    fadt.pm_tmr_len = layout::PM_TIMER.len() as u8;
    fadt.x_pm_tmr_blk = port(layout::PM_TIMER.start, 32, AccessSize::DwordAccess);
    fadt.x_gpe0_blk = port(layout::GPE0.start, 32, AccessSize::ByteAccess);
    fadt.p_lvl2_lat = NO_C2.into();
    fadt.p_lvl3_lat = NO_C3.into();
    fadt.century = rtc::CENTURY;
    fadt.iapc_boot_arch = BOOT_ARCH.into();
    fadt.reset_reg = port(layout::RESET_CONTROL, 8, AccessSize::ByteAccess);
    fadt.reset_value = ResetControl::RESET_VALUE;
    fadt.finalize()
}

/// Processors with an APIC ID below this have a local APIC entry, others an x2APIC entry.
const X2APIC_FROM: u32 = 255;
/// Interrupt flags: active high, level-triggered.
const HIGH_LEVEL: u16 = 0b1101;

/// The MADT: the CPUs, the I/O APIC, and where ISA interrupts differ from GSIs of their number.
pub(super) fn madt(apic_ids: &[u32]) -> Sdt {
    let mut madt = Sdt::new(*b"APIC", 36, 5, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    let mut body = Vec::new();
    body.extend((layout::LAPIC as u32).to_le_bytes());
    // Flags: there are two 8259s too.
    body.extend(1u32.to_le_bytes());
    for (uid, &apic_id) in (0u32..).zip(apic_ids) {
        if apic_id < X2APIC_FROM && uid < X2APIC_FROM {
            body.extend([0, 8, uid as u8, apic_id as u8]);
            body.extend(1u32.to_le_bytes());
        } else {
            body.extend([9, 16, 0, 0]);
            for field in [apic_id, 1, uid] {
                body.extend(field.to_le_bytes());
            }
        }
    }
    body.extend([1, 12, 0, 0]);
    body.extend((layout::IOAPIC as u32).to_le_bytes());
    body.extend(0u32.to_le_bytes());
    // The timer's IRQ 0 is on pin 2.
    let sci = layout::IRQ_SCI;
    for (irq, gsi, flags) in [(0u8, 2u32, 0), (sci as u8, sci, HIGH_LEVEL)] {
        body.extend([2, 10, 0, irq]);
        body.extend(gsi.to_le_bytes());
        body.extend(flags.to_le_bytes());
    }
    // NMI is on pin 1 of every local APIC.
    body.extend([4, 6, 0xff, 0, 0, 1]);
    if apic_ids.iter().any(|&id| id >= X2APIC_FROM) {
        body.extend([10, 12, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0]);
    }
    madt.append_slice(&body);
    madt
}

/// The MCFG: configuration space of bus 0 to 255.
pub(super) fn mcfg() -> MCFG {
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    mcfg.add_ecam(layout::ECAM.start, 0, 0, 0xff);
    mcfg
}
