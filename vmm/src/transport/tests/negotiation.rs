//! Status and features.

use super::*;
use crate::transport::machine::{FAILED, NEEDS_RESET};

#[test]
fn a_driver_reaches_driver_ok() {
    let rig = Rig::new(VERSION_1 | 5);
    rig.drive();
    let queues = vec![0, 1];
    assert_eq!(
        rig.device.calls(),
        [Call::Start {
            features: VERSION_1 | 5,
            queues
        }]
    );
}

#[test]
fn features_are_shown_in_two_halves_and_nothing_beyond() {
    let rig = Rig::new(VERSION_1 | 1 << 29 | 1 << 30 | 1 << 38);
    assert_eq!(
        rig.offered(),
        VERSION_1 | 1 << 29,
        "neither vhost's bit nor notification data"
    );
    rig.write(0x00, &2_u32.to_le_bytes());
    assert_eq!(rig.read(0x04), [0; 4]);
    rig.write(0x08, &7_u32.to_le_bytes());
    rig.write(0x0c, &[0xff; 4]);
    assert_eq!(rig.read(0x0c), [0; 4]);
}

#[test]
fn features_not_offered_or_without_version_1_are_refused() {
    for (offered, taken) in [
        (VERSION_1 | 1, VERSION_1 | 2),
        (VERSION_1 | 1, 1),
        (1, VERSION_1),
    ] {
        let rig = Rig::new(offered);
        rig.set_status(ACKNOWLEDGE | DRIVER);
        rig.take_features(taken);
        rig.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        assert_eq!(rig.status(), ACKNOWLEDGE | DRIVER);
        rig.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
        assert_eq!(rig.status(), ACKNOWLEDGE | DRIVER);
        rig.set_up(0, 128, 0x1000, 0x2000, 0x3000);
        assert!(!rig.enable());
        assert_eq!(rig.device.calls(), []);
    }
}

#[test]
fn features_are_fixed_once_accepted() {
    let rig = Rig::new(VERSION_1 | 3);
    rig.negotiate();
    rig.take_features(VERSION_1);
    rig.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    let features = VERSION_1 | 3;
    assert_eq!(
        rig.device.calls(),
        [Call::Start {
            features,
            queues: vec![]
        }]
    );
}

#[test]
fn status_bits_are_only_added_and_the_device_starts_once() {
    let rig = Rig::running();
    rig.set_status(ACKNOWLEDGE);
    rig.set_status(DRIVER_OK);
    assert_eq!(rig.status(), ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    rig.set_status(FAILED | NEEDS_RESET | 0x30);
    assert_eq!(
        rig.status(),
        ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | FAILED
    );
    assert_eq!(rig.device.calls(), []);
}

#[test]
fn a_broken_device_asks_for_a_reset() {
    let rig = Rig::running();
    rig.device.events().needs_reset();
    assert_eq!(rig.status() & NEEDS_RESET, NEEDS_RESET);
    assert_eq!(rig.wiring.delivered(), [message(0)]);
    assert_eq!((rig.isr(), rig.isr()), (2, 0));
    rig.drive();
}

#[test]
fn a_device_that_breaks_before_the_driver_came_is_found_broken() {
    let rig = Rig::new(VERSION_1);
    rig.device.events().needs_reset();
    assert_eq!(rig.status(), 0, "a driver waits for 0");
    rig.set_status(ACKNOWLEDGE);
    assert_eq!(rig.status(), ACKNOWLEDGE | NEEDS_RESET);
}
