//! A disk: write, flush, read back, compare.

use crate::ring::{EVENT_IDX, INDIRECT, Part, Ring};
use crate::virtio::Device;
use crate::{arena, cpu};

const ID: u16 = 2;
const READ: u32 = 0;
const WRITE: u32 = 1;
const FLUSH: u32 = 4;
const F_FLUSH: u64 = 1 << 9;
/// A request: header, data, status.
const PARTS: u16 = 3;
const BLOCK: usize = 4096;

#[repr(C)]
struct Header {
    kind: u32,
    reserved: u32,
    sector: u64,
}

/// How to wait for an answer.
#[derive(Clone, Copy)]
pub enum Wait {
    /// Until an interrupt.
    Halt,
    /// Looking.
    Look,
}

pub struct Disk {
    pub device: Device,
    ring: Ring,
    /// Requests that fit the ring at once.
    pub depth: u16,
    headers: *mut Header,
    data: *mut u8,
    status: *mut u8,
    /// Size in blocks of 4 KiB.
    pub blocks: u64,
}

impl Disk {
    /// Opens the disk in `slot`, its interrupts to `vector` of `cpu`.
    pub fn open(slot: u8, cpu: u32, vector: u8, depth: u16) -> Result<Self, &'static str> {
        let (device, agreed) = Device::open(slot, ID, F_FLUSH | EVENT_IDX | INDIRECT)?;
        let ring = device.queue(0, 256, cpu, vector, agreed)?;
        device.start();
        let depth = depth.min(ring.size() / PARTS);
        Ok(Self {
            blocks: device.config::<u64>(0) / 8,
            device,
            ring,
            depth,
            headers: arena::pages(16 * usize::from(depth)).cast(),
            data: arena::pages(BLOCK * usize::from(depth)),
            status: arena::pages(usize::from(depth)),
        })
    }

    fn data(&self, slot: u16) -> *mut u8 {
        self.data.wrapping_add(BLOCK * usize::from(slot))
    }

    /// Makes the request of `slot` available, without a kick.
    fn push(&mut self, slot: u16, kind: u32, block: u64) {
        let header = self.headers.wrapping_add(usize::from(slot));
        let status = self.status.wrapping_add(usize::from(slot));
        unsafe {
            header.write(Header { kind, reserved: 0, sector: block * 8 });
            status.write(0xff);
        }
        let (head, data) = (Part::Read(header.cast(), 16), self.data(slot));
        let first = slot * PARTS;
        match kind {
            READ => self.ring.push(first, &[head, Part::Write(data, BLOCK), Part::Write(status, 1)]),
            WRITE => self.ring.push(first, &[head, Part::Read(data, BLOCK), Part::Write(status, 1)]),
            _ => self.ring.push(first, &[head, Part::Write(status, 1)]),
        }
    }

    /// Waits for any request; its slot.
    fn finish(&mut self) -> Result<u16, &'static str> {
        let (head, _) = self.ring.wait();
        self.answered(head)
    }

    /// The slot of the chain that begins at `head`, and has come back.
    fn answered(&self, head: u16) -> Result<u16, &'static str> {
        let slot = head / PARTS;
        if head % PARTS != 0 || slot >= self.depth {
            return Err("the used ring names a chain that was never made");
        }
        match unsafe { self.status.wrapping_add(usize::from(slot)).read_volatile() } {
            0 => Ok(slot),
            1 => Err("an I/O error"),
            2 => Err("an unsupported request"),
            _ => Err("a request without an answer came back"),
        }
    }

    /// One request, waited for.
    pub fn one(&mut self, kind: u32, block: u64) -> Result<(), &'static str> {
        self.push(0, kind, block);
        self.ring.publish();
        self.finish().map(|_| ())
    }

    /// Kicks the device, which has nothing to do.
    pub fn kick(&self) {
        self.ring.kick();
    }

    pub fn flush(&mut self) -> Result<(), &'static str> {
        self.one(FLUSH, 0)
    }

    /// Does `count` requests of `kind` with `depth` under way, on blocks 0, 1, ... of the disk.
    /// Writes fill a block with its pattern; reads compare.
    pub fn run(&mut self, kind: u32, count: u64, seed: u64) -> Result<(), &'static str> {
        let mut block_of = [0_u64; 85];
        let mut next = 0;
        let mut under_way = 0;
        for slot in 0..self.depth {
            if next < count {
                self.prepare(slot, kind, next, seed, &mut block_of);
                next += 1;
                under_way += 1;
            }
        }
        self.ring.publish();
        while under_way > 0 {
            let slot = self.finish()?;
            under_way -= 1;
            let block = block_of[usize::from(slot)];
            if kind == READ && !same(self.data(slot), block, seed) {
                return Err("read something else than was written");
            }
            if next < count {
                self.prepare(slot, kind, next, seed, &mut block_of);
                next += 1;
                under_way += 1;
                self.ring.publish();
            }
        }
        Ok(())
    }

    /// Reads the disk's blocks in turn with `depth` requests under way, and notes how long each took by
    /// `clock`. Waits halted, or looks at the ring all the time. Kicks and interrupts.
    pub fn time(&mut self, depth: u16, wait: Wait, clock: fn() -> u64, times: &mut [u64]) -> Result<[u64; 2], &'static str> {
        let (kicks, calls) = (self.ring.kicks, cpu::interrupts(self.ring.vector));
        let mut begun = [0_u64; 85];
        let mut idle: [u16; 85] = core::array::from_fn(|slot| slot as u16);
        let mut idle_count = usize::from(depth.min(self.depth));
        let (mut next, mut done) = (0, 0);
        while done < times.len() {
            let now = clock();
            while idle_count > 0 && next < times.len() {
                idle_count -= 1;
                let slot = idle[idle_count];
                begun[usize::from(slot)] = now;
                self.push(slot, READ, next as u64 % self.blocks);
                next += 1;
            }
            self.ring.publish();
            let mut answer = Some(match wait {
                Wait::Halt => self.ring.wait(),
                Wait::Look => self.look()?,
            });
            let now = clock();
            while let Some((head, _)) = answer {
                let slot = self.answered(head)?;
                times[done] = now - begun[usize::from(slot)];
                done += 1;
                idle[idle_count] = slot;
                idle_count += 1;
                answer = self.ring.pop();
            }
        }
        Ok([self.ring.kicks - kicks, cpu::interrupts(self.ring.vector) - calls])
    }

    /// The next answer, looked for all the time. A device that has failed gives none.
    fn look(&mut self) -> Result<(u16, u32), &'static str> {
        loop {
            for _ in 0..1 << 24 {
                if let Some(answer) = self.ring.pop() {
                    return Ok(answer);
                }
                core::hint::spin_loop();
            }
            if self.device.needs_reset() {
                return Err("the device asks for a reset");
            }
        }
    }

    fn prepare(&mut self, slot: u16, kind: u32, number: u64, seed: u64, block_of: &mut [u64; 85]) {
        let block = number % self.blocks;
        block_of[usize::from(slot)] = block;
        if kind == WRITE {
            fill(self.data(slot), block, seed);
        }
        self.push(slot, kind, block);
    }

    /// Writes all of `count` blocks, flushes, and reads them back.
    pub fn verify(&mut self, count: u64, seed: u64) -> Result<(), &'static str> {
        self.run(WRITE, count, seed)?;
        self.flush()?;
        self.run(READ, count, seed)
    }

    /// Leaves requests under way, for a reset to meet them.
    pub fn leave_under_way(&mut self) {
        for slot in 0..self.depth {
            self.push(slot, READ, u64::from(slot) % self.blocks);
        }
        self.ring.publish();
    }
}

/// The pattern of a block: every word tells block and place. The host's side of the test knows it.
fn word(block: u64, place: u64, seed: u64) -> u64 {
    (block << 32 | place).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed
}

fn fill(data: *mut u8, block: u64, seed: u64) {
    for place in 0..(BLOCK / 8) as u64 {
        unsafe { data.cast::<u64>().add(place as usize).write(word(block, place, seed)) };
    }
}

fn same(data: *const u8, block: u64, seed: u64) -> bool {
    (0..(BLOCK / 8) as u64).all(|place| unsafe { data.cast::<u64>().add(place as usize).read() } == word(block, place, seed))
}
