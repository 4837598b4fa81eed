//! Queue registers, notifications and the reset of one queue.

use super::*;

#[test]
fn queue_registers_read_back_and_no_others_exist() {
    let rig = Rig::new(VERSION_1);
    assert_eq!(rig.word(0x12), QUEUES);
    rig.select(2);
    assert_eq!(
        (
            rig.word(0x18),
            rig.word(0x1a),
            rig.word(0x1c),
            rig.word(0x1e)
        ),
        (MAX_SIZE, 0xffff, 0, 2)
    );
    rig.set_up(2, 64, 0x1_2345_6780, 0x10, 0x20);
    assert_eq!(u64::from_le_bytes(rig.read(0x20)), 0x1_2345_6780);
    rig.write(0x28, &0x2_0000_0030_u64.to_le_bytes());
    assert_eq!(
        u64::from_le_bytes(rig.read(0x28)),
        0x2_0000_0030,
        "8 bytes at once"
    );
    assert_eq!(rig.word(0x18), 64);
    for size in [0, MAX_SIZE + 1, 0xffff] {
        rig.write(0x18, &size.to_le_bytes());
        assert_eq!(rig.word(0x18), 64);
    }
    rig.set_up(QUEUES, 64, 0x1000, 0x2000, 0x3000);
    assert!(!rig.enable());
    assert_eq!((rig.word(0x18), rig.word(0x1a)), (0, 0xffff));
}

#[test]
fn unsound_queues_are_not_enabled() {
    for (size, desc, avail, used) in [
        (100, 0x1000, 0x2000, 0x3000),
        (128, 0x1001, 0x2000, 0x3000),
        (128, 0x1000, 0x2000, RAM - 4),
        (128, u64::MAX - 15, 0x2000, 0x3000),
    ] {
        let rig = Rig::new(VERSION_1);
        rig.negotiate();
        rig.set_up(0, size, desc, avail, used);
        assert!(!rig.enable());
        rig.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
        assert_eq!(
            rig.device.calls(),
            [Call::Start {
                features: VERSION_1,
                queues: vec![]
            }]
        );
    }
}

#[test]
fn an_enabled_queue_is_fixed() {
    let rig = Rig::running();
    rig.set_up(0, 64, 0x5000, 0x6000, 0x7000);
    assert_eq!(rig.word(0x18), 128);
    assert_eq!(u64::from_le_bytes(rig.read(0x20)), 0x1_0000);
    rig.write(0x1c, &0_u16.to_le_bytes());
    assert_eq!(rig.word(0x1c), 1);
}

#[test]
fn each_enabled_queue_has_its_doorbell() {
    let rig = Rig::running();
    assert_eq!(rig.wiring.doorbells(), [BAR0 + notify(0), BAR0 + notify(1)]);
    assert!(rig.wiring.ring(BAR0 + notify(1)));
    assert_eq!((rig.device.kicks(0), rig.device.kicks(1)), (0, 1));
}

#[test]
fn a_notify_that_reaches_the_bar_rings_too() {
    let rig = Rig::running();
    rig.write(notify(0), &[0; 2]);
    rig.write(notify(0), &[0; 4]);
    rig.write(notify(1), &[1, 0]);
    rig.write(notify(2), &[2, 0]);
    rig.write(notify(1000), &[2, 0]);
    assert_eq!((rig.device.kicks(0), rig.device.kicks(1)), (2, 1));
}

#[test]
fn doorbells_move_with_the_bar() {
    let rig = Rig::running();
    rig.config_write(0x10, &0xc100_0000_u32.to_le_bytes());
    assert_eq!(
        rig.wiring.doorbells(),
        [0xc100_0000 + notify(0), 0xc100_0000 + notify(1)]
    );
    rig.config_write(4, &[4]);
    assert!(rig.wiring.doorbells().is_empty());
    rig.config_write(0x10, &0xffff_ffff_u32.to_le_bytes());
    rig.config_write(4, &[6]);
    assert!(rig.wiring.doorbells().is_empty(), "outside the window");
    rig.config_write(0x10, &(BAR0 as u32).to_le_bytes());
    assert_eq!(rig.wiring.doorbells(), [BAR0 + notify(0), BAR0 + notify(1)]);
    assert!(rig.wiring.ring(BAR0 + notify(0)));
    assert_eq!(rig.device.kicks(0), 1);
}

#[test]
fn without_doorbells_notifies_go_by_the_bar() {
    let rig = Rig::new(VERSION_1);
    rig.wiring.broken.store(true, Ordering::SeqCst);
    rig.negotiate();
    rig.set_up(0, 128, 0x1000, 0x2000, 0x3000);
    assert!(rig.enable());
    rig.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    rig.write(notify(0), &[0; 2]);
    assert_eq!(rig.device.kicks(0), 1);
}

#[test]
fn a_queue_enabled_after_driver_ok_is_started_alone() {
    let rig = Rig::running();
    rig.run_queue(2);
    assert_eq!(rig.device.calls(), [Call::StartQueue(2)]);
    rig.write(notify(2), &[0; 2]);
    assert_eq!(rig.device.kicks(2), 1);
}

#[test]
fn a_queue_is_reset_alone_and_runs_again() {
    let rig = Rig::running();
    rig.device.hold.store(true, Ordering::SeqCst);
    rig.select(1);
    rig.write(0x3a, &1_u16.to_le_bytes());
    assert_eq!(rig.device.calls(), [Call::StopQueue(1)]);
    assert_eq!((rig.word(0x3a), rig.word(0x1c)), (1, 0));
    assert_eq!(rig.wiring.doorbells(), [BAR0 + notify(0)]);
    rig.set_up(1, 128, 0x1000, 0x2000, 0x3000);
    assert!(!rig.enable(), "not before it has stopped");
    rig.device.hold.store(false, Ordering::SeqCst);
    assert_eq!((rig.word(0x3a), rig.word(0x1a)), (0, 0xffff));
    rig.run_queue(1);
    assert_eq!(rig.device.calls(), [Call::StartQueue(1)]);
    rig.device.interrupt(1);
    assert_eq!(rig.wiring.delivered(), [message(2)]);
}

#[test]
fn a_queue_is_not_reset_alone_unless_negotiated() {
    let rig = Rig::new(VERSION_1);
    rig.drive();
    rig.device.calls();
    rig.select(1);
    rig.write(0x3a, &1_u16.to_le_bytes());
    assert_eq!((rig.word(0x3a), rig.word(0x1c)), (0, 1));
    assert_eq!(rig.device.calls(), []);
}
