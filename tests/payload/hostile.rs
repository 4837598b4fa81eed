//! A driver out of its mind: any value to any register of every device, rings full of nonsense,
//! resets at any time, on both CPUs at once.
//!
//! Only what would turn the guest against itself is left out. Rings and buffers lie in
//! [`PLAYGROUND`], at the end of RAM and beyond it; an MSI-X message is an ordinary interrupt; and
//! nothing is written behind a BAR that is not in PCI's window.

use core::arch::asm;

use crate::pci::Function;
use crate::port;

/// The devices that a test gives the machine, and the host bridge.
const SLOTS: [u8; 4] = [0, 1, 8, 9];
/// The last 4 MiB of the 64 that the tests' machines have; nothing else lies there.
const PLAYGROUND: u64 = 60 << 20;
/// How many pages of it hold descriptors; as many after them hold available or used rings.
const TABLES: u64 = 32;
/// Memory that no descriptor of the madness names, and nothing else uses: 28 MiB before the playground.
const APART: core::ops::Range<usize> = 32 << 20..PLAYGROUND as usize;
const WINDOW: core::ops::Range<usize> = 0xc000_0000..0xe000_0000;
/// Registers of the common configuration with their widths, but for the rings' addresses.
const COMMON: [(usize, usize); 14] = [
    (0x00, 4), (0x04, 4), (0x08, 4), (0x0c, 4), (0x10, 2), (0x12, 2), (0x14, 1), (0x15, 1),
    (0x16, 2), (0x18, 2), (0x1a, 2), (0x1c, 2), (0x1e, 2), (0x3a, 2),
];
const NOTIFY: usize = 0x3000;

/// Numbers that look random and come again with the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.roll() >> 16) as usize % end
    }

    fn width(&mut self) -> usize {
        1 << self.below(4)
    }

    /// In the playground, at its end, beyond RAM, or at the end of all addresses.
    fn address(&mut self) -> u64 {
        let offset = self.roll() >> 20;
        match self.below(8) {
            0 => (64 << 20) + (offset % (1 << 40)),
            1 => u64::MAX - offset % 64,
            2 => (64 << 20) - 1 - offset % 64,
            _ => PLAYGROUND + offset % (4 << 20) / 16 * 16,
        }
    }
}

/// An access of 1, 2, 4 or 8 bytes, aligned or not.
fn poke(address: usize, width: usize, value: u64) {
    let at = address;
    unsafe {
        match width {
            1 => asm!("mov [{at}], {value:l}", at = in(reg) at, value = in(reg) value),
            2 => asm!("mov [{at}], {value:x}", at = in(reg) at, value = in(reg) value),
            4 => asm!("mov [{at}], {value:e}", at = in(reg) at, value = in(reg) value),
            _ => asm!("mov [{at}], {value}", at = in(reg) at, value = in(reg) value),
        }
    }
}

fn peek(address: usize, width: usize) {
    let at = address;
    unsafe {
        match width {
            1 => asm!("mov {value:l}, [{at}]", at = in(reg) at, value = out(reg) _),
            2 => asm!("mov {value:x}, [{at}]", at = in(reg) at, value = out(reg) _),
            4 => asm!("mov {value:e}, [{at}]", at = in(reg) at, value = out(reg) _),
            _ => asm!("mov {value}, [{at}]", at = in(reg) at, value = out(reg) _),
        }
    }
}

