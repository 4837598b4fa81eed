//! ttyS0 itself: the serial port that is built in, described as any other plugin's registers are.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use super::ID;
use super::transcript::Transcript;
use crate::arch::x86_64::layout;
use crate::logs::Log;
use crate::plugin::library::Library;
use crate::plugin::settle::RegistersConfig;

/// The port, before it is made: its ends of the streams that it will take.
pub(in crate::vm) struct Port {
    console: Option<UnixStream>,
    copy: Option<UnixStream>,
}

impl Port {
    /// A port whose bytes go to and come from `console`; without one its output is dropped. What is
    /// printed is written to `log` as well, for as long as the transcript is there.
    pub(in crate::vm) fn new(
        console: Option<UnixStream>,
        log: Option<Log>,
    ) -> io::Result<(Self, Option<Transcript>)> {
        let log = log.filter(|_| console.is_some());
        let (copy, transcript) = log.map(Transcript::begin).transpose()?.unzip();
        Ok((Self { console, copy }, transcript))
    }

    /// What the device is made of. The port is kept until it has been.
    pub(in crate::vm) fn registers(&self) -> RegistersConfig {
        let own = |(key, value): (&str, u64)| (key.to_owned(), value.to_string());
        let mut options = BTreeMap::from(
            [
                ("base", layout::COM1.start.into()),
                ("irq", layout::IRQ_COM1.into()),
            ]
            .map(own),
        );
        for (key, stream) in [("fd", &self.console), ("copy-fd", &self.copy)] {
            if let Some(stream) = stream {
                options.insert(key.to_owned(), stream.as_raw_fd().to_string());
            }
        }
        RegistersConfig {
            id: ID.to_owned(),
            library: Library::Serial,
            device: "serial".to_owned(),
            options,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use proptest::prelude::*;
    use vm_memory::{GuestAddress, GuestMemoryMmap};

    use super::*;
    use crate::bus::Bus;
    use crate::chipset::testing::Line;
    use crate::logs::Logs;
    use crate::plugin::registers::Registers;

    const DATA: u64 = layout::COM1.start as u64;
    const LINE_STATUS: u64 = DATA + 5;
    /// Reached only by a failing test.
    const LIMIT: Duration = Duration::from_secs(30);

    /// The port on a bus, by the way that every plugin's registers take.
    fn attached(port: &Port) -> (Registers, Arc<Bus>) {
        let (ports, mmio) = (Arc::new(Bus::new()), Arc::new(Bus::new()));
        let line =
            |_| -> Arc<dyn outboard_device::register::InterruptLine> { Arc::new(Line::default()) };
        let configs = [port.registers()];
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        let registers = Registers::attach(&configs, &ports, &mmio, &Arc::new(ram), line).unwrap();
        (registers, ports)
    }

    #[test]
    fn what_is_printed_reaches_the_console_and_the_log_and_then_the_stream_ends() {
        let folder = tempfile::tempdir().unwrap();
        let log = Logs::open(folder.path()).unwrap().log("serial");
        let (ours, mut console) = UnixStream::pair().unwrap();
        let (port, transcript) = Port::new(Some(ours), log).unwrap();
        let (registers, ports) = attached(&port);
        drop(port);
        for byte in b"one\nlogin: " {
            assert!(ports.write(DATA, &[*byte]));
        }
        console.write_all(b"root").unwrap();
        let mut status = [0];
        let end = Instant::now() + LIMIT;
        while status[0] & 1 == 0 {
            assert!(Instant::now() < end, "no input comes");
            ports.read(LINE_STATUS, &mut status);
        }
        let mut byte = [0];
        ports.read(DATA, &mut byte);
        assert_eq!(byte, *b"r");
        drop(registers);
        assert!(!ports.write(DATA, b"?"), "it is on the bus");
        let mut printed = String::new();
        console.read_to_string(&mut printed).unwrap();
        assert_eq!(printed, "one\nlogin: ");
        drop(transcript);
        let log = std::fs::read_to_string(folder.path().join("serial.log")).unwrap();
        let lines: Vec<_> = log
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(_, text)| text)
            .collect();
        assert_eq!(lines, ["one", "login: "]);
    }

    proptest! {
        #[test]
        fn any_access_of_any_size_is_harmless(
            accesses in prop::collection::vec((0u64..8, 0..4u32, any::<Option<[u8; 8]>>()), 1..200)
        ) {
            let (port, _) = Port::new(None, None).unwrap();
            let (registers, ports) = attached(&port);
            for (offset, width, value) in accesses {
                let len = 1 << width;
                match value {
                    Some(value) => drop(ports.write(DATA + offset, &value[..len])),
                    None => drop(ports.read(DATA + offset, &mut vec![0; len])),
                }
            }
            registers.reset();
            let mut status = [0];
            prop_assert!(ports.read(LINE_STATUS, &mut status));
            prop_assert_eq!(status, [0x60]);
        }
    }
}
