//! What is where in guest-physical memory.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::DeviceInfo;
use crate::arch::x86_64::layout;

/// A range of guest-physical addresses. One may lie in another: a device's registers in PCI's window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapInfo {
    /// The first address.
    pub start: u64,
    /// The first behind it.
    pub end: u64,
    /// What is there.
    pub what: String,
}

/// What of the map is this VM's own.
pub(in crate::vm) struct Layout {
    /// Bytes of RAM.
    pub(in crate::vm) memory: u64,
    /// PCI's window above 4 GiB.
    pub(in crate::vm) mmio64: Range<u64>,
    /// Where the guest has put its devices' BARs: slot, number, addresses.
    pub(in crate::vm) bars: Vec<(u8, usize, Range<u64>)>,
}

impl Layout {
    pub(super) fn map(&self, devices: &[DeviceInfo]) -> Vec<MapInfo> {
        let (low, high) = layout::ram_ranges(self.memory);
        let (ioapic, lapic) = (layout::IOAPIC, layout::LAPIC);
        let page = |start: u64| start..start.saturating_add(0x1000);
        let fixed = [
            (low, "RAM"),
            (layout::MMIO32, "PCI window"),
            (layout::ECAM, "PCI configuration (ECAM)"),
            (page(ioapic), "I/O APIC"),
            (page(lapic), "local APIC, and where MSIs go"),
            (layout::KVM_RESERVED, "KVM's own pages"),
            (high.unwrap_or_default(), "RAM"),
            (self.mmio64.clone(), "PCI window above RAM"),
        ];
        let fixed = fixed
            .into_iter()
            .map(|(range, what)| (range, what.to_owned()));
        let bars = self.bars.iter().map(|(slot, bar, range)| {
            let bdf = super::bdf(*slot);
            let id = devices.iter().find(|device| device.bdf == bdf);
            let id = id.map_or(bdf.as_str(), |device| &device.id);
            (range.clone(), format!("{id}: BAR {bar}"))
        });
        let all = fixed.chain(bars).filter(|(range, _)| !range.is_empty());
        let mut map: Vec<_> = all
            .map(|(Range { start, end }, what)| MapInfo { start, end, what })
            .collect();
        // What holds others comes before them.
        map.sort_by_key(|entry| (entry.start, u64::MAX.saturating_sub(entry.end)));
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_rise_and_hold_what_lies_in_them() {
        let layout = Layout {
            memory: 4 << 30,
            mmio64: 0x1_8000_0000..0x1_9000_0000,
            bars: vec![
                (8, 1, 0xc000_2000..0xc000_3000),
                (8, 0, 0xc000_0000..0xc000_2000),
            ],
        };
        let map = layout.map(&[]);
        let words: Vec<_> = map.iter().map(|entry| entry.what.as_str()).collect();
        assert_eq!(
            words,
            [
                "RAM",
                "PCI window",
                "0000:00:08.0: BAR 0",
                "0000:00:08.0: BAR 1",
                "PCI configuration (ECAM)",
                "I/O APIC",
                "local APIC, and where MSIs go",
                "KVM's own pages",
                "RAM",
                "PCI window above RAM",
            ]
        );
        let ram = map.iter().filter(|entry| entry.what == "RAM");
        assert_eq!(
            ram.map(|entry| entry.end - entry.start).sum::<u64>(),
            4 << 30
        );
    }
}
