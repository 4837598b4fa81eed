//! Interrupts that a device raises at will, and times itself: it watches the word that the handler counts in.
//! The host's side is `outboard-bench serve-interrupts`.
//!
//! A line `interrupts HOW COUNT MEAN P50 P99 P999 MAX` says how long they took, in the device's nanoseconds.

use crate::ring::{Part, Ring};
use crate::virtio::Device;
use crate::{arena, cpu, say};

const BLOCK_ID: u16 = 2;
const VECTOR: u8 = 0x50;
/// A request's kinds: keep this word in view, interrupt me once, say what came of it.
const WATCH: u32 = 0x100;
const INTERRUPT: u32 = 0x101;
const TELL: u32 = 0x102;
/// Descriptors of the longest request.
const PARTS: u16 = 3;

struct Bell {
    ring: Ring,
    /// A header and a status for each kind.
    headers: *mut [u64; 2],
    status: *mut u8,
    told: *mut [u64; 5],
}

/// `count` interrupts of a guest that is halted, and as many of one that is at work in ring 3.
pub fn run(slot: u8, count: u64) -> Result<(), &'static str> {
    // Neither event indices nor flags: an interrupt for each answer.
    let (device, agreed) = Device::open(slot, BLOCK_ID, 0)?;
    let ring = device.queue(0, 16, 0, VECTOR, agreed)?;
    device.start();
    let page = arena::pages(4096);
    let mut bell = Bell { ring, headers: page.cast(), status: page.wrapping_add(1024), told: page.wrapping_add(2048).cast() };
    let halt: fn(u64) = |seen| cpu::wait(VECTOR, seen);
    let work: fn(u64) = |seen| {
        while cpu::interrupts(VECTOR) == seen {
            core::hint::spin_loop();
        }
    };
    for (how, wait) in [("halted", halt), ("ring-3", work)] {
        bell.ask(WATCH, Some(Part::Write(cpu::counter(VECTOR).cast_mut().cast(), 8)));
        for _ in 0..count {
            let seen = cpu::interrupts(VECTOR);
            bell.ask(INTERRUPT, None);
            wait(seen);
            bell.answer()?;
        }
        let seen = cpu::interrupts(VECTOR);
        bell.ask(TELL, Some(Part::Write(bell.told.cast(), 40)));
        wait(seen);
        // What was watched comes back with it.
        bell.answer()?;
        bell.answer()?;
        let [mean, p50, p99, p999, max] = unsafe { bell.told.read_volatile() };
        say!("interrupts {how} {count} {mean} {p50} {p99} {p999} {max}");
    }
    device.reset()
}

impl Bell {
    fn ask(&mut self, kind: u32, with: Option<Part>) {
        let number = (kind - WATCH) as u16;
        let header = self.headers.wrapping_add(usize::from(number));
        let status = self.status.wrapping_add(usize::from(number));
        unsafe {
            header.write([u64::from(kind), 0]);
            status.write(0xff);
        }
        let (head, end) = (Part::Read(header.cast(), 16), Part::Write(status, 1));
        match with {
            Some(part) => self.ring.push(number * PARTS, &[head, part, end]),
            None => self.ring.push(number * PARTS, &[head, end]),
        }
        self.ring.publish();
    }

    fn answer(&mut self) -> Result<(), &'static str> {
        let (head, _) = self.ring.pop().ok_or("an interrupt came without an answer")?;
        let status = self.status.wrapping_add(usize::from(head / PARTS));
        match unsafe { status.read_volatile() } {
            0 => Ok(()),
            _ => Err("the device does not know how to time interrupts"),
        }
    }
}
