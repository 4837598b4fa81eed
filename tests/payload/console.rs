//! A virtio console: prints a line, reads one, prints it back.

use crate::arena;
use crate::ring::{EVENT_IDX, Part, Ring};
use crate::virtio::Device;

const ID: u16 = 3;

/// Prints `ready`, waits for a line, and prints it behind `echo: `.
pub fn converse(slot: u8, cpu: u32, vectors: [u8; 2]) -> Result<(), &'static str> {
    let (device, agreed) = Device::open(slot, ID, EVENT_IDX)?;
    let mut receive = device.queue(0, 16, cpu, vectors[0], agreed)?;
    let mut transmit = device.queue(1, 16, cpu, vectors[1], agreed)?;
    device.start();
    let buffer = arena::pages(4096);
    print(&mut transmit, b"ready\n");
    let mut line = [0; 256];
    let mut len = 0;
    while !line[..len].ends_with(b"\n") {
        receive.push(0, &[Part::Write(buffer, 64)]);
        receive.publish();
        let (_, written) = receive.wait();
        for n in 0..written as usize {
            let free = line.get_mut(len).ok_or("the line is too long")?;
            *free = unsafe { buffer.add(n).read_volatile() };
            len += 1;
        }
    }
    print(&mut transmit, b"echo: ");
    print(&mut transmit, &line[..len]);
    device.reset()
}

fn print(transmit: &mut Ring, text: &[u8]) {
    transmit.push(0, &[Part::Read(text.as_ptr(), text.len())]);
    transmit.publish();
    transmit.wait();
}
