//! The jobs that a command line can name, in the order given.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::block::Disk;
use crate::hostile::{self, Victims};
use crate::report::check;
use crate::start::{number, value};
use crate::{arena, bench, console, cpu, interrupts, net, nic, port, say};

/// Default slots of the VMM: by kind.
const CONSOLE_SLOT: u8 = 1;
const NET_SLOT: u8 = 2;
const DISK_SLOT: u8 = 8;
/// The VMM's registers of slots that gained a device, that shall lose one, and for ejecting it: what
/// its DSDT reads and writes.
const SLOTS_UP: u16 = 0xae00;
const SLOTS_DOWN: u16 = 0xae04;
const SLOTS_EJECT: u16 = 0xae08;

/// For [`cpu::on_both`], whose work takes no arguments.
static REQUESTS: AtomicU64 = AtomicU64::new(0);

pub fn run(line: &str) {
    let requests = number(line, "requests", 256);
    REQUESTS.store(requests, Ordering::Relaxed);
    // What is given a root file system, and no jobs, is somebody's kernel: it does not end by itself.
    let unasked = if value(line, "root").is_some() { "spin" } else { "hello" };
    for job in value(line, "jobs").unwrap_or(unasked).split(',') {
        match job {
            "hello" => say!("hello from the guest"),
            "block" => check(job, block(requests)),
            "depth1" => check(job, Disk::open(DISK_SLOT, 0, 0x50, 1).and_then(|mut disk| disk.verify(requests, 1))),
            "high" => check(job, high(requests)),
            "smp" => smp(),
            "net" => check(job, net::echo(NET_SLOT, 0, [0x60, 0x61], requests)),
            "reflect" => check(job, net::reflect(NET_SLOT, 0, [0x60, 0x61], requests)),
            "nic" => check(job, nic::drive(requests)),
            "console" => check(job, console::converse(CONSOLE_SLOT, 0, [0x62, 0x63])),
            "reset" => check(job, reset(requests)),
            "needs-reset" => check(job, needs_reset()),
            "stuck" => check(job, stuck()),
            "broken" => check(job, broken()),
            "leave" => check(job, leave()),
            "hostile" => check(job, hostile(number(line, "seed", 1), number(line, "strays", 0))),
            "plug" => check(job, plug(number(line, "cycles", 1))),
            // Lets go of its disk, which nobody has asked for.
            "let-go" => {
                port::out32(SLOTS_EJECT, 1 << DISK_SLOT);
                say!("let go");
            }
            // Slots of its own devices aside, again and again.
            "eject" => {
                say!("ejecting");
                loop {
                    port::out32(SLOTS_EJECT, 0xfffe_fefe);
                }
            }
            "storm" => storm(number(line, "seed", 1)),
            "resize" => check(job, resize()),
            "bench" => check(job, bench::run(DISK_SLOT, requests)),
            "requests" => check(job, bench::requests(DISK_SLOT, requests)),
            "interrupts" => check(job, interrupts::run(DISK_SLOT, requests)),
            "exits" => check(job, exits(requests)),
            "reboot" => port::reboot(),
            "fault" => unsafe { (0xffff_8000_0000_0000 as *const u8).read_volatile(); },
            // Halted for good: no interrupt has this vector.
            "clock" => clock(),
            "rest" => {
                say!("resting");
                loop {
                    cpu::wait(0x7f, 0);
                }
            }
            "spin" => loop { core::hint::spin_loop() },
            _ => check(job, Err("there is no such job")),
        }
    }
}

fn block(requests: u64) -> Result<(), &'static str> {
    let mut disk = Disk::open(DISK_SLOT, 0, 0x50, 16)?;
    disk.verify(requests, 1)?;
    disk.device.reset()
}

/// Works in memory above 4 GiB, and touches none where the low halves of its addresses point.
fn high(requests: u64) -> Result<(), &'static str> {
    const HIGH: usize = 5 << 30;
    const LEN: usize = 1 << 20;
    arena::move_to(HIGH..HIGH + LEN);
    let low = (HIGH as u32 as usize) as *const u64;
    block(requests)?;
    match (0..LEN / 8).all(|word| unsafe { low.add(word).read_volatile() } == 0) {
        true => Ok(()),
        false => Err("something was written 4 GiB too low"),
    }
}

