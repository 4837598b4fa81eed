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

pub fn out32(port: u16, value: u32) {
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value) };
}

pub fn in8(port: u16) -> u8 {
    let value: u8;
    unsafe { asm!("in al, dx", in("dx") port, out("al") value) };
    value
}

pub fn in32(port: u16) -> u32 {
    let value: u32;
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value) };
    value
}

/// One byte to ttyS0; waits for room.
pub fn print(byte: u8) {
    while in8(COM1 + 5) & 0x20 == 0 {}
    out8(COM1, byte);
}

/// Lets ttyS0 interrupt when a byte has come.
pub fn interrupt_on_input() {
    out8(COM1 + 1, 0x01);
    // OUT2 gates the interrupt on a PC's serial card.
    out8(COM1 + 4, 0x0b);
}

/// Masks the old interrupt controllers, whose vectors at power-on are those of faults.
pub fn mask_pics() {
    out8(0x21, 0xff);
    out8(0xa1, 0xff);
}

/// By the CMOS clock, which counts in BCD.
pub fn seconds_of_day() -> u32 {
    let register = |number| {
        out8(0x70, number);
        u32::from(in8(0x71))
    };
    let part = |number| {
        let bcd = register(number);
        bcd / 16 * 10 + bcd % 16
    };
    loop {
        let time = [4, 2, 0].map(part);
        // No second has begun meanwhile.
        if time[2] == part(0) {
            return (time[0] * 60 + time[1]) * 60 + time[2];
        }
    }
}

/// Takes all input there is.
pub fn drain() {
    while in8(COM1 + 5) & 1 != 0 {
        in8(COM1);
    }
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
