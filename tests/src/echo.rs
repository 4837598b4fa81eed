//! A console that says what it is told: what it is, and a talk with it.
#![allow(clippy::missing_panics_doc, clippy::unwrap_used)] // Tests fail by panicking, their helpers too.

use outboard_device::driver::connection::{DEFAULT_LIMIT, F_RING_PACKED};
use outboard_device::driver::console::{Port, RX, TX};
use outboard_device::driver::{Driver, Options, QueueOptions, Segment};
use outboard_device::testing::{Endpoint, Expected, Probe};

/// What the conformance kit finds.
pub fn expected() -> Expected {
    let check = |written: u32, _: &[u8]| match written {
        0 => Ok(()),
        some => Err(format!("{some} bytes written of what is said")),
    };
    Expected {
        features: F_RING_PACKED,
        config_len: 12,
        queues: 2,
        max_queue_size: 256,
        running: vec![RX, TX],
        probe: Probe {
            queue: TX,
            readable: b"conformance\n".to_vec(),
            writable: 0,
            check,
        },
    }
}

/// Hears this, or something else.
///
/// # Errors
/// Something else, or nothing.
pub fn listen(driver: &mut Driver, port: &mut Port, said: &[u8]) -> Result<(), String> {
    let mut heard = Vec::new();
    while heard.len() < said.len() {
        let more = port.read(driver, DEFAULT_LIMIT);
        heard.extend(more.map_err(|error| error.to_string())?);
    }
    (heard == said)
        .then_some(())
        .ok_or_else(|| "something else comes back".into())
}

/// Says things of many lengths, some before there are buffers for the answer, and hears them all.
///
/// # Errors
/// Something else comes back.
pub fn converse(endpoint: &mut dyn Endpoint) -> Result<(), String> {
    let mut driver = Driver::new(endpoint.connect().unwrap(), &Options::default()).unwrap();
    for queue in [RX, TX] {
        driver.start_queue(queue, &QueueOptions::default()).unwrap();
    }
    // As long as there is no buffer for it, it is kept.
    let early: Vec<u8> = (0..3000_u32).map(|n| (n % 251) as u8).collect();
    let window = driver.allocate(4096, 64).unwrap();
    window.write(0, &early);
    let queue = driver.queue(TX).unwrap();
    for piece in 0..30 {
        let segment = Segment::readable(window.addr() + piece * 100, 100);
        queue.submit(&[segment], 0).unwrap();
        queue.wait(DEFAULT_LIMIT).unwrap();
    }
    let mut port = Port::new(&mut driver).unwrap();
    listen(&mut driver, &mut port, &early)?;
    for round in 0..40_usize {
        let said: Vec<u8> = (0..=round * 800).map(|n| (n * 7 + round) as u8).collect();
        port.write(&mut driver, &said).unwrap();
        listen(&mut driver, &mut port, &said)?;
    }
    Ok(())
}
