//! The bare-metal guest: boots by PVH, drives virtio devices from ring 3 with interrupts on two
//! CPUs, and says on ttyS0 what it found.
//!
//! Every check is one line, `ok NAME` or `FAIL NAME: WHY`; `end` is the last. The kernel command
//! line names the jobs: `jobs=block,smp requests=10000`.
#![no_std]
#![no_main]

mod arena;
mod bench;
mod block;
mod console;
mod cpu;
mod hostile;
mod interrupts;
mod job;
mod net;
mod nic;
mod pci;
mod port;
mod report;
mod ring;
mod start;
mod virtio;

use core::arch::global_asm;

global_asm!(include_str!("entry.s"), options(att_syntax));

/// Where `entry.s` hands over, in ring 3: `cpu` 0 with the start info, `cpu` 1 with nothing.
#[unsafe(no_mangle)]
extern "C" fn guest_main(start_info: u64, cpu: u32) -> ! {
    if cpu == 0 {
        cpu::prepare();
        port::mask_pics();
        cpu::enable_lapic();
        job::run(start::command_line(start_info));
        say!("end");
        port::power_off();
    }
    cpu::enable_lapic();
    cpu::second_main()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    say!("FAIL payload: {info}");
    port::power_off()
}

/// A fault of ring 3 ends here.
#[unsafe(no_mangle)]
extern "C" fn guest_fault() -> ! {
    let [vector, error, rip, cr2] = cpu::trap();
    say!("FAIL payload: exception {vector} error {error:#x} at {rip:#x}, cr2 {cr2:#x}");
    port::power_off()
}

// What `core` expects of a C library. `rep movsb` is one instruction, also for an interpreter.

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    unsafe {
        core::arch::asm!("rep movsb", inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _);
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    unsafe {
        core::arch::asm!("rep stosb", inout("rcx") len => _, inout("rdi") to => _, in("al") byte as u8);
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if (to as usize) <= from as usize {
        return unsafe { memcpy(to, from, len) };
    }
    for n in (0..len).rev() {
        unsafe { to.add(n).write_volatile(from.add(n).read_volatile()) };
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    for n in 0..len {
        let (x, y) = unsafe { (a.add(n).read_volatile(), b.add(n).read_volatile()) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    unsafe { memcmp(a, b, len) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut len = 0;
    while unsafe { text.add(len).read_volatile() } != 0 {
        len += 1;
    }
    len
}

/// Named by `core`'s unwind tables, which the linker script drops.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
