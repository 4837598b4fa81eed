//! A network card: frames to the host and back.

use crate::{arena, say};
use crate::ring::{EVENT_IDX, Part, Ring};
use crate::virtio::Device;

const ID: u16 = 1;
const F_MAC: u64 = 1 << 5;
const F_MRG_RXBUF: u64 = 1 << 15;
/// `virtio_net_hdr_v1` (virtio 1.2, section 5.1.6).
const HEADER: usize = 12;
const BUFFER: usize = 2048;
/// Local experimental ethertype 1 (IEEE 802): the host's side of the test answers it.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
const FRAME: usize = 600;

struct Card {
    device: Device,
    receive: Ring,
    transmit: Ring,
    mac: [u8; 6],
    /// One for each entry of the receive ring.
    buffers: *mut u8,
}

fn open(slot: u8, cpu: u32, vectors: [u8; 2]) -> Result<Card, &'static str> {
    let (device, agreed) = Device::open(slot, ID, F_MAC | F_MRG_RXBUF | EVENT_IDX)?;
    if agreed & F_MRG_RXBUF == 0 || agreed & F_MAC == 0 {
        return Err("the card offers no MAC or no mergeable buffers");
    }
    let mut receive = device.queue(0, 64, cpu, vectors[0], agreed)?;
    let transmit = device.queue(1, 64, cpu, vectors[1], agreed)?;
    device.start();
    let mut mac = [0; 6];
    for (n, octet) in mac.iter_mut().enumerate() {
        *octet = device.config(n);
    }
    let buffers = arena::pages(BUFFER * usize::from(receive.size()));
    for slot in 0..receive.size() {
        post(&mut receive, buffers, slot);
    }
    receive.publish();
    Ok(Card { device, receive, transmit, mac, buffers })
}

/// Sends `count` frames and waits for each to come back with the addresses swapped.
pub fn echo(slot: u8, cpu: u32, vectors: [u8; 2], count: u64) -> Result<(), &'static str> {
    let Card { device, mut receive, mut transmit, mac, buffers } = open(slot, cpu, vectors)?;
    let frame = arena::pages(BUFFER);
    for number in 0..count {
        write_frame(frame, mac, number);
        transmit.push(0, &[Part::Read(frame, HEADER + FRAME)]);
        transmit.publish();
        transmit.wait();
        await_echo(&mut receive, buffers, mac, number)?;
    }
    device.reset()
}

/// Sends `count` frames of the kind above back to where they came from.
pub fn reflect(slot: u8, cpu: u32, vectors: [u8; 2], count: u64) -> Result<(), &'static str> {
    let Card { device, mut receive, mut transmit, mac, buffers } = open(slot, cpu, vectors)?;
    let frame = arena::pages(BUFFER);
    say!("reflecting");
    let mut done = 0;
    while done < count {
        let (slot, written) = receive.wait();
        let buffer = buffers.wrapping_add(BUFFER * usize::from(slot));
        let kind = [12, 13].map(|n| unsafe { buffer.add(HEADER + n).read_volatile() });
        if written as usize == HEADER + FRAME && kind == ETHERTYPE {
            unsafe {
                frame.copy_from(buffer, HEADER + FRAME);
                frame.write_bytes(0, HEADER);
                frame.add(HEADER).copy_from(buffer.add(HEADER + 6), 6);
                frame.add(HEADER + 6).copy_from(mac.as_ptr(), 6);
            }
            transmit.push(0, &[Part::Read(frame, HEADER + FRAME)]);
            transmit.publish();
            transmit.wait();
            done += 1;
        }
        post(&mut receive, buffers, slot);
        receive.publish();
    }
    device.reset()
}

fn post(receive: &mut Ring, buffers: *mut u8, slot: u16) {
    let buffer = buffers.wrapping_add(BUFFER * usize::from(slot));
    receive.push(slot, &[Part::Write(buffer, BUFFER)]);
}

fn write_frame(frame: *mut u8, mac: [u8; 6], number: u64) {
    unsafe {
        frame.write_bytes(0, HEADER);
        let ethernet = frame.add(HEADER);
        ethernet.write_bytes(0xff, 6);
        ethernet.add(6).copy_from(mac.as_ptr(), 6);
        ethernet.add(12).copy_from(ETHERTYPE.as_ptr(), 2);
        for n in 14..FRAME {
            ethernet.add(n).write(payload(number, n));
        }
    }
}

fn payload(number: u64, place: usize) -> u8 {
    (number as u8).wrapping_mul(31).wrapping_add(place as u8)
}

/// Takes frames until the echo of `number` is there; others on the wire are somebody else's.
fn await_echo(receive: &mut Ring, buffers: *mut u8, mac: [u8; 6], number: u64) -> Result<(), &'static str> {
    loop {
        let (slot, written) = receive.wait();
        let written = written as usize;
        let buffer = buffers.wrapping_add(BUFFER * usize::from(slot));
        let byte = |n: usize| unsafe { buffer.add(HEADER + n).read_volatile() };
        let ours = written == HEADER + FRAME && (0..6).all(|n| byte(n) == mac[n]) && byte(12) == ETHERTYPE[0];
        let intact = (14..FRAME).all(|n| byte(n) == payload(number, n));
        post(receive, buffers, slot);
        receive.publish();
        match (ours, intact) {
            (true, true) => return Ok(()),
            (true, false) => return Err("an echo came back changed"),
            _ => {}
        }
    }
}
