//! The address map of the x86 machine: guest-physical memory, ports and interrupt lines.
//!
//! Everything that has a fixed place has it here and nowhere else: the memory that the VMM
//! fills before the first instruction, the windows of PCI, and the registers of the chipset.
//!
//! ```text
//! 0x0000_0000  boot structures (GDT, page tables, zero page, command line)
//! 0x0009_fc00  reserved (where a BIOS keeps its extended data area)
//! 0x000a_0000  legacy video hole; ACPI tables from 0xe0000, PVH start info from 0xff000
//! 0x0010_0000  RAM: kernel, initrd at its top; ends at 3 GiB or before
//! 0xc000_0000  PCI MMIO window below 4 GiB
//! 0xe000_0000  PCI ECAM, 256 buses
//! 0xfec0_0000  I/O APIC, 0xfee0_0000 local APIC, 0xfffb_c000 KVM's private pages
//! 4 GiB        RAM beyond 3 GiB, then the PCI MMIO window above 4 GiB
//! ```

use std::ops::Range;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

// RAM

/// Where the hole below 4 GiB begins: RAM below 4 GiB ends here or before.
pub const LOW_RAM_END: u64 = 3 * GIB;
/// Where RAM that does not fit below the hole goes on.
pub const HIGH_RAM_START: u64 = 4 * GIB;
/// The least memory a machine can have: room for a small kernel above its load address.
pub const MIN_RAM: u64 = 32 * MIB;

/// RAM of `size` bytes as guest-physical ranges: one below the hole, and one above if it is needed.
pub fn ram_ranges(size: u64) -> (Range<u64>, Option<Range<u64>>) {
    if size <= LOW_RAM_END {
        return (0..size, None);
    }
    let high_end = HIGH_RAM_START.saturating_add(size.saturating_sub(LOW_RAM_END));
    (0..LOW_RAM_END, Some(HIGH_RAM_START..high_end))
}

// The first MiB: what the VMM writes for the kernel's first steps. A kernel copies what it
// keeps, and reclaims the rest as ordinary RAM.

/// The boot GDT ([`boot::EntryState`](super::boot::EntryState)).
pub const BOOT_GDT: u64 = 0x500;
/// A TSS of zeroes, which TR must point at on entry.
pub const BOOT_TSS: u64 = 0x580;
/// Linux's `boot_params`, the "zero page" (Documentation/arch/x86/zero-page.rst).
pub const ZERO_PAGE: u64 = 0x7000;
/// The top of a small stack for the first instructions of an ELF kernel; grows down from here.
pub const BOOT_STACK_TOP: u64 = 0x8ff0;
/// Identity page tables for long mode: one PML4, one PDPT, four page directories.
pub const BOOT_PAGE_TABLES: u64 = 0x9000;
/// The kernel command line, zero-terminated.
pub const CMDLINE: u64 = 0x2_0000;
/// The most a command line may take, its terminating zero included.
pub const CMDLINE_MAX: usize = 0x1_0000;
/// The end of usable conventional memory; a BIOS would keep its extended data area from here.
pub const CONVENTIONAL_END: u64 = 0x9_fc00;
/// Where the ACPI tables are: in the area that operating systems search for the RSDP
/// (ACPI 6.5, 5.2.5.1), with the RSDP first.
pub const ACPI_TABLES: Range<u64> = 0xe_0000..0xf_f000;
/// PVH: `hvm_start_info`. Firmware reads it, its module list and its memory map for as long as it
/// lives, and hands out what the map calls RAM: so these lie in none.
pub const PVH_START_INFO: u64 = 0xf_f000;
/// PVH: the list of modules (the initrd).
pub const PVH_MODULES: u64 = 0xf_f040;
/// PVH: the memory map.
pub const PVH_MEMORY_MAP: u64 = 0xf_f100;
/// Where RAM goes on after the legacy hole, and the least address for a kernel.
pub const HIGH_MEMORY: u64 = MIB;

// The hole below 4 GiB

/// The window of PCI memory BARs below 4 GiB.
pub const MMIO32: Range<u64> = 0xc000_0000..0xe000_0000;
/// PCI Express enhanced configuration space: 1 MiB for each of 256 buses.
pub const ECAM: Range<u64> = 0xe000_0000..0xf000_0000;
/// The I/O APIC's registers (in the kernel's KVM).
pub const IOAPIC: u64 = 0xfec0_0000;
/// The local APICs' registers (in the kernel's KVM), and where MSI writes go.
pub const LAPIC: u64 = 0xfee0_0000;
/// One page that KVM takes on VT-x hosts: `KVM_SET_IDENTITY_MAP_ADDR`.
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages that KVM takes on VT-x hosts: `KVM_SET_TSS_ADDR`.
pub const KVM_TSS: u64 = 0xfffb_d000;
/// What KVM takes in all, kept from the guest in its memory map.
pub const KVM_RESERVED: Range<u64> = 0xfffb_c000..0xfffc_0000;