/// Each CPU drives a disk of its own, at the same time.
fn smp() {
    fn drive(cpu: u8) {
        let disk = Disk::open(DISK_SLOT + cpu, u32::from(cpu), 0x50 + cpu, 8);
        let name = if cpu == 0 { "smp-cpu0" } else { "smp-cpu1" };
        check(name, disk.and_then(|mut disk| disk.verify(REQUESTS.load(Ordering::Relaxed), u64::from(cpu) + 7)));
    }
    cpu::start_second();
    say!("ok smp-start");
    cpu::on_both(|| drive(1), || drive(0));
}

static SEED: AtomicU64 = AtomicU64::new(0);
static VICTIMS: AtomicPtr<Victims> = AtomicPtr::new(null_mut());

fn torment(cpu: u64) {
    let seed = (SEED.load(Ordering::Relaxed) * 2 + cpu).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let victims = unsafe { &*VICTIMS.load(Ordering::Acquire) };
    victims.torment(REQUESTS.load(Ordering::Relaxed), seed);
}

/// Torments every device from both CPUs; memory that was in none of the buffers must be as it was, and a
/// driver that knows its manners must find all of them well. `strays` are for the twin of this test.
fn hostile(seed: u64, strays: u64) -> Result<(), &'static str> {
    let mut victims = Victims::find();
    hostile::mark_apart();
    SEED.store(seed, Ordering::Relaxed);
    VICTIMS.store(&raw mut victims, Ordering::Release);
    cpu::start_second();
    cpu::on_both(|| torment(1), || torment(0));
    victims.restore();
    (0..strays).for_each(|_| hostile::stray());
    if !hostile::apart_is_intact() {
        return Err("a device has written outside the driver's buffers");
    }
    for cpu in 0..2 {
        let mut disk = Disk::open(DISK_SLOT + cpu, 0, 0x50 + cpu, 8)?;
        disk.verify(64, seed)?;
        disk.device.reset()?;
    }
    Ok(())
}

/// Resets the machine from this CPU while the other one torments every device.
fn storm(seed: u64) {
    let mut victims = Victims::find();
    SEED.store(seed, Ordering::Relaxed);
    VICTIMS.store(&raw mut victims, Ordering::Release);
    cpu::start_second();
    cpu::on_both(|| loop { torment(1) }, || {
        torment(0);
        port::reboot()
    });
}

/// Resets the disk again and again while it works; it must be whole afterwards.
fn reset(requests: u64) -> Result<(), &'static str> {
    for round in 0..8 {
        let mut disk = Disk::open(DISK_SLOT, 0, 0x50, 32)?;
        disk.verify(requests.min(32), round)?;
        disk.leave_under_way();
        disk.device.reset()?;
    }
    Disk::open(DISK_SLOT, 0, 0x50, 32)?.verify(requests, 99)
}

/// Works on its disk while others come and go `cycles` times: uses each that comes, and lets go of it
/// when it is asked to, as an ACPI system would.
fn plug(cycles: u64) -> Result<(), &'static str> {
    let mut disk = Disk::open(DISK_SLOT, 0, 0x50, 4)?;
    let (mut gone, mut round) = (0, 0);
    let mut guests: [Option<Disk>; 32] = [const { None }; 32];
    let mut places = [0; 32];
    say!("ready for devices");
    while gone < cycles {
        round += 1;
        disk.verify(4, round)?;
        let up = port::in32(SLOTS_UP);
        for slot in (0..32).filter(|slot| up & 1 << slot != 0) {
            let mut guest = Disk::open(slot, 0, 0x51, 1)?;
            guest.device.take_interrupts()?;
            let place = &mut places[usize::from(slot)];
            if *place != 0 && *place != guest.device.registers_at() {
                return Err("the same slot has another BAR");
            }
            *place = guest.device.registers_at();
            guest.verify(4, round)?;
            if cycles < 10 {
                say!("slot {slot} works");
            }
            guests[usize::from(slot)] = Some(guest);
        }
        let down = port::in32(SLOTS_DOWN);
        for slot in (0..32_u8).filter(|slot| down & 1 << slot != 0) {
            // Half the time with its queues still running.
            if let Some(guest) = guests[usize::from(slot)].take().filter(|_| round % 2 == 0) {
                guest.device.reset()?;
            }
            port::out32(SLOTS_EJECT, 1 << slot);
            gone += 1;
        }
    }
    disk.device.reset()
}

