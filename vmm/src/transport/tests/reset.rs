//! Resets: of the device by its driver, and of the VM.

use super::*;
use crate::transport::machine::NEEDS_RESET;

fn assert_unwired(rig: &Rig) {
    assert_eq!(rig.wiring.counts(), (0, 0));
    assert!(rig.wiring.doorbells().is_empty());
}

#[test]
fn status_is_not_zero_until_the_device_has_stopped() {
    let rig = Rig::running();
    rig.device.hold.store(true, Ordering::SeqCst);
    rig.set_status(0);
    assert_eq!(rig.device.calls(), [Call::Reset]);
    assert_unwired(&rig);
    assert_ne!(rig.status(), 0);
    assert_ne!(rig.status(), 0);
    rig.device.hold.store(false, Ordering::SeqCst);
    assert_eq!(rig.status(), 0);
    rig.select(0);
    assert_eq!(
        (
            rig.word(0x1c),
            rig.word(0x18),
            rig.word(0x1a),
            rig.word(0x10)
        ),
        (0, MAX_SIZE, 0xffff, 0xffff)
    );
    assert_eq!(u64::from_le_bytes(rig.read(0x20)), 0);
    rig.drive();
}

#[test]
fn a_device_that_loses_the_bus_stops() {
    let rig = Rig::running();
    rig.config_write(4, &[6, 4]);
    assert_eq!(rig.device.calls(), vec![], "another bit of the register");
    rig.device.hold.store(true, Ordering::SeqCst);
    rig.config_write(4, &[2, 0]);
    assert_eq!(rig.device.calls(), [Call::Reset]);
    assert_unwired(&rig);
    assert_ne!(rig.status(), 0, "it still has the memory");
    rig.device.hold.store(false, Ordering::SeqCst);
    assert_eq!(rig.status(), 0);
    // A driver that never asks for the bus is served.
    rig.enable_msix();
    rig.drive();
    assert!(matches!(rig.device.calls()[..], [Call::Start { .. }]));
    rig.config_write(4, &[2, 0]);
    assert_eq!(rig.device.calls(), vec![]);
}

#[test]
fn a_reset_while_nothing_runs_ends_at_once_and_bothers_nobody() {
    let rig = Rig::new(VERSION_1);
    rig.device.hold.store(true, Ordering::SeqCst);
    rig.negotiate();
    rig.run_queue(0);
    rig.set_status(0);
    assert_eq!((rig.status(), rig.device.calls()), (0, vec![]));
    assert_unwired(&rig);
}

#[test]
fn a_driver_that_does_not_wait_gets_the_device_all_the_same() {
    let rig = Rig::running();
    rig.device.hold.store(true, Ordering::SeqCst);
    rig.set_status(0);
    rig.negotiate();
    rig.set_status(DRIVER_OK);
    let start = Call::Start {
        features: VERSION_1 | RING_RESET | 1,
        queues: vec![],
    };
    assert_eq!(rig.device.calls(), [Call::Reset, start]);
    rig.device.events().needs_reset();
    rig.device.hold.store(false, Ordering::SeqCst);
    assert_eq!(rig.status() & NEEDS_RESET, NEEDS_RESET);
    rig.device.hold.store(true, Ordering::SeqCst);
    rig.set_status(0);
    rig.device.hold.store(false, Ordering::SeqCst);
    assert_eq!(rig.status(), 0);
}

#[test]
fn what_happened_before_the_end_of_a_reset_is_forgotten() {
    let rig = Rig::running();
    rig.device.hold.store(true, Ordering::SeqCst);
    rig.set_status(0);
    rig.device.events().needs_reset();
    rig.device.events().config_changed();
    rig.device.hold.store(false, Ordering::SeqCst);
    rig.drive();
    assert_eq!((rig.wiring.delivered(), rig.isr()), (vec![], 0));
}

#[test]
fn the_vm_resets() {
    let rig = Rig::running();
    rig.config_write(0x10, &0xc100_0000_u32.to_le_bytes());
    rig.device.hold.store(true, Ordering::SeqCst);
    rig.root.reset();
    assert_eq!(rig.device.calls(), [Call::Reset]);
    assert!(!rig.root.is_reset());
    assert_unwired(&rig);
    assert_eq!(rig.config_read(0x10), BAR0 as u32);
    assert_eq!(
        rig.config_read(rig.msix_capability()) >> 16,
        u32::from(QUEUES),
        "MSI-X is off"
    );
    rig.device.hold.store(false, Ordering::SeqCst);
    assert!(rig.root.is_reset());
    rig.config_write(4, &[6, 0]);
    let mut control = [0; 4];
    rig.mmio.read(BAR1 + 12, &mut control);
    assert_eq!(control, [1, 0, 0, 0], "every vector is masked");
    rig.enable_msix();
    rig.drive();
    rig.device.interrupt(0);
    assert_eq!(rig.wiring.delivered(), [message(1)]);
}

#[test]
fn unplugging_leaves_nothing_behind() {
    let rig = Rig::running();
    let wiring = rig.wiring.clone();
    drop(rig.root.remove(SLOT as u8));
    drop(rig);
    assert_eq!(wiring.counts(), (0, 0));
    assert!(wiring.doorbells().is_empty());
}

#[test]
fn a_driver_hears_nothing_between_its_reset_and_driver_ok() {
    let rig = Rig::running();
    rig.set_status(0);
    rig.negotiate();
    rig.write(0x10, &0_u16.to_le_bytes());
    rig.device.events().config_changed();
    assert_eq!((rig.wiring.delivered(), rig.isr()), (vec![], 0));
    rig.set_status(DRIVER_OK);
    assert_eq!((rig.wiring.delivered(), rig.isr()), (vec![message(0)], 2));
}
