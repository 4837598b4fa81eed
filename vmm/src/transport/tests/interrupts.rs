//! Interrupts of queues and of the config, with MSI-X and without.

use super::*;

#[test]
fn a_queue_interrupts_by_its_vector() {
    let rig = Rig::running();
    rig.device.interrupt(1);
    assert_eq!(rig.wiring.delivered(), [message(2)]);
    rig.device.interrupt(0);
    assert_eq!(rig.wiring.delivered(), [message(1)]);
    assert_eq!(rig.isr(), 0, "MSI-X leaves the ISR's queue bit alone");
}

#[test]
fn a_masked_queue_is_pending_in_the_bar() {
    let rig = Rig::running();
    rig.mask(1, true);
    rig.device.interrupt(0);
    assert_eq!((rig.wiring.delivered(), rig.pending()), (vec![], 1 << 1));
    rig.mask(1, false);
    assert_eq!(
        (rig.wiring.delivered(), rig.pending()),
        (vec![message(1)], 0)
    );
}

#[test]
fn vector_registers_read_no_vector_on_failure() {
    let rig = Rig::running();
    for bad in [QUEUES + 1, 0x7ff, 0xfffe] {
        rig.write(0x10, &bad.to_le_bytes());
        assert_eq!(rig.word(0x10), 0xffff);
        rig.select(0);
        rig.write(0x1a, &bad.to_le_bytes());
        assert_eq!(rig.word(0x1a), 0xffff);
    }
    rig.device.interrupt(0);
    rig.device.events().config_changed();
    assert_eq!(rig.wiring.delivered(), []);
    // A signal from before counts once there is a vector.
    rig.write(0x1a, &3_u16.to_le_bytes());
    assert_eq!(
        (rig.word(0x1a), rig.wiring.delivered()),
        (3, vec![message(3)])
    );
    rig.wiring.broken.store(true, Ordering::SeqCst);
    rig.write(0x10, &0_u16.to_le_bytes());
    assert_eq!(rig.word(0x10), 0xffff, "no interrupt left");
}

#[test]
fn a_config_change_interrupts_once_for_each_change() {
    let rig = Rig::running();
    rig.device.generation.store(9, Ordering::SeqCst);
    rig.device.events().config_changed();
    assert_eq!(rig.wiring.delivered(), [message(0)]);
    assert_eq!(rig.read(0x15), [9]);
    assert_eq!((rig.isr(), rig.isr()), (2, 0));
}

#[test]
fn without_msix_the_isr_tells_of_queues() {
    let rig = Rig::new(VERSION_1);
    rig.drive();
    rig.device.interrupt(1);
    assert_eq!((rig.isr(), rig.isr()), (1, 0));
    rig.device.interrupt(0);
    rig.device.events().config_changed();
    assert_eq!((rig.isr(), rig.isr()), (3, 0));
}

#[test]
fn turning_msix_off_keeps_signals_for_when_it_is_on_again() {
    let rig = Rig::running();
    let control = rig.msix_capability() + 2;
    rig.config_write(control, &[0, 0]);
    rig.device.interrupt(0);
    assert_eq!(rig.wiring.delivered(), []);
    rig.config_write(control, &[0, 0x80]);
    assert_eq!(rig.wiring.delivered(), [message(1)]);
}
