//! `outboard-console` against the conformance kit, and its bytes across stops and reconnects.
#![allow(clippy::unwrap_used, clippy::panic)] // Tests fail by panicking, their helpers too.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use outboard_device::driver::connection::DEFAULT_LIMIT;
use outboard_device::driver::connection::F_RING_PACKED;
use outboard_device::driver::console::{Port, RX, TX};
use outboard_device::driver::{Driver, Options, QueueOptions, Segment};
use outboard_device::testing::{Endpoint, Expected, Probe};
use outboard_tests::listening::Listening;

/// A console with `people` (`--file` or `--attach`) at a path in its directory; and that path.
fn start(people: &str) -> (Listening, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("people");
    let args = [people, path.to_str().unwrap()];
    let check = |written: u32, _: &[u8]| match written {
        0 => Ok(()),
        some => Err(format!("{some} bytes written of what is printed")),
    };
    let expected = Expected {
        features: F_RING_PACKED,
        config_len: 12,
        queues: 2,
        max_queue_size: 1024,
        running: vec![RX, TX],
        probe: Probe {
            queue: TX,
            readable: b"conformance\n".to_vec(),
            writable: 0,
            check,
        },
    };
    let listening = Listening::start("outboard-console", args, dir, expected);
    (listening, path)
}

outboard_device::conformance!(start("--file").0);

fn driver(endpoint: &mut Listening) -> Driver {
    let mut driver = Driver::new(endpoint.connect().unwrap(), &Options::default()).unwrap();
    for queue in [RX, TX] {
        driver.start_queue(queue, &QueueOptions::default()).unwrap();
    }
    driver
}

/// Waits until the file holds `expected`, and nothing else.
fn expect_file(path: &Path, expected: &[u8]) {
    let end = Instant::now() + DEFAULT_LIMIT;
    loop {
        let found = fs::read(path).unwrap_or_default();
        if found == expected {
            return;
        }
        let wrong = !expected.starts_with(&found);
        if wrong || Instant::now() > end {
            let at = found
                .iter()
                .zip(expected)
                .take_while(|(a, b)| a == b)
                .count();
            let (found, expected) = (found.len(), expected.len());
            panic!("{found} bytes of {expected}, right up to {at}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn what_is_printed_arrives_whole_across_stops_and_reconnects() {
    let (mut endpoint, path) = start("--file");
    let mut printed = Vec::new();
    let mut line = 0u32;
    for _ in 0..3 {
        let mut driver = driver(&mut endpoint);
        let buffers = driver.allocate(64 * 64, 64).unwrap();
        for _ in 0..30 {
            let queue = driver.queue(TX).unwrap();
            for slot in 0..40usize {
                let text = format!("line {line}: {}\n", "x".repeat(line as usize % 40));
                line += 1;
                buffers.write(slot * 64, text.as_bytes());
                let addr = buffers.addr() + slot as u64 * 64;
                queue
                    .add(&[Segment::readable(addr, text.len() as u32)], 0)
                    .unwrap();
                printed.extend(text.as_bytes());
            }
            queue.flush().unwrap();
            let base = driver.stop_queue(TX).unwrap();
            driver.resume_queue(TX, base).unwrap();
            for _ in 0..40 {
                driver.queue(TX).unwrap().wait(DEFAULT_LIMIT).unwrap();
            }
        }
    }
    expect_file(&path, &printed);
}

#[test]
fn what_is_typed_arrives_whole_across_stops() {
    let (mut endpoint, path) = start("--attach");
    let mut driver = driver(&mut endpoint);
    let mut port = Port::new(&mut driver).unwrap();
    port.write(&mut driver, b"ready\n").unwrap();
    let mut person = UnixStream::connect(path).unwrap();
    person.set_read_timeout(Some(DEFAULT_LIMIT)).unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"ready\n") {
        let mut byte = [0];
        person.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    let mut typed: Vec<u8> = Vec::new();
    let mut arrived = Vec::new();
    for round in 0..50u32 {
        let text = format!("command {round}\n");
        person.write_all(text.as_bytes()).unwrap();
        typed.extend(text.as_bytes());
        let base = driver.stop_queue(RX).unwrap();
        driver.resume_queue(RX, base).unwrap();
        while arrived.len() < typed.len() {
            arrived.extend(port.read(&mut driver, DEFAULT_LIMIT).unwrap());
        }
        assert_eq!(arrived, typed);
    }
}