/// What lies at an address apart: another value at each.
fn mark(at: usize) -> u64 {
    (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Writes what nobody may write over.
pub fn mark_apart() {
    APART.step_by(8).for_each(|at| unsafe { (at as *mut u64).write_volatile(mark(at)) });
}

/// Does what a device would that writes where nobody told it to.
pub fn stray() {
    poke(APART.start + 0x12_3457, 1, 0x5a);
}

/// Whether all of it is as it was.
pub fn apart_is_intact() -> bool {
    APART.step_by(8).all(|at| unsafe { (at as *const u64).read_volatile() } == mark(at))
}

/// What a device looked like before.
#[derive(Clone, Copy)]
struct Before {
    function: Function,
    bars: [u32; 2],
}

/// All of them. Restored at the end, for an orderly driver to go on.
pub struct Victims([Option<Before>; SLOTS.len()]);

impl Victims {
    pub fn find() -> Self {
        Self(SLOTS.map(|slot| {
            let function = Function::find(slot)?;
            Some(Before { function, bars: [function.read(0x10), function.read(0x14)] })
        }))
    }

    /// Where the BARs were, MSI-X off, nothing decoded.
    pub fn restore(&self) {
        self.0.iter().flatten().for_each(Before::restore);
    }

    /// `count` accesses.
    pub fn torment(&self, count: u64, seed: u64) {
        let mut dice = Dice(seed | 1);
        for round in 0..count {
            let Some(victim) = self.0[dice.below(SLOTS.len())] else { continue };
            match dice.below(12) {
                0 => configure(victim.function, &mut dice),
                1 => configure_by_ports(&mut dice),
                2 => peek_config(victim.function, &mut dice),
                3 | 4 => victim.registers(&mut dice),
                5 => victim.vectors(&mut dice),
                6 => victim.look(&mut dice),
                _ if round % 16 == 0 => victim.drive(&mut dice),
                7 => victim.revive(),
                _ => victim.notify(&mut dice),
            }
        }
    }
}

/// Any bits anywhere in config space.
fn configure(function: Function, dice: &mut Dice) {
    let (offset, value) = (dice.below(0x120), dice.roll());
    match dice.width() {
        1 => function.write(offset, value as u8),
        2 => function.write(offset & !1, value as u16),
        _ => function.write(offset & !3, value as u32),
    }
}

fn configure_by_ports(dice: &mut Dice) {
    let slot = u32::from(SLOTS[dice.below(SLOTS.len())]);
    let register = dice.roll() as u32 & 0x7fc;
    port::out32(0xcf8, 1 << 31 | slot << 11 | register);
    match dice.width() {
        1 => port::out8(0xcfc + dice.below(4) as u16, dice.roll() as u8),
        2 => port::out16(0xcfc + dice.below(4) as u16, dice.roll() as u16),
        _ => port::out32(0xcfc, dice.roll() as u32),
    }
}

fn peek_config(function: Function, dice: &mut Dice) {
    let offset = dice.below(0xffc);
    match dice.width() {
        1 => _ = function.read::<u8>(offset),
        2 => _ = function.read::<u16>(offset & !1),
        _ => _ = function.read::<u32>(offset & !3),
    }
}

impl Before {
    fn restore(&self) {
        let function = self.function;
        function.write(4, 0_u16);
        function.write(0x10, self.bars[0]);
        function.write(0x14, self.bars[1]);
        for msix in function.capabilities(0x11).take(1) {
            function.write(msix + 2, 0_u16);
        }
    }

    /// Back where it was, but with everything on.
    fn revive(&self) {
        self.restore();
        self.function.enable();
        for msix in self.function.capabilities(0x11).take(1) {
            self.function.write(msix + 2, 0x8000_u16);
        }
    }

    /// Where a BAR is now or was, if there is no harm in writing there.
    fn bar(&self, index: u8, dice: &mut Dice) -> Option<usize> {
        let was = (self.bars[usize::from(index)] & !0xf) as usize;
        let now = if dice.below(2) == 0 { was } else { self.function.bar(index) };
        (WINDOW.contains(&now) && WINDOW.contains(&(now + 0x4000))).then_some(now)
    }

    fn registers(&self, dice: &mut Dice) {
        let Some(bar) = self.bar(0, dice) else { return };
        match dice.below(8) {
            0 => poke(bar + 0x1000 + dice.below(16), dice.width(), dice.roll()),
            1 => poke(bar + 0x2000 + dice.below(0x100), dice.width(), dice.roll()),
            2 => {
                let (register, address) = (0x20 + 8 * dice.below(3), dice.address());
                poke(bar + register, 4, address);
                poke(bar + register + 4, 4, address >> 32);
            }
            3 => poke(bar + 0x14, 1, [0, 1, 3, 0xb, 0xf, 0x80, 0xff, 4][dice.below(8)]),
            _ => {
                let (register, width) = COMMON[dice.below(COMMON.len())];
                let small = dice.below(2) == 0;
                let value = if small { dice.roll() % 4 } else { dice.roll() };
                poke(bar + register, width, value);
            }
        }
    }

    /// Ordinary interrupts with any destination, masked or not.
    fn vectors(&self, dice: &mut Dice) {
        let Some(bar) = self.bar(1, dice) else { return };
        let entry = bar + dice.below(8) * 16;
        match dice.below(5) {
            0 => poke(entry, 4, 0xfee0_0000 | dice.roll() % (1 << 20)),
            1 => poke(entry + 4, 4, dice.roll() >> 32 & dice.roll()),
            2 => poke(entry + 8, 4, 0x60 + dice.roll() % 0x80),
            3 => poke(entry + 12, 4, dice.roll()),
            _ => poke(bar + 0x800 + dice.below(16), dice.width(), dice.roll()),
        }
    }

    fn look(&self, dice: &mut Dice) {
        let index = dice.below(2) as u8;
        if let Some(bar) = self.bar(index, dice) {
            peek(bar + dice.below(if index == 0 { 0x4000 } else { 0x1000 } - 8), dice.width());
        }
    }

    fn notify(&self, dice: &mut Dice) {
        if let Some(bar) = self.bar(0, dice) {
            poke(bar + NOTIFY + dice.below(12), dice.width(), dice.roll());
        }
    }

    /// All the way to `DRIVER_OK` as a driver goes it, with rings of nonsense.
    fn drive(&self, dice: &mut Dice) {
        self.revive();
        let bar = (self.bars[0] & !0xf) as usize;
        if !WINDOW.contains(&bar) {
            return;
        }
        for status in [0, 1, 3] {
            poke(bar + 0x14, 1, status);
        }
        let features = dice.roll() & [!0, 1 << 28 | 1 << 29 | 1 << 32 | 1 << 40, 1 << 32][dice.below(3)];
        for half in 0..2 {
            poke(bar, 4, half);
            let offered = unsafe { ((bar + 4) as *const u32).read_volatile() };
            poke(bar + 8, 4, half);
            let version_1 = half;
            poke(bar + 0xc, 4, u64::from(offered) & (features >> (32 * half) | version_1));
        }
        poke(bar + 0x14, 1, 0xb);
        for queue in 0..2 {
            nonsense(dice);
            poke(bar + 0x16, 2, queue);
            poke(bar + 0x18, 2, 1 << dice.below(9));
            poke(bar + 0x1a, 2, queue);
            for (register, first) in [(0x20, 0), (0x28, TABLES), (0x30, TABLES)] {
                let near = PLAYGROUND + (first + dice.roll() % TABLES) * 4096;
                let address = if dice.below(16) == 0 { dice.address() } else { near };
                poke(bar + register, 4, address);
                poke(bar + register + 4, 4, address >> 32);
            }
            poke(bar + 0x1c, 2, 1);
        }
        poke(bar + 0x14, 1, 0xf);
        for queue in 0..2 {
            poke(bar + NOTIFY + 4 * queue, 2, queue as u64);
        }
    }
}

/// Chains that loop, point nowhere, claim gigabytes, nest; heads that do not exist, indices that
/// jump. A page that is a table of indirect descriptors is one of a queue too, and available rings
/// are written over by devices that take them for used ones.
fn nonsense(dice: &mut Dice) {
    for page in 0..TABLES {
        for n in 0..10 {
            let descriptor = (PLAYGROUND + page * 4096 + n * 16) as usize;
            let len = match dice.below(4) {
                0 => dice.roll() & 0xffff_ffff,
                1 => 16 * dice.roll() % 64,
                _ => dice.roll() % 1024,
            };
            let (flags, next) = (dice.roll() % 8, dice.roll() % 12);
            poke(descriptor, 8, dice.address());
            poke(descriptor + 8, 8, len | flags << 32 | next << 48);
        }
        let ring = (PLAYGROUND + (TABLES + page) * 4096) as usize;
        let index = if dice.below(8) == 0 { dice.roll() } else { dice.roll() % 8 };
        poke(ring, 4, index << 16);
        for n in 0..8 {
            let head = if dice.below(32) == 0 { dice.roll() } else { dice.roll() % 10 };
            poke(ring + 4 + 2 * n, 2, head);
        }
    }
}
