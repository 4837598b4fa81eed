//! A guest at the machine's ports: serial, clock, keyboard controller, power management, hotplug,
//! reset control and PCI's address register, in accesses of any width at any offset. All answer, and
//! a reset makes them new.
#![no_main]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use outboard::arch::x86_64::layout;
use outboard::bus::Bus;
use outboard::chipset::{Chipset, ChipsetEvent, EventSink};
use outboard::pci::{BarWindows, ConfigPorts, PciRoot};
use outboard::plugin::library::Library;
use outboard::plugin::registers::Registers;
use outboard::plugin::settle::RegistersConfig;
use outboard_device::register::InterruptLine;
use outboard_fuzz::Access;
use vm_memory::{GuestAddress, GuestMemoryMmap};

#[derive(Debug, Arbitrary)]
enum Op {
    Write {
        device: u8,
        offset: u8,
        data: Access,
    },
    Read {
        device: u8,
        offset: u8,
        width: u8,
    },
    /// To an index register and the data behind it.
    Indexed {
        device: u8,
        index: u8,
        value: u8,
    },
    Anywhere {
        port: u16,
        data: Access,
    },
    PowerButton,
    Plugged(u8),
    Unplug(u8),
    /// Somebody types.
    Type(u8),
    Reset,
}

#[derive(Default)]
struct Line(AtomicBool);

impl InterruptLine for Line {
    fn set(&self, high: bool) {
        self.0.store(high, Ordering::SeqCst);
    }
}

/// Where devices are.
const PLACES: [std::ops::Range<u16>; 6] = [
    layout::COM1,
    layout::RTC,
    layout::I8042_DATA..layout::I8042_COMMAND + 1,
    layout::PM,
    layout::PCI_HOTPLUG,
    0xcf8..0xd00,
];

fuzz_target!(|ops: Vec<Op>| {
    let asked = Arc::new(AtomicUsize::new(0));
    let events: EventSink = {
        let asked = Arc::clone(&asked);
        Arc::new(move |event: ChipsetEvent| {
            let _ = event;
            asked.fetch_add(1, Ordering::SeqCst);
        })
    };
    let (console, mut far) = UnixStream::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    let sci = Arc::<Line>::default();
    let chipset = Chipset::new(sci.clone(), &events);
    let (ports, mmio) = (Arc::new(Bus::new()), Arc::new(Bus::new()));
    chipset.attach(&ports).unwrap();
    let ttys0 = RegistersConfig {
        id: "ttyS0".into(),
        library: Library::Serial,
        device: "serial".into(),
        options: BTreeMap::from([
            ("base".into(), layout::COM1.start.to_string()),
            ("irq".into(), layout::IRQ_COM1.to_string()),
            ("fd".into(), console.as_raw_fd().to_string()),
        ]),
    };
    let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
    let line = |_| -> Arc<dyn InterruptLine> { Arc::<Line>::default() };
    let registers = Registers::attach(&[ttys0], &ports, &mmio, &Arc::new(ram), line).unwrap();
    let windows = BarWindows {
        low: 0xc000_0000..0xe000_0000,
        high: 0..0,
    };
    let root = PciRoot::new(Arc::new(Bus::new()), windows).unwrap();
    let config = Arc::new(ConfigPorts::new(root, Some(chipset.reset_control())));
    ports
        .insert(0xcf8, ConfigPorts::LEN, config.clone())
        .unwrap();
    let port = |device: u8, offset: u8| {
        let place = &PLACES[usize::from(device) % PLACES.len()];
        u64::from(place.start) + u64::from(offset) % place.len() as u64
    };
    let write = |at: u64, data: &[u8]| {
        let before = asked.load(Ordering::SeqCst);
        ports.write(at, data);
        let after = asked.load(Ordering::SeqCst);
        assert!(
            after - before <= data.len(),
            "one write asked for more than it could"
        );
    };
    for op in &ops {
        match op {
            Op::Write {
                device,
                offset,
                data,
            } => write(port(*device, *offset), &data.0),
            Op::Read {
                device,
                offset,
                width,
            } => {
                let mut data = vec![0; 1 << (width % 4)];
                ports.read(port(*device, *offset), &mut data);
            }
            Op::Indexed {
                device,
                index,
                value,
            } => {
                write(port(*device, 0), &[*index]);
                write(port(*device, 1), &[*value]);
                ports.read(port(*device, 1), &mut [0]);
            }
            Op::Anywhere { port, data } => {
                write((*port).into(), &data.0);
                ports.read((*port).into(), &mut data.0.clone());
            }
            Op::PowerButton => chipset.press_power_button(),
            Op::Plugged(slot) => chipset.hotplug().lock().unwrap().plugged(slot % 40),
            Op::Unplug(slot) => chipset.hotplug().lock().unwrap().request_unplug(slot % 40),
            Op::Type(byte) => drop(far.write(&[*byte])),
            Op::Reset => {
                chipset.reset();
                registers.reset();
                config.reset();
            }
        }
    }
    let _ = far.read(&mut [0; 4096]);
    chipset.reset();
    registers.reset();
    let mut status = [0];
    ports.read(u64::from(layout::COM1.start) + 5, &mut status);
    assert_eq!(status[0] & 0x60, 0x60, "ttyS0 is not itself after a reset");
    assert!(
        !sci.0.load(Ordering::SeqCst),
        "the SCI is high after a reset"
    );
    // The clock is one again: its index register, and a valid time behind it.
    ports.write(layout::RTC.start.into(), &[0x0a]);
    let mut update = [0xff];
    ports.read(u64::from(layout::RTC.start) + 1, &mut update);
    assert_eq!(update[0] & 0x80, 0, "the clock updates for ever");
});
