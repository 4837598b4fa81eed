//! The tables in low memory that an entry state points at: the GDT, a TSS, and page tables that
//! map the first 4 GiB onto themselves.

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::entry::{EntryMode, EntryState};
use super::error::BootError;
use crate::arch::x86_64::layout;

const PRESENT_WRITABLE: u64 = 0b11;
const LARGE_PAGE: u64 = 1 << 7;
const PAGE: u64 = 0x1000;
const LARGE: u64 = 2 << 20;
/// 512 entries of 8 bytes a table.
const ENTRIES: u64 = 512;
/// How many page directories, each mapping 1 GiB.
const DIRECTORIES: u64 = 4;

/// Writes what `entry` needs in memory beside the kernel itself.
pub(super) fn write_tables(ram: &GuestMemoryMmap, entry: &EntryState) -> Result<(), BootError> {
    let gdt: Vec<u8> = entry.gdt().iter().flat_map(|d| d.to_le_bytes()).collect();
    ram.write_slice(&gdt, GuestAddress(layout::BOOT_GDT))
        .map_err(BootError::write("the GDT"))?;
    ram.write_slice(&[0; 0x68], GuestAddress(layout::BOOT_TSS))
        .map_err(BootError::write("the TSS"))?;
    if entry.mode == EntryMode::Long {
        ram.write_slice(&identity_tables(), GuestAddress(layout::BOOT_PAGE_TABLES))
            .map_err(BootError::write("the page tables"))?;
    }
    Ok(())
}

/// PML4, PDPT and page directories, one after the other.
fn identity_tables() -> Vec<u8> {
    let table = |n: u64| layout::BOOT_PAGE_TABLES + n * PAGE;
    let padded = |used: u64| (used..ENTRIES).map(|_| 0);
    let pml4 = std::iter::once(table(1) | PRESENT_WRITABLE).chain(padded(1));
    let pdpt = (0..DIRECTORIES)
        .map(|n| table(2 + n) | PRESENT_WRITABLE)
        .chain(padded(DIRECTORIES));
    let directories =
        (0..DIRECTORIES * ENTRIES).map(|n| (n * LARGE) | LARGE_PAGE | PRESENT_WRITABLE);
    pml4.chain(pdpt)
        .chain(directories)
        .flat_map(u64::to_le_bytes)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(tables: &[u8], address: u64) -> Option<u64> {
        let read = |table: u64, index: u64| {
            let at = (table - layout::BOOT_PAGE_TABLES + index * 8) as usize;
            let entry = u64::from_le_bytes(tables[at..at + 8].try_into().unwrap());
            (entry & 1 == 1).then_some(entry)
        };
        let pml4e = read(layout::BOOT_PAGE_TABLES, address >> 39 & 511)?;
        let pdpte = read(pml4e & !0xfff, address >> 30 & 511)?;
        let pde = read(pdpte & !0xfff, address >> 21 & 511)?;
        assert_ne!(pde & LARGE_PAGE, 0);
        Some((pde & !(LARGE - 1)) + address % LARGE)
    }

    #[test]
    fn first_four_gib_map_onto_themselves_and_nothing_else_maps() {
        let tables = identity_tables();
        assert_eq!(tables.len(), 6 * 4096);
        for address in [0, 0x7000, 0x100_0200, 0x7fff_ffff, 0xffff_ffff] {
            assert_eq!(walk(&tables, address), Some(address));
        }
        assert_eq!(walk(&tables, 1 << 32), None);
        assert_eq!(walk(&tables, 1 << 39), None);
    }
}
