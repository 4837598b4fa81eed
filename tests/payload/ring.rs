//! The driver's side of a split virtqueue (virtio 1.2, section 2.7), waiting by interrupt.

use core::sync::atomic::{Ordering, fence};

use crate::{arena, cpu};

pub const INDIRECT: u64 = 1 << 28;
pub const EVENT_IDX: u64 = 1 << 29;
const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// A piece of a request.
#[derive(Clone, Copy)]
pub enum Part {
    /// The device reads it.
    Read(*const u8, usize),
    /// The device writes it.
    Write(*mut u8, usize),
}

pub struct Ring {
    size: u16,
    index: u16,
    base: usize,
    available: usize,
    used: usize,
    kick: usize,
    pub vector: u8,
    event_idx: bool,
    /// Heads are slots of equal length: no list of free descriptors is needed.
    next_available: u16,
    next_used: u16,
    /// How often [`Ring::publish`] has kicked.
    pub kicks: u64,
}

impl Ring {
    pub fn new(size: u16, index: u16, kick: usize, vector: u8, agreed: u64) -> Self {
        let n = usize::from(size);
        let base = arena::pages(16 * n) as usize;
        let available = arena::pages(6 + 2 * n) as usize;
        let used = arena::pages(6 + 8 * n) as usize;
        let event_idx = agreed & EVENT_IDX != 0;
        Self { size, index, base, available, used, kick, vector, event_idx, next_available: 0, next_used: 0, kicks: 0 }
    }

    pub fn descriptors(&self) -> u64 {
        self.base as u64
    }

    pub fn available(&self) -> u64 {
        self.available as u64
    }

    pub fn used(&self) -> u64 {
        self.used as u64
    }

    pub fn size(&self) -> u16 {
        self.size
    }

    /// Makes a chain of `parts` available, in descriptors from `first` on. `first` names the
    /// request when it comes back.
    pub fn push(&mut self, first: u16, parts: &[Part]) {
        for (n, part) in parts.iter().enumerate() {
            let at = first + n as u16;
            let last = n + 1 == parts.len();
            let (address, len, flags) = match *part {
                Part::Read(address, len) => (address as u64, len, 0),
                Part::Write(address, len) => (address as u64, len, WRITE),
            };
            let flags = if last { flags } else { flags | NEXT };
            let descriptor = (self.base + usize::from(at) * 16) as *mut u64;
            let rest = len as u64 | u64::from(flags) << 32 | u64::from(at + 1) << 48;
            unsafe {
                descriptor.write_volatile(address);
                descriptor.add(1).write_volatile(rest);
            }
        }
        let slot = self.available + 4 + 2 * usize::from(self.next_available % self.size);
        unsafe { (slot as *mut u16).write_volatile(first) };
        self.next_available = self.next_available.wrapping_add(1);
    }

    /// Publishes what was pushed and kicks if the device wants to know.
    pub fn publish(&mut self) {
        let index = (self.available + 2) as *mut u16;
        let before = unsafe { index.read_volatile() };
        fence(Ordering::SeqCst);
        unsafe { index.write_volatile(self.next_available) };
        fence(Ordering::SeqCst);
        if self.wants_kick(before) {
            self.kicks += 1;
            self.kick();
        }
    }

    fn wants_kick(&self, before: u16) -> bool {
        if self.event_idx {
            let event = (self.used + 4 + 8 * usize::from(self.size)) as *const u16;
            let event = unsafe { event.read_volatile() };
            let added = self.next_available.wrapping_sub(before);
            return self.next_available.wrapping_sub(event).wrapping_sub(1) < added;
        }
        unsafe { (self.used as *const u16).read_volatile() & 1 == 0 }
    }

    /// Kicks, whether or not there is anything to see.
    pub fn kick(&self) {
        unsafe { (self.kick as *mut u16).write_volatile(self.index) };
    }

    /// The next answered request and how much was written to it, if there is one.
    pub fn pop(&mut self) -> Option<(u16, u32)> {
        let index = unsafe { ((self.used + 2) as *const u16).read_volatile() };
        if index == self.next_used {
            return None;
        }
        fence(Ordering::SeqCst);
        let entry = self.used + 4 + 8 * usize::from(self.next_used % self.size);
        let (head, written) =
            unsafe { ((entry as *const u32).read_volatile(), ((entry + 4) as *const u32).read_volatile()) };
        self.next_used = self.next_used.wrapping_add(1);
        Some((head as u16, written))
    }

    /// The next answered request; halts until there is one.
    pub fn wait(&mut self) -> (u16, u32) {
        loop {
            let seen = cpu::interrupts(self.vector);
            if self.event_idx {
                let event = (self.available + 4 + 2 * usize::from(self.size)) as *mut u16;
                unsafe { event.write_volatile(self.next_used) };
            }
            fence(Ordering::SeqCst);
            if let Some(answer) = self.pop() {
                return answer;
            }
            cpu::wait(self.vector, seen);
        }
    }
}
