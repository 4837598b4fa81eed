//! Tests of the bus as a guest sees it.

mod access;
mod bars;
mod msix;

use std::sync::{Arc, Mutex};

use super::*;
use crate::bus::{Bus, BusDevice};

/// A function with the BARs given; behind each, reads give its number.
struct Probe {
    config: Mutex<ConfigSpace>,
    mapped: Mutex<Vec<(usize, Option<u64>)>>,
}

impl Probe {
    fn new(bars: &[BarSpec]) -> Arc<Self> {
        let mut config = ConfigSpace::new(Ids {
            vendor: 0x1234,
            device: 0x5678,
            revision: 0,
            class: 0x00_ff00,
            subsystem_vendor: 0,
            subsystem: 0,
        });
        for bar in bars {
            assert!(config.add_bar(*bar));
        }
        Arc::new(Self {
            config: Mutex::new(config),
            mapped: Mutex::default(),
        })
    }

    /// The calls of `bar_mapped` since the last time.
    fn mapped(&self) -> Vec<(usize, Option<u64>)> {
        std::mem::take(&mut lock(&self.mapped))
    }
}

impl PciFunction for Probe {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        lock(&self.config).read(offset, data);
    }

    fn config_write(&self, offset: u16, data: &[u8]) {
        lock(&self.config).write(offset, data);
    }

    fn bars(&self) -> Vec<BarSpec> {
        lock(&self.config).bars().to_vec()
    }

    fn assign_bar(&self, bar: usize, address: u64) {
        lock(&self.config).assign_bar(bar, address);
    }

    fn decoded_bar(&self, bar: usize) -> Option<u64> {
        lock(&self.config).decoded_bar(bar)
    }

    fn bar_mapped(&self, bar: usize, address: Option<u64>) {
        lock(&self.mapped).push((bar, address));
    }

    fn bar_read(&self, bar: usize, _offset: u64, data: &mut [u8]) {
        data.fill(bar as u8 + 1);
    }

    fn reset(&self) {
        lock(&self.config).reset();
    }
}

const LOW: std::ops::Range<u64> = 0xc000_0000..0xc010_0000;
const HIGH: std::ops::Range<u64> = 0x1_0000_0000..0x1_1000_0000;

fn root() -> (Arc<Bus>, Arc<PciRoot>) {
    let mmio = Arc::new(Bus::new());
    let windows = BarWindows {
        low: LOW,
        high: HIGH,
    };
    let root = PciRoot::new(mmio.clone(), windows).unwrap();
    (mmio, root)
}

fn bar32(index: usize) -> BarSpec {
    BarSpec {
        index,
        kind: BarKind::Memory32,
        size: 0x1000,
    }
}

fn bar64(index: usize) -> BarSpec {
    BarSpec {
        index,
        kind: BarKind::Memory64,
        size: 0x1000,
    }
}

fn config_read(root: &Arc<PciRoot>, slot: u8, offset: u16) -> u32 {
    let mut data = [0; 4];
    Ecam::new(root.clone()).read(u64::from(slot) << 15 | u64::from(offset), &mut data);
    u32::from_le_bytes(data)
}

fn config_write(root: &Arc<PciRoot>, slot: u8, offset: u16, value: u32) {
    let at = u64::from(slot) << 15 | u64::from(offset);
    Ecam::new(root.clone()).write(at, &value.to_le_bytes());
}

/// What is behind an address: a BAR's number plus one, or `None`.
fn behind(mmio: &Bus, address: u64) -> Option<u8> {
    let mut data = [0];
    mmio.read(address, &mut data).then_some(data[0])
}
