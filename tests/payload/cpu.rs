//! CPUs and interrupts.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

unsafe extern "C" {
    static mut idt: [u64; 512];
    static interrupt_stubs: u8;
    static irq_counts: [u64; 256];
    #[link_name = "trap"]
    static TRAP: [u64; 4];
    static trampoline: u8;
    static trampoline_end: u8;
}

const LAPIC: usize = 0xfee0_0000;
/// Below 1 MiB, in memory that the VMM left to us; a SIPI's vector is its page number.
const TRAMPOLINE: usize = 0x1_0000;

fn lapic(register: usize) -> *mut u32 {
    (LAPIC + register) as *mut u32
}

/// Fills the IDT: interrupt gates, the third one open to ring 3 (int3 asks the kernel half to
/// wait).
pub fn prepare() {
    let stubs = &raw const interrupt_stubs as u64;
    for vector in 0..256_u64 {
        let address = stubs + vector * 16;
        let ring = if vector == 3 { 3 << 45 } else { 0 };
        let low = (address & 0xffff) | (0x10 << 16) | (0x8e << 40) | ring | ((address >> 16 & 0xffff) << 48);
        unsafe {
            idt[2 * vector as usize] = low;
            idt[2 * vector as usize + 1] = address >> 32;
        }
    }
}

/// Lets this CPU's local APIC deliver interrupts.
pub fn enable_lapic() {
    unsafe { lapic(0xf0).write_volatile(0x1ff) };
}

/// Where the handler counts the interrupts of `vector`, before it does anything else.
pub fn counter(vector: u8) -> *const u64 {
    unsafe { (&raw const irq_counts).cast::<u64>().add(usize::from(vector)) }
}

/// How many interrupts of `vector` have come.
pub fn interrupts(vector: u8) -> u64 {
    unsafe { counter(vector).read_volatile() }
}

/// Halts until the count of `vector` is not `seen`.
pub fn wait(vector: u8, seen: u64) {
    let counter = counter(vector);
    while unsafe { counter.read_volatile() } == seen {
        unsafe { asm!("int3", in("rdi") counter, in("rsi") seen) };
    }
}

/// Vector, error code, address and CR2 of the fault.
pub fn trap() -> [u64; 4] {
    unsafe { (&raw const TRAP).read_volatile() }
}

/// Routes an input of the I/O APIC to the first CPU, as `vector`, edge-triggered.
pub fn route_line(line: u32, vector: u8) {
    let redirection = 0x10 + 2 * line;
    let (select, window) = (0xfec0_0000 as *mut u32, 0xfec0_0010 as *mut u32);
    unsafe {
        select.write_volatile(redirection + 1);
        window.write_volatile(0);
        select.write_volatile(redirection);
        window.write_volatile(u32::from(vector));
    }
}

/// Routes ttyS0's interrupt to the first CPU; returns its vector.
pub fn serial_interrupts() -> u8 {
    const VECTOR: u8 = 0x44;
    route_line(4, VECTOR);
    crate::port::interrupt_on_input();
    VECTOR
}

/// What the second CPU runs, as an address; 0 is nothing.
static WORK: AtomicUsize = AtomicUsize::new(0);
static IS_UP: AtomicBool = AtomicBool::new(false);
/// The vector that tells the second CPU of work, and the one that tells the first of its end.
const WORK_VECTOR: u8 = 0x40;
const DONE_VECTOR: u8 = 0x41;

/// Starts the second CPU by INIT and SIPI, and waits until it is in ring 3.
pub fn start_second() {
    unsafe {
        let code = &raw const trampoline;
        let len = &raw const trampoline_end as usize - code as usize;
        (TRAMPOLINE as *mut u8).copy_from(code, len);
        let before = interrupts(DONE_VECTOR);
        command(1, 0x4500);
        command(1, 0x4600 | (TRAMPOLINE >> 12) as u32);
        command(1, 0x4600 | (TRAMPOLINE >> 12) as u32);
        wait(DONE_VECTOR, before);
    }
    assert!(IS_UP.load(Ordering::Acquire), "the second CPU said it is up before it was");
}

/// Sends an interrupt command to the APIC `to`.
fn command(to: u32, command: u32) {
    unsafe {
        lapic(0x310).write_volatile(to << 24);
        lapic(0x300).write_volatile(command);
    }
}

/// Runs `work` on the second CPU and `here` on this one, and waits for both.
pub fn on_both(work: fn(), here: fn()) {
    let before = interrupts(DONE_VECTOR);
    WORK.store(work as usize, Ordering::Release);
    command(1, 0x4000 | u32::from(WORK_VECTOR));
    here();
    wait(DONE_VECTOR, before);
}

/// The second CPU's life: waits for work, does it.
pub fn second_main() -> ! {
    IS_UP.store(true, Ordering::Release);
    let mut seen = interrupts(WORK_VECTOR);
    command(0, 0x4000 | u32::from(DONE_VECTOR));
    loop {
        wait(WORK_VECTOR, seen);
        seen = interrupts(WORK_VECTOR);
        let work = WORK.swap(0, Ordering::AcqRel);
        if work != 0 {
            let work: fn() = unsafe { core::mem::transmute(work) };
            work();
            command(0, 0x4000 | u32::from(DONE_VECTOR));
        }
    }
}
