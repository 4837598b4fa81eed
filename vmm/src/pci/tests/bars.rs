//! Where BARs are mapped.

use super::*;

const COMMAND: u16 = 4;
const MEMORY: u32 = 2;
const BAR0: u16 = 0x10;

#[test]
fn the_vmm_assigns_bars_and_memory_decode_maps_them() {
    let (mmio, root) = root();
    let probe = Probe::new(&[bar32(0), bar64(2)]);
    root.add(3, probe.clone()).unwrap();
    assert_eq!(config_read(&root, 3, BAR0), 0xc000_0000);
    assert_eq!(config_read(&root, 3, 0x18), 0xc000_1004);
    assert_eq!(behind(&mmio, 0xc000_0000), None);
    config_write(&root, 3, COMMAND, MEMORY);
    assert_eq!(behind(&mmio, 0xc000_0ffc), Some(1));
    assert_eq!(behind(&mmio, 0xc000_1000), Some(3));
    assert_eq!(
        probe.mapped(),
        [(0, Some(0xc000_0000)), (2, Some(0xc000_1000))]
    );
    config_write(&root, 3, COMMAND, 0);
    assert_eq!(behind(&mmio, 0xc000_0000), None);
    assert_eq!(probe.mapped(), [(0, None), (2, None)]);
}

#[test]
fn a_bar_moves_within_its_windows_only() {
    let (mmio, root) = root();
    let probe = Probe::new(&[bar32(0), bar64(2)]);
    root.add(3, probe.clone()).unwrap();
    config_write(&root, 3, COMMAND, MEMORY);
    config_write(&root, 3, BAR0, 0xc008_0000);
    assert_eq!(behind(&mmio, 0xc008_0000), Some(1));
    assert_eq!(behind(&mmio, 0xc000_0000), None);
    // Low memory, the local APIC, the last address, and just past the window.
    for outside in [0, 0xfee0_0000, 0xffff_ffff, 0xc010_0000] {
        config_write(&root, 3, BAR0, outside);
        assert_eq!(behind(&mmio, u64::from(outside & 0xffff_f000)), None);
    }
    // Above 4 GiB, for the 64-bit one.
    config_write(&root, 3, 0x1c, 1);
    config_write(&root, 3, 0x18, 0x10_0000);
    assert_eq!(behind(&mmio, 0x1_0010_0000), Some(3));
}

#[test]
fn a_bar_on_top_of_another_waits_until_it_is_gone() {
    let (mmio, root) = root();
    root.add(3, Probe::new(&[bar32(0)])).unwrap();
    root.add(4, Probe::new(&[bar64(4)])).unwrap();
    config_write(&root, 3, COMMAND, MEMORY);
    config_write(&root, 4, COMMAND, MEMORY);
    config_write(&root, 4, 0x20, 0xc000_0000);
    assert_eq!(behind(&mmio, 0xc000_0000), Some(1));
    assert_eq!(behind(&mmio, 0xc000_1000), None);
    config_write(&root, 3, BAR0, 0xc000_5000);
    assert_eq!(behind(&mmio, 0xc000_0000), Some(5));
    assert_eq!(behind(&mmio, 0xc000_5000), Some(1));
}

#[test]
fn two_bars_can_change_places() {
    let (mmio, root) = root();
    root.add(3, Probe::new(&[bar32(0), bar32(1)])).unwrap();
    config_write(&root, 3, COMMAND, MEMORY);
    config_write(&root, 3, BAR0, 0xc000_1000);
    config_write(&root, 3, BAR0 + 4, 0xc000_0000);
    assert_eq!(behind(&mmio, 0xc000_0000), Some(2));
    assert_eq!(behind(&mmio, 0xc000_1000), Some(1));
}

#[test]
fn reset_brings_the_assigned_bars_back() {
    let (mmio, root) = root();
    root.add(3, Probe::new(&[bar32(0)])).unwrap();
    config_write(&root, 3, COMMAND, MEMORY);
    config_write(&root, 3, BAR0, 0xc008_0000);
    root.reset();
    assert!(root.is_reset());
    assert_eq!(behind(&mmio, 0xc008_0000), None);
    assert_eq!(config_read(&root, 3, BAR0), 0xc000_0000);
    assert_eq!(config_read(&root, 3, COMMAND) & 0xffff, 0);
    config_write(&root, 3, COMMAND, MEMORY);
    assert_eq!(behind(&mmio, 0xc000_0000), Some(1));
}

#[test]
fn a_removed_function_leaves_its_addresses_to_the_next() {
    let (mmio, root) = root();
    let probe = Probe::new(&[bar32(0)]);
    root.add(3, probe.clone()).unwrap();
    config_write(&root, 3, COMMAND, MEMORY);
    probe.mapped();
    assert!(root.remove(3).is_some() && root.remove(3).is_none());
    assert_eq!(probe.mapped(), [(0, None)]);
    assert_eq!(behind(&mmio, 0xc000_0000), None);
    assert_eq!(config_read(&root, 3, 0), u32::MAX);
    root.add(5, Probe::new(&[bar32(0)])).unwrap();
    assert_eq!(config_read(&root, 5, BAR0), 0xc000_0000);
}

#[test]
fn slots_are_checked_and_space_ends() {
    let (_, root) = root();
    let slot = |slot, bars: &[BarSpec]| root.add(slot, Probe::new(bars));
    assert_eq!(slot(0, &[]), Err(PciError::SlotTaken(0)));
    assert_eq!(slot(32, &[]), Err(PciError::NoSlot(32)));
    let big = BarSpec {
        size: 0x8_0000,
        ..bar32(1)
    };
    assert_eq!(
        slot(1, &[bar32(0), big, BarSpec { index: 2, ..big }]),
        Err(PciError::NoSpace { size: 0x8_0000 })
    );
    // What the refused one had is free again.
    slot(1, &[big, BarSpec { index: 2, ..big }]).unwrap();
}