/// The window of PCI memory BARs above RAM, for a machine whose RAM ends at `ram_end` and whose
/// CPUs have `physical_bits` address bits. Empty (`start == end`) where the CPUs reach no further
/// than RAM.
///
/// It begins at the next GiB, so that 1 GiB pages can map the RAM below, and is at most 64 GiB long.
pub fn mmio64(ram_end: u64, physical_bits: u8) -> Range<u64> {
    let limit = 1u64
        .checked_shl(u32::from(physical_bits))
        .unwrap_or(1 << 52);
    let start = ram_end
        .max(HIGH_RAM_START)
        .checked_next_multiple_of(GIB)
        .unwrap_or(limit);
    let end = start.saturating_add(64 * GIB).min(limit);
    start.min(end)..end
}

// Ports

/// Keyboard controller: data port, and the reset line behind its command port.
pub const I8042_DATA: u16 = 0x60;
/// Keyboard controller: status and command port.
pub const I8042_COMMAND: u16 = 0x64;
/// CMOS clock: index port; data is the next one.
pub const RTC: Range<u16> = 0x70..0x72;
/// First serial port, ttyS0.
pub const COM1: Range<u16> = 0x3f8..0x400;
/// ACPI `PM1a` event block: status and enable, 16 bits each (ACPI 6.5, 4.8.3.1).
pub const PM1_EVENT: Range<u16> = 0x600..0x604;
/// ACPI `PM1a` control block, 16 bits (ACPI 6.5, 4.8.3.2).
pub const PM1_CONTROL: Range<u16> = 0x604..0x606;
/// ACPI power management timer, 32 bits (ACPI 6.5, 4.8.3.3).
pub const PM_TIMER: Range<u16> = 0x608..0x60c;
/// ACPI general-purpose event block 0: 16 status bits, 16 enable bits (ACPI 6.5, 4.8.4.1).
pub const GPE0: Range<u16> = 0x620..0x624;
/// Everything of ACPI power management, for one place on the port bus.
pub const PM: Range<u16> = 0x600..0x624;
/// PCI slot hotplug registers: which slots came (32 bits), which shall go (32 bits), eject
/// (32 bits), used by the DSDT's `_GPE._E01` and `_EJ0`.
pub const PCI_HOTPLUG: Range<u16> = 0xae00..0xae10;
/// PCI configuration mechanism 1: address.
pub const PCI_CONFIG_ADDRESS: u16 = 0xcf8;
/// The reset control register, which lies inside PCI's address port as on real chipsets.
pub const RESET_CONTROL: u16 = 0xcf9;
/// PCI configuration mechanism 1: data.
pub const PCI_CONFIG_DATA: u16 = 0xcfc;

// Interrupt lines (ISA IRQ = GSI, but for the timer's override 0 -> 2)

/// Interrupt of COM1.
pub const IRQ_COM1: u32 = 4;
/// The ACPI system control interrupt; level-triggered, active high.
pub const IRQ_SCI: u32 = 9;
/// The first and the count of GSIs of the I/O APIC.
pub const IOAPIC_GSIS: u32 = 24;

/// How many slots PCI bus 0 has; slot 0 is the host bridge.
pub const PCI_SLOTS: u8 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_splits_at_the_hole() {
        assert_eq!(ram_ranges(512 * MIB), (0..512 * MIB, None));
        assert_eq!(ram_ranges(3 * GIB), (0..3 * GIB, None));
        assert_eq!(ram_ranges(5 * GIB), (0..3 * GIB, Some(4 * GIB..6 * GIB)));
    }

    #[test]
    fn high_window_lies_above_ram_and_below_the_address_limit() {
        assert_eq!(mmio64(GIB, 40), 4 * GIB..68 * GIB);
        assert_eq!(mmio64(6 * GIB + MIB, 48), 7 * GIB..71 * GIB);
        assert_eq!(mmio64(6 * GIB, 36), 6 * GIB..64 * GIB);
        assert!(mmio64(64 * GIB, 36).is_empty());
        assert!(mmio64(u64::MAX, 64).is_empty());
    }

    #[test]
    fn nothing_overlaps_in_the_first_megabyte() {
        let placed = [
            (BOOT_GDT, 0x80),
            (BOOT_TSS, 0x80),
            (ZERO_PAGE, 0x1000),
            (0x8000, 0x1000),
            (BOOT_PAGE_TABLES, 0x6000),
            (CMDLINE, CMDLINE_MAX as u64),
            (CONVENTIONAL_END, 0x400),
            (ACPI_TABLES.start, ACPI_TABLES.end - ACPI_TABLES.start),
            (PVH_START_INFO, 0x40),
            (PVH_MODULES, 0x40),
            (PVH_MEMORY_MAP, 0x1000 - 0x100),
            (HIGH_MEMORY, 1),
        ];
        for pair in placed.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:x?}");
        }
    }
}
