//! Config space: identity, capabilities, the device's own config, and the window onto registers.

use super::*;

/// Offset of the virtio capability of a type, if there is one.
fn capability(rig: &Rig, kind: u8) -> Option<u16> {
    let mut at = rig.config_read(0x34) as u16 & 0xff;
    while at != 0 {
        let head = rig.config_read(at).to_le_bytes();
        if head[0] == 0x09 && head[3] == kind {
            return Some(at);
        }
        at = head[1].into();
    }
    None
}

#[test]
fn ids_and_class_are_those_of_a_modern_block_device() {
    let rig = Rig::new(VERSION_1);
    assert_eq!(rig.config_read(0), 0x1042_1af4);
    assert_eq!(rig.config_read(8), 0x0100_0001);
    assert_eq!(rig.config_read(0x2c), 0x1100_1af4);
    assert_eq!(rig.config_read(0x3c), 0, "no interrupt pin");
}

#[test]
fn capabilities_say_where_the_registers_are() {
    let rig = Rig::new(VERSION_1);
    let place = |kind| {
        let at = capability(&rig, kind).expect("is there");
        (
            rig.config_read(at + 4) & 0xff,
            rig.config_read(at + 8),
            rig.config_read(at + 12),
        )
    };
    assert_eq!(place(1), (0, 0x0000, 0x3c));
    assert_eq!(place(2), (0, 0x3000, 12));
    assert_eq!(place(3), (0, 0x1000, 1));
    assert_eq!(place(4), (0, 0x2000, 8));
    let notify = capability(&rig, 2).unwrap();
    assert_eq!(
        (
            rig.config_read(notify) >> 16 & 0xff,
            rig.config_read(notify + 16)
        ),
        (20, 4)
    );
    let msix = rig.msix_capability();
    assert_eq!(rig.config_read(msix) >> 16, u32::from(QUEUES));
    assert_eq!(
        (rig.config_read(msix + 4), rig.config_read(msix + 8)),
        (1, 2049)
    );
}

#[test]
fn the_device_config_is_read_and_written_at_any_width() {
    let rig = Rig::new(VERSION_1);
    assert_eq!(rig.read(DEVICE.start), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(rig.read(DEVICE.start + 3), [4, 5]);
    assert_eq!(rig.read(DEVICE.start + 6), [7, 8, 0, 0]);
    assert_eq!(rig.read(DEVICE.end - 1), [0]);
    rig.write(DEVICE.start + 5, &[9]);
    assert_eq!(rig.device.calls(), [Call::WriteConfig(5, vec![9])]);
}

#[test]
fn the_window_reads_and_writes_registers() {
    let rig = Rig::running();
    let at = capability(&rig, 5).unwrap();
    let aim = |offset: u64, len: u32| {
        rig.config_write(at + 4, &[0]);
        rig.config_write(at + 8, &(offset as u32).to_le_bytes());
        rig.config_write(at + 12, &len.to_le_bytes());
    };
    aim(COMMON.start + 0x14, 1);
    assert_eq!(rig.config_read(at + 16), u32::from(rig.status()));
    aim(DEVICE.start + 4, 4);
    assert_eq!(rig.config_read(at + 16), 0x0807_0605);
    aim(notify(1), 2);
    rig.config_write(at + 16, &[1, 0]);
    assert_eq!((rig.device.kicks(0), rig.device.kicks(1)), (0, 1));
    aim(COMMON.start + 0x14, 1);
    rig.config_write(at + 16, &[0]);
    assert_eq!(rig.device.calls(), [Call::Reset]);
}

#[test]
fn a_window_aimed_at_nothing_does_nothing() {
    let rig = Rig::running();
    let at = capability(&rig, 5).unwrap();
    for (bar, offset, len) in [
        (1, 0, 4),
        (6, 0, 4),
        (0, 0x4000, 4),
        (0, 0xffff_fffc, 4),
        (0, 0x14, 0),
        (0, 0x14, 3),
        (0, 0x15, 2),
    ] {
        rig.config_write(at + 4, &[bar]);
        rig.config_write(at + 8, &u32::to_le_bytes(offset));
        rig.config_write(at + 12, &u32::to_le_bytes(len));
        rig.config_write(at + 16, &[0; 4]);
        assert_eq!(rig.config_read(at + 16), 0);
    }
    assert_eq!(rig.device.calls(), []);
}
