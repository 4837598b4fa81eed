use super::*;
use crate::chipset::testing::{Line as TestLine, read};

const DATA: u64 = 0;
const INTERRUPT_ENABLE: u64 = 1;
const LINE_STATUS: u64 = 5;
const DATA_READY: u8 = 1;

fn port() -> (SerialPort, UnixStream, Arc<TestLine>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let line = Arc::new(TestLine::default());
    (
        SerialPort::new(line.clone(), Some(ours), None).unwrap(),
        theirs,
        line,
    )
}

fn write(port: &SerialPort, offset: u64, value: u8) {
    port.device.lock().unwrap().write(offset, &[value]);
}

/// Reads input as a guest that polls does.
fn input(port: &SerialPort, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        let mut serial = port.device.lock().unwrap();
        if read::<1>(&mut *serial, LINE_STATUS)[0] & DATA_READY == 0 {
            drop(serial);
            std::thread::yield_now();
            continue;
        }
        bytes.extend(read::<1>(&mut *serial, DATA));
    }
    bytes
}

#[test]
fn output_reaches_the_console() {
    let (port, mut console, _) = port();
    for byte in b"login: " {
        write(&port, DATA, *byte);
    }
    let mut bytes = [0; 7];
    console.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"login: ");
}

#[test]
fn input_larger_than_the_fifo_arrives_whole_and_in_order() {
    let (port, mut console, line) = port();
    write(&port, INTERRUPT_ENABLE, 1);
    let text: Vec<u8> = (0..1000u32).map(|n| n as u8).collect();
    console.write_all(&text).unwrap();
    assert_eq!(input(&port, text.len()), text);
    assert!(line.edges() > 0);
}

#[test]
fn a_console_that_does_not_read_loses_the_oldest_output_and_blocks_nobody() {
    let (port, mut console, _) = port();
    let total = 4 * OUTPUT_LIMIT;
    for n in 0..total {
        write(&port, DATA, (n / 1000) as u8);
    }
    assert_eq!(port.wire.pending().len(), OUTPUT_LIMIT);
    drop(std::thread::spawn(move || drop(port)));
    let mut bytes = Vec::new();
    console.read_to_end(&mut bytes).unwrap();
    assert!(bytes.len() > OUTPUT_LIMIT && bytes.len() < total);
    assert_eq!(*bytes.last().unwrap(), ((total - 1) / 1000) as u8);
}

#[test]
fn the_console_sees_the_end_of_its_stream_when_the_port_goes() {
    let (port, mut console, _) = port();
    let registers = port.device();
    registers.lock().unwrap().write(DATA, b"!");
    drop(port);
    registers.lock().unwrap().write(DATA, b"?");
    let mut bytes = Vec::new();
    console.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"!");
}

#[test]
fn a_console_that_is_gone_costs_its_bytes_only() {
    let (port, console, _) = port();
    drop(console);
    for _ in 0..10_000 {
        write(&port, DATA, b'x');
    }
    assert!(port.wire.pending().is_empty());
    assert_eq!(
        read::<1>(&mut *port.device.lock().unwrap(), LINE_STATUS),
        [0x60]
    );
}

#[test]
fn loopback_returns_what_is_written_and_holds_input_back() {
    let (port, mut console, _) = port();
    write(&port, MODEM_CONTROL.into(), LOOPBACK);
    console.write_all(b"later").unwrap();
    write(&port, DATA, b'z');
    assert_eq!(input(&port, 1), b"z");
    write(&port, MODEM_CONTROL.into(), 0x0b);
    assert_eq!(input(&port, 5), b"later");
}

#[test]
fn reset_returns_the_registers_to_their_defaults() {
    let (port, _console, _) = port();
    write(&port, INTERRUPT_ENABLE, 0x0f);
    write(&port, 7, 0x5a);
    port.device.lock().unwrap().reset();
    let mut serial = port.device.lock().unwrap();
    assert_eq!(read::<1>(&mut *serial, INTERRUPT_ENABLE), [0]);
    assert_eq!(read::<1>(&mut *serial, 7), [0]);
}
