//! The conformance kit for registers against every plugin of registers of ours.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::LazyLock;
use std::thread;

use outboard::plugin::Inspected;
use outboard::plugin::library::Library;
use outboard_device::abi::host::Plugin;
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
fn uart() -> Expected {
    Expected {
        // A wide access is one to each of several registers.
        widths: vec![1, 2, 4, 8],
        // All but the bytes, and the cause of the interrupt, which is gone once it is read.
        plain: vec![1, 3, 4, 5, 6, 7],
        raise: vec![Access::Read(2, 1), Access::byte(1, 2)],
        lower: Vec::new(),
    }
}

/// The port as a shared library, with nothing behind it.
fn serial(library: &Path) -> Outcome<Registers> {
    Registers::load(library, &[], uart())
}

/// ttyS0: the table that the VMM has built in, with a console behind it and somebody who takes a copy.
fn ttys0() -> Outcome<Registers> {
    static ENDS: LazyLock<[UnixStream; 2]> = LazyLock::new(|| {
        [(); 2].map(|()| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            thread::spawn(move || io::copy(&mut &theirs, &mut io::sink()));
            ours
        })
    });
    let [console, copy] = ENDS.each_ref().map(|end| end.as_raw_fd().to_string());
    let options = [
        ("base", "0x3f8"),
        ("irq", "4"),
        ("fd", &console),
        ("copy-fd", &copy),
    ];
    let plugin = Library::Serial.load();
    let plugin = plugin.map_err(outboard_device::testing::Failure::new)?;
    Ok(Registers::new(plugin, &options, uart()))
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

mod ttys0_of_the_vmm {
    use super::*;
    outboard_device::register_conformance!(ttys0());
}

/// What the VMM has built in is what the shared library exports: name, version, ABI, options and all.
#[test]
fn the_vmms_own_table_is_the_librarys() {
    let library = plugins::rust("outboard-plugin-serial", "outboard_serial");
    let exported = Inspected::from(&Plugin::load(&library).unwrap());
    let built_in = Inspected::from(&Library::Serial.load().unwrap());
    assert_eq!(built_in, exported);
    assert_eq!(built_in.devices[0].name, "serial");
    // Another plugin is told apart.
    let card = plugins::rust("outboard-plugin-nic-regs", "outboard_nic_regs");
    assert_ne!(built_in, Inspected::from(&Plugin::load(&card).unwrap()));
}

/// Its interrupts are edges. Whoever takes them for levels is told.
#[test]
fn a_port_that_should_hold_its_line_is_found_out() {
    registers::interrupts::holds_its_line(&ttys0().unwrap()).unwrap();
    let level = Expected {
        lower: vec![Access::Read(2, 1)],
        ..uart()
    };
    let level = Registers::new(Library::Serial.load().unwrap(), &[], level);
    let why = registers::interrupts::holds_its_line(&level).unwrap_err();
    assert!(why.to_string().contains("the line is low"), "{why}");
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
