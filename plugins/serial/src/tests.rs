//! The port through its table, as a host has it.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use outboard_device::abi::host::{Plugin, PluginRegisters, Wiring};
use outboard_device::register::{InterruptLine, RegisterDevice};

use crate::far::OUTPUT_LIMIT;
use crate::{DATA, DATA_READY, LINE_STATUS, LOOPBACK, MODEM_CONTROL};

const INTERRUPT_ENABLE: u64 = 1;
const SCRATCH: u64 = 7;
/// How long something that does not come is waited for.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Edges {
    high: AtomicBool,
    count: AtomicUsize,
}

impl InterruptLine for Edges {
    fn set(&self, high: bool) {
        if !self.high.swap(high, Ordering::SeqCst) && high {
            self.count.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn made(options: &[(&str, String)]) -> Result<(PluginRegisters, Arc<Edges>), String> {
    // SAFETY: the table of this crate, valid for ever.
    let plugin = unsafe { Plugin::adopt(&raw const crate::OUTBOARD_PLUGIN, Path::new("serial")) };
    let plugin = plugin.unwrap();
    let options: BTreeMap<_, _> = options
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect();
    let line = Arc::new(Edges::default());
    let wired: Arc<dyn InterruptLine> = line.clone();
    let wiring = |_: &_| Wiring {
        line: Some(wired),
        memory: None,
    };
    let device = plugin.create_registers(plugin.device(None).unwrap(), &options, wiring);
    Ok((device.map_err(|error| error.to_string())?, line))
}

fn port() -> (PluginRegisters, UnixStream, Arc<Edges>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_read_timeout(Some(LIMIT)).unwrap();
    let (port, line) = made(&[("fd", ours.as_raw_fd().to_string())]).unwrap();
    (port, theirs, line)
}

fn read(port: &mut PluginRegisters, offset: u64) -> u8 {
    let mut byte = [0xff];
    port.read(offset, &mut byte);
    byte[0]
}

fn print(port: &mut PluginRegisters, text: &[u8]) {
    for byte in text {
        port.write(DATA, &[*byte]);
    }
}

fn until(mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < LIMIT, "it does not come");
        thread::yield_now();
    }
}

/// Reads input as a guest that polls does.
fn input(port: &mut PluginRegisters, count: usize) -> Vec<u8> {
    let byte = |_| {
        until(|| read(port, LINE_STATUS) & DATA_READY != 0);
        read(port, DATA)
    };
    (0..count).map(byte).collect()
}

fn rest(mut far: UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    far.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn output_reaches_the_far_end_at_once_and_then_its_end() {
    let (mut port, mut far, _) = port();
    print(&mut port, b"login: ");
    let mut bytes = [0; 7];
    far.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"login: ");
    drop(port);
    assert!(rest(far).is_empty());
}

#[test]
fn input_larger_than_the_fifo_arrives_whole_and_in_order() {
    let (mut port, mut far, line) = port();
    port.write(INTERRUPT_ENABLE, &[1]);
    let text: Vec<u8> = (0..1000u32).map(|n| n as u8).collect();
    far.write_all(&text).unwrap();
    assert_eq!(input(&mut port, text.len()), text);
    assert!(line.count.load(Ordering::SeqCst) > 0);
}

#[test]
fn input_that_comes_later_interrupts() {
    let (mut port, mut far, line) = port();
    port.write(INTERRUPT_ENABLE, &[1]);
    for n in 1..=3 {
        far.write_all(b"x").unwrap();
        until(|| line.count.load(Ordering::SeqCst) >= n);
        assert_eq!(input(&mut port, 1), b"x");
    }
}

#[test]
fn a_far_end_that_does_not_read_loses_the_oldest_output_and_blocks_nobody() {
    let (mut port, far, _) = port();
    let total = 4 * OUTPUT_LIMIT;
    for n in 0..total {
        port.write(DATA, &[(n / 1000) as u8]);
    }
    drop(thread::spawn(move || drop(port)));
    let bytes = rest(far);
    assert!(bytes.len() > OUTPUT_LIMIT && bytes.len() < total);
    assert_eq!(*bytes.last().unwrap(), ((total - 1) / 1000) as u8);
}

#[test]
fn what_waits_when_the_port_goes_is_waited_for() {
    let (mut port, far, _) = port();
    let text = b"0123456789".repeat(400);
    print(&mut port, &text);
    let gone = thread::spawn(move || drop(port));
    thread::sleep(Duration::from_millis(50));
    assert!(rest(far) == text, "something is lost");
    gone.join().unwrap();
}

#[test]
fn what_was_kept_is_sent_once_there_is_room() {
    let (mut port, mut far, _) = port();
    let text = b"0123456789".repeat(OUTPUT_LIMIT / 20);
    print(&mut port, &text);
    let mut bytes = vec![0; text.len()];
    far.read_exact(&mut bytes).unwrap();
    assert!(bytes == text, "something is lost");
    print(&mut port, b"!");
    far.read_exact(&mut bytes[..1]).unwrap();
    assert_eq!(bytes[0], b'!');
}

#[test]
fn a_far_end_that_is_gone_costs_its_bytes_only() {
    let (mut port, far, _) = port();
    drop(far);
    print(&mut port, &[b'x'; 10_000]);
    assert_eq!(read(&mut port, LINE_STATUS), 0x60);
}

#[test]
fn a_far_end_that_says_no_more_goes_on_listening() {
    let (mut port, mut far, _) = port();
    far.write_all(b"bye").unwrap();
    far.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(input(&mut port, 3), b"bye");
    let text = b"0123456789".repeat(OUTPUT_LIMIT / 20);
    print(&mut port, &text);
    let mut bytes = vec![0; text.len()];
    far.read_exact(&mut bytes).unwrap();
    assert!(bytes == text, "something is lost");
}

#[test]
fn loopback_returns_what_is_written_and_holds_input_back() {
    let (mut port, mut far, _) = port();
    // More than the FIFO holds: the rest waits, and nobody tells of it again.
    far.write_all(&[b'a'; 100]).unwrap();
    until(|| read(&mut port, LINE_STATUS) & DATA_READY != 0);
    port.write(MODEM_CONTROL, &[LOOPBACK]);
    let mut count = 0;
    while read(&mut port, LINE_STATUS) & DATA_READY != 0 {
        assert_eq!(read(&mut port, DATA), b'a');
        count += 1;
    }
    print(&mut port, b"z");
    assert_eq!(input(&mut port, 1), b"z");
    assert_eq!(read(&mut port, LINE_STATUS) & DATA_READY, 0);
    port.write(MODEM_CONTROL, &[0x0b]);
    assert_eq!(input(&mut port, 100 - count), vec![b'a'; 100 - count]);
}

#[test]
fn reset_returns_the_registers_to_their_defaults_and_goes_on_with_the_rest() {
    let (mut port, mut far, _) = port();
    port.write(INTERRUPT_ENABLE, &[0x0f]);
    port.write(SCRATCH, &[0x5a]);
    print(&mut port, b"before ");
    // More than the FIFO holds: that is lost, what waits behind it is not.
    far.write_all(&[b'a'; 1000]).unwrap();
    far.write_all(b"b").unwrap();
    until(|| read(&mut port, LINE_STATUS) & DATA_READY != 0);
    port.reset();
    assert_eq!(read(&mut port, INTERRUPT_ENABLE), 0);
    assert_eq!(read(&mut port, SCRATCH), 0);
    while input(&mut port, 1) != b"b" {}
    print(&mut port, b"after");
    drop(port);
    assert_eq!(rest(far), b"before after");
}

#[test]
fn a_wide_access_is_one_to_each_register() {
    let (mut port, mut far, _) = port();
    port.write(DATA, &[b'x', 0x05]);
    let mut two = [0; 2];
    port.read(LINE_STATUS - 1, &mut two);
    assert_eq!(two[1], 0x60);
    assert_eq!(read(&mut port, INTERRUPT_ENABLE), 0x05);
    far.read_exact(&mut two[..1]).unwrap();
    assert_eq!(two[0], b'x');
}

#[test]
fn a_copy_gets_lines_and_the_last_one_when_the_port_goes() {
    let (to, mut copy) = UnixStream::pair().unwrap();
    let (mut port, _) = made(&[("copy-fd", to.as_raw_fd().to_string())]).unwrap();
    drop(to);
    print(&mut port, b"one\r\ntw");
    let mut bytes = [0; 5];
    copy.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"one\r\n");
    copy.set_nonblocking(true).unwrap();
    copy.read_exact(&mut bytes[..1]).unwrap_err();
    copy.set_nonblocking(false).unwrap();
    print(&mut port, &[b'x'; 1022]);
    let mut piece = [0; 1024];
    copy.read_exact(&mut piece).unwrap();
    print(&mut port, b"login: ");
    drop(port);
    assert_eq!(rest(copy), b"login: ");
}

#[test]
fn a_file_is_appended_to() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "then, ").unwrap();
    let (mut port, _) = made(&[("path", file.path().display().to_string())]).unwrap();
    print(&mut port, b"now");
    assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "then, now");
}

#[test]
fn ends_that_are_none_are_refused() {
    let file = tempfile::tempfile().unwrap();
    let number = file.as_raw_fd().to_string();
    for (options, words) in [
        (vec![("fd", "1000000".to_owned())], "take fd=1000000"),
        (vec![("fd", number.clone())], "take fd="),
        (vec![("copy-fd", number.clone())], "take copy-fd="),
        (vec![("path", "/no/such".to_owned())], "open path=/no/such"),
        (
            vec![("path", "/x".to_owned()), ("fd", number)],
            "path and fd are two ends; give one",
        ),
    ] {
        let error = made(&options).err().unwrap();
        assert!(error.contains(words), "{error}");
    }
}
