//! The memory map that a kernel is told: what is RAM and what to leave alone.
//!
//! Linux's e820 and PVH's memory map use the same numbers for the kinds (ACPI 6.5, 15).

use vm_memory::{Address, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::arch::x86_64::layout;

/// What a range of guest-physical addresses is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MapKind {
    /// RAM, free to use.
    Ram = 1,
    /// Not to be used.
    Reserved = 2,
}

/// One entry of the memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapEntry {
    /// First address.
    pub start: u64,
    /// Length in bytes, not 0.
    pub size: u64,
    /// What is there.
    pub kind: MapKind,
}

impl MapEntry {
    fn between(start: u64, end: u64, kind: MapKind) -> Option<Self> {
        let size = end.checked_sub(start).filter(|&size| size > 0)?;
        Some(Self { start, size, kind })
    }
}

/// The memory map of a machine with this RAM, in ascending order and without overlap.
pub fn memory_map(ram: &GuestMemoryMmap) -> Vec<MapEntry> {
    use MapKind::{Ram, Reserved};
    let reserved = [
        (layout::CONVENTIONAL_END, 0xa_0000),
        (layout::ACPI_TABLES.start, layout::HIGH_MEMORY),
        (layout::ECAM.start, layout::ECAM.end),
        (layout::KVM_RESERVED.start, layout::KVM_RESERVED.end),
    ];
    let mut map: Vec<_> = reserved
        .into_iter()
        .filter_map(|(start, end)| MapEntry::between(start, end, Reserved))
        .collect();
    for region in ram.iter() {
        let start = region.start_addr().raw_value();
        let end = start.saturating_add(region.len());
        if start == 0 {
            map.extend(MapEntry::between(0, end.min(layout::CONVENTIONAL_END), Ram));
            map.extend(MapEntry::between(layout::HIGH_MEMORY, end, Ram));
        } else {
            map.extend(MapEntry::between(start, end, Ram));
        }
    }
    map.sort_by_key(|entry| entry.start);
    map
}

/// End of the RAM that begins at address 0: where kernel and initrd must fit.
pub(super) fn low_ram_end(ram: &GuestMemoryMmap) -> u64 {
    ram.iter()
        .find(|region| region.start_addr().raw_value() == 0)
        .map_or(0, GuestMemoryRegion::len)
}

#[cfg(test)]
mod tests {
    use vm_memory::GuestAddress;

    use super::*;

    #[test]
    fn map_is_sorted_and_free_of_overlap() {
        let ram = GuestMemoryMmap::from_ranges(&[
            (GuestAddress(0), 64 << 20),
            (GuestAddress(4 << 30), 32 << 20),
        ])
        .unwrap();
        let map = memory_map(&ram);
        for pair in map.windows(2) {
            assert!(pair[0].start + pair[0].size <= pair[1].start, "{pair:x?}");
        }
        let total: u64 = map
            .iter()
            .filter(|e| e.kind == MapKind::Ram)
            .map(|e| e.size)
            .sum();
        assert_eq!(total, (96 << 20) - (0x10_0000 - 0x9_fc00));
        assert_eq!(
            map[0],
            MapEntry {
                start: 0,
                size: 0x9_fc00,
                kind: MapKind::Ram
            }
        );
        assert_eq!(low_ram_end(&ram), 64 << 20);
    }
}