/// Works until the device's daemon is killed, and says so when the device asks for a reset.
fn needs_reset() -> Result<(), &'static str> {
    let mut disk = Disk::open(DISK_SLOT, 0, 0x50, 1)?;
    disk.verify(16, 1)?;
    say!("kill the daemon now");
    for _ in 0..10_000_000_u64 {
        if disk.device.needs_reset() {
            let size: u64 = disk.device.config(0);
            if size / 8 != disk.blocks {
                return Err("config reads do not answer any more");
            }
            return disk.device.reset();
        }
    }
    Err("the device never asked for a reset")
}

/// Gives a request to a device that fails of it: it asks for a reset, and takes it.
fn broken() -> Result<(), &'static str> {
    let mut disk = Disk::open(DISK_SLOT, 0, 0x50, 1)?;
    disk.leave_under_way();
    for _ in 0..10_000_000_u64 {
        if disk.device.needs_reset() {
            return disk.device.reset();
        }
    }
    Err("the device never asked for a reset")
}

/// Gives a request to a device and goes its way.
fn leave() -> Result<(), &'static str> {
    Disk::open(DISK_SLOT, 0, 0x50, 1)?.leave_under_way();
    Ok(())
}

/// Does `requests` one at a time between two bytes of ttyS0, and touches nothing else: whoever
/// sends the bytes counts the exits in between.
fn exits(requests: u64) -> Result<(), &'static str> {
    let mut disk = Disk::open(DISK_SLOT, 0, 0x50, 1)?;
    let vector = cpu::serial_interrupts();
    let mut seen = cpu::interrupts(vector);
    say!("waiting");
    cpu::wait(vector, seen);
    port::drain();
    seen = cpu::interrupts(vector);
    disk.verify(requests / 2, 3)?;
    cpu::wait(vector, seen);
    port::drain();
    disk.device.reset()
}

/// Tells the time whenever somebody types: the seconds of the day, and the processor's counter.
fn clock() {
    let vector = cpu::serial_interrupts();
    say!("ask for the time");
    loop {
        let seen = cpu::interrupts(vector);
        cpu::wait(vector, seen);
        port::drain();
        let counter = unsafe { core::arch::x86_64::_rdtsc() };
        say!("time {} {counter}", port::seconds_of_day());
    }
}

/// Waits until its disk has another size, which an interrupt announces, and uses all of it.
fn resize() -> Result<(), &'static str> {
    const VECTOR: u8 = 0x51;
    let mut disk = Disk::open(DISK_SLOT, 0, 0x50, 16)?;
    disk.device.config_interrupts(1, 0, VECTOR)?;
    let seen = cpu::interrupts(VECTOR);
    say!("resize the disk now");
    cpu::wait(VECTOR, seen);
    let blocks = disk.device.config::<u64>(0) / 8;
    if blocks <= disk.blocks {
        return Err("an interrupt, and the disk is as it was");
    }
    disk.blocks = blocks;
    disk.verify(blocks, 5)?;
    disk.device.reset()
}

/// Resets a device whose daemon does not answer any more, and goes on.
fn stuck() -> Result<(), &'static str> {
    let mut disk = Disk::open(DISK_SLOT, 0, 0x50, 1)?;
    disk.verify(16, 1)?;
    let vector = cpu::serial_interrupts();
    let seen = cpu::interrupts(vector);
    say!("stop the daemon now");
    cpu::wait(vector, seen);
    disk.leave_under_way();
    disk.device.reset()
}
