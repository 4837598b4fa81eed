//! The virtio console, driven without a VM.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use outboard_console::device::{Console, Events};
use outboard_console::size::Size;
use outboard_device::driver::connection::DEFAULT_LIMIT;
use outboard_device::driver::console::TX;
use outboard_device::driver::{Driver, Options, QueueOptions, Segment};
use outboard_device::session;

/// Writes until the stream takes no more; returns how much it took.
fn fill(mut stream: &UnixStream) -> usize {
    stream.set_nonblocking(true).unwrap();
    let mut taken = 0;
    loop {
        match stream.write(&[b'.'; 4096]) {
            Ok(more) => taken += more,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return taken,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Some frontends, QEMU among them, disable a ring before they ask for its base.
#[test]
fn what_nobody_reads_goes_back_also_to_a_ring_that_is_disabled_first() {
    for disabled_first in [false, true] {
        let (guests, mut peoples) = UnixStream::pair().unwrap();
        let before = fill(&guests);
        let (front, back) = UnixStream::pair().unwrap();
        let serving = thread::spawn(move || {
            let mut console = Console::new(guests, Size::default(), Events::default());
            session::serve(&mut console, &back)
        });
        let mut driver = Driver::new(front, &Options::default()).unwrap();
        driver.start_queue(TX, &QueueOptions::default()).unwrap();
        let text = driver.allocate(64, 64).unwrap();
        text.write(0, b"kept");
        let queue = driver.queue(TX).unwrap();
        queue.add(&[Segment::readable(text.addr(), 4)], 0).unwrap();
        queue.flush().unwrap();
        // The device has it and is stuck.
        thread::sleep(Duration::from_millis(100));
        if disabled_first {
            driver.connection().enable_queue(TX, false).unwrap();
        }
        let base = driver.stop_queue(TX).unwrap();
        assert_eq!(base, 0, "disabled first: {disabled_first}");
        // Resumed there, it is printed once people read.
        driver.resume_queue(TX, base).unwrap();
        let mut seen = vec![0; before + 4];
        peoples.read_exact(&mut seen).unwrap();
        assert!(seen.ends_with(b".kept"));
        driver.queue(TX).unwrap().wait(DEFAULT_LIMIT).unwrap();
        drop(driver);
        serving.join().unwrap().unwrap();
    }
}
