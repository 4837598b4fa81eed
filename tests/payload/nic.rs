//! The driver of `plugins/nic-regs`, a card of registers: sends frames and takes them from its loopback plug.

use crate::{arena, cpu};

/// Where the card is by default, and its interrupt line.
const BASE: usize = 0xf000_0000;
const LINE: u32 = 10;
const VECTOR: u8 = 0x64;

const ID: usize = 0x00;
const MAC: usize = 0x04;
const CAUSE: usize = 0x0c;
const MASK: usize = 0x10;
const SEND_ADDRESS: usize = 0x14;
const SEND_LENGTH: usize = 0x18;
const TAKE_ADDRESS: usize = 0x1c;
const TAKE_ROOM: usize = 0x20;
const TAKE_LENGTH: usize = 0x24;
const DOORBELL: usize = 0x28;
/// Of the doorbell.
const SEND: u32 = 1;
const TAKE: u32 = 2;
/// Of the causes.
const SENT: u32 = 1;
const TAKEN: u32 = 2;
const LOST: u32 = 4;
const WRONG: u32 = 8;

const FRAME_MAX: u32 = 1514;
const HEADER: usize = 14;
/// How often the driver looks for an interrupt before it says that none comes: for seconds.
const PATIENCE: u64 = 2_000_000_000;

fn read(register: usize) -> u32 {
    unsafe { ((BASE + register) as *const u32).read_volatile() }
}

fn write(register: usize, value: u32) {
    unsafe { ((BASE + register) as *mut u32).write_volatile(value) };
}

/// Sends `count` frames, one at a time, each of another length, and compares what comes back.
pub fn drive(count: u64) -> Result<(), &'static str> {
    if read(ID) != u32::from_le_bytes(*b"NIC1") {
        return Err("there is no card");
    }
    let [a, b, c, d] = read(MAC).to_le_bytes();
    let [e, f, ..] = read(MAC + 4).to_le_bytes();
    cpu::route_line(LINE, VECTOR);
    let (sent, taken) = (arena::pages(4096), arena::pages(4096));
    write(SEND_ADDRESS, sent as u32);
    write(TAKE_ADDRESS, taken as u32);
    write(TAKE_ROOM, FRAME_MAX);
    write(MASK, SENT | TAKEN | LOST | WRONG);
    let begin = cpu::interrupts(VECTOR);
    for number in 0..count {
        let len = HEADER as u32 + (number * 67 % 1500) as u32 + 1;
        fill(sent, len, [a, b, c, d, e, f], number);
        unsafe { taken.write_bytes(0, FRAME_MAX as usize) };
        write(SEND_LENGTH, len);
        if ring(TAKE | SEND)? != SENT | TAKEN {
            return Err("a frame was sent and did not come");
        }
        if read(TAKE_LENGTH) != len || (0..len as usize).any(|n| byte(taken, n) != byte(sent, n)) {
            return Err("a frame came back changed");
        }
    }
    if cpu::interrupts(VECTOR) - begin != count {
        return Err("there is not one interrupt for each frame");
    }
    mistakes()
}

/// What a driver should not do is answered, and harms nobody.
fn mistakes() -> Result<(), &'static str> {
    if ring(SEND)? != SENT | LOST {
        return Err("a frame came where there was no room for it");
    }
    let address = read(SEND_ADDRESS);
    for (register, value) in [(SEND_LENGTH, 0), (SEND_LENGTH, FRAME_MAX + 1), (SEND_ADDRESS, 0xfff0_0000)] {
        write(SEND_LENGTH, 64);
        write(register, value);
        if ring(SEND)? != WRONG {
            return Err("the card sends what is no frame");
        }
    }
    write(SEND_ADDRESS, address);
    write(TAKE_ADDRESS, 0xfff0_0000);
    write(SEND_LENGTH, 64);
    if ring(TAKE | SEND)? != SENT | WRONG {
        return Err("the card writes where there is no memory");
    }
    write(MASK, 0);
    Ok(())
}

/// Rings the doorbell and waits for the interrupt; returns its causes, cleared.
fn ring(what: u32) -> Result<u32, &'static str> {
    let seen = cpu::interrupts(VECTOR);
    write(DOORBELL, what);
    if (0..PATIENCE).all(|_| cpu::interrupts(VECTOR) == seen) {
        return Err("no interrupt comes");
    }
    let causes = read(CAUSE);
    write(CAUSE, causes);
    Ok(causes)
}

/// A broadcast of ours: the header, then bytes that are others in each frame.
fn fill(frame: *mut u8, len: u32, mac: [u8; 6], number: u64) {
    // Local experimental ethertype 1 (IEEE 802).
    let header = [&[0xff; 6][..], &mac, &[0x88, 0xb5]];
    let header = header.iter().copied().flatten().copied();
    let rest = (0_u8..=255).cycle().map(|n| n.wrapping_mul(31).wrapping_add(number as u8));
    for (n, value) in header.chain(rest).take(len as usize).enumerate() {
        unsafe { frame.add(n).write_volatile(value) };
    }
}

fn byte(frame: *const u8, n: usize) -> u8 {
    unsafe { frame.add(n).read_volatile() }
}
