//! The conformance kit for registers against every plugin of registers of ours.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::path::Path;

use outboard_device::testing::Outcome;
use outboard_device::testing::registers::{self, Access, Expected, Registers};
use outboard_tests::plugins;

/// The card sends a frame, and its driver notes that it is sent.
fn card(library: &Path) -> Outcome<Registers> {
    let expected = Expected {
        widths: vec![4],
        // All but the doorbell.
        plain: (0..0x28).step_by(4).collect(),
        raise: vec![
            Access::word(0x10, 1),
            Access::word(0x14, 0x1000),
            Access::word(0x18, 64),
            Access::word(0x28, 1),
        ],
        lower: vec![Access::word(0x0c, 1)],
    };
    Registers::load(library, &[], expected)
}

/// The transmitter is empty, which interrupts when that is enabled; once the cause was read, again.
fn serial(library: &Path) -> Outcome<Registers> {
    let expected = Expected {
        widths: vec![1],
        // All but the bytes, and the cause of the interrupt, which is gone once it is read.
        plain: vec![1, 3, 4, 5, 6, 7],
        raise: vec![Access::Read(2, 1), Access::byte(1, 2)],
        lower: Vec::new(),
    };
    Registers::load(library, &[("path", "/dev/null")], expected)
}

mod nic_regs {
    use super::*;
    outboard_device::register_conformance!(card(&plugins::rust(
        "outboard-plugin-nic-regs",
        "outboard_nic_regs"
    )));
}

mod serial_port {
    use super::*;
    outboard_device::register_conformance!(serial(&plugins::rust(
        "outboard-plugin-serial",
        "outboard_serial"
    )));
}

/// A card whose reset forgets the frame on the wire and not the causes that interrupt.
#[test]
fn a_card_that_is_half_reset_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let library = plugins::twin(
        "nic-regs",
        "board: self.board.take(),",
        "board: self.board.take(), mask: self.mask,",
        dir.path(),
    );
    let sound = registers::interrupts::interrupts_again(&card(&library).unwrap());
    sound.unwrap();
    let why = registers::resets::resets_to_power_on(&card(&library).unwrap()).unwrap_err();
    assert!(why.to_string().contains("after a reset there is"), "{why}");
}
