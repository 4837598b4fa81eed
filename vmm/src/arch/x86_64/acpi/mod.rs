//! The ACPI tables: full ACPI, not the hardware-reduced kind, as unmodified kernels expect of a PC.
//!
//! ```text
//! RSDP -> XSDT -> FADT -> DSDT (dsdt, slots)
//!              |       \> FACS
//!              |-> MADT   CPUs, I/O APIC, interrupt overrides
//!              \-> MCFG   PCI Express configuration space
//! ```
//!
//! The registers that the FADT and the DSDT speak of are those of [`chipset`](crate::chipset).

mod dsdt;
mod slots;
mod tables;

use std::ops::Range;

use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use super::layout;

const OEM_ID: [u8; 6] = *b"OUTBRD";
const OEM_TABLE_ID: [u8; 8] = *b"OUTBOARD";
const OEM_REVISION: u32 = 1;

/// What the tables tell of this machine that is not the same for all.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The local APIC ID of each vCPU, in order; the first boots.
    pub apic_ids: Vec<u32>,
    /// The PCI window above RAM ([`layout::mmio64`]); may be empty.
    pub mmio64: Range<u64>,
}

/// Why the tables cannot be written.
#[derive(Debug, Error)]
pub enum AcpiError {
    /// They are larger than their place.
    #[error("The ACPI tables for {cpus} CPUs do not fit into {room} bytes; use fewer CPUs")]
    TooLarge {
        /// Number of CPUs.
        cpus: usize,
        /// Length of [`layout::ACPI_TABLES`].
        room: u64,
    },
    /// RAM does not reach there.
    #[error("Cannot write the ACPI tables into guest memory")]
    Write(#[source] GuestMemoryError),
}

/// Writes the tables to [`layout::ACPI_TABLES`] and returns the address of the RSDP. Called before
/// every boot, as a kernel may scribble over them.
pub fn write_tables(ram: &GuestMemoryMmap, machine: &Machine) -> Result<u64, AcpiError> {
    let (rsdp, tables) = build(machine);
    let room = layout::ACPI_TABLES.end - layout::ACPI_TABLES.start;
    if tables.len() as u64 > room {
        return Err(AcpiError::TooLarge {
            cpus: machine.apic_ids.len(),
            room,
        });
    }
    ram.write_slice(&tables, GuestAddress(layout::ACPI_TABLES.start))
        .map_err(AcpiError::Write)?;
    Ok(rsdp)
}

/// All tables as they lie in memory from the start of [`layout::ACPI_TABLES`], and the RSDP's
/// address.
fn build(machine: &Machine) -> (u64, Vec<u8>) {
    let mut area = Area {
        bytes: vec![0; Rsdp::len()],
    };
    let facs = area.place(&FACS::new());
    let dsdt = area.place(&dsdt::dsdt(machine));
    let fadt = area.place(&tables::fadt(facs, dsdt));
    let madt = area.place(&tables::madt(&machine.apic_ids));
    let mcfg = area.place(&tables::mcfg());
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    for table in [fadt, madt, mcfg] {
        xsdt.add_entry(table);
    }
    let xsdt = area.place(&xsdt);
    let rsdp = bytes(&Rsdp::new(OEM_ID, xsdt));
    area.bytes.splice(..rsdp.len(), rsdp);
    (layout::ACPI_TABLES.start, area.bytes)
}

/// The tables' place, filled from its start.
struct Area {
    bytes: Vec<u8>,
}

impl Area {
    /// Adds a table on a 64-byte boundary, which the FACS needs, and returns its address.
    fn place(&mut self, table: &dyn Aml) -> u64 {
        let at = self.bytes.len().next_multiple_of(64);
        self.bytes.resize(at, 0);
        table.to_aml_bytes(&mut self.bytes);
        layout::ACPI_TABLES.start + at as u64
    }
}

/// The encoding of a table or an AML object.
fn bytes(aml: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    aml.to_aml_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
#[path = "acpi_test.rs"]
mod tests;
