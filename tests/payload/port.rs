//! Ports: the serial line and the power switch.

use core::arch::asm;

const COM1: u16 = 0x3f8;
/// PM1a control (the VMM's FADT names it): SLP_EN with the DSDT's S5 type.
const PM1_CONTROL: u16 = 0x604;
const SLEEP_ENABLE: u16 = 1 << 13;
const S5_TYPE: u16 = 5 << 10;

pub fn out8(port: u16, value: u8) {
    unsafe { asm!("out dx, al", in("dx") port, in("al") value) };
}

pub fn out16(port: u16, value: u16) {
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value) };
}

pub fn in8(port: u16) -> u8 {
    let value: u8;
    unsafe { asm!("in al, dx", in("dx") port, out("al") value) };
    value
}

/// One byte to ttyS0; waits for room.
pub fn print(byte: u8) {
    while in8(COM1 + 5) & 0x20 == 0 {}
    out8(COM1, byte);
}

pub fn power_off() -> ! {
    loop {
        out16(PM1_CONTROL, SLEEP_ENABLE | S5_TYPE);
    }
}

/// Resets the machine by the keyboard controller.
pub fn reboot() -> ! {
    loop {
        out8(0x64, 0xfe);
    }
}
