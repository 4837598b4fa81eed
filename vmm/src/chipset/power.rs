//! ACPI power management registers (ACPI 6.5, 4.8.3 and 4.8.4): the PM1 event and control blocks,
//! the PM timer and one block of general-purpose events, with the system control interrupt.
//!
//! The machine has no legacy mode: ACPI is always enabled. The PM timer raises no interrupt and
//! its overflow bit stays clear.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::Arc;
use std::time::Instant;

use outboard_device::register::{InterruptLine, RegisterDevice};

use super::{ChipsetEvent, EventSink};
use crate::arch::x86_64::layout;

/// PM1 status and enable: the power button.
const POWER_BUTTON: u16 = 1 << 8;
/// PM1 enable bits that there are: timer, global lock, power button, sleep button, RTC.
const PM1_ENABLE_BITS: u16 = 1 << 0 | 1 << 5 | POWER_BUTTON | 1 << 9 | 1 << 10;
/// PM1 control: ACPI mode; always set.
const SCI_ENABLE: u16 = 1 << 0;
/// PM1 control: bits that keep what is written: bus master reload, and the sleep type.
const CONTROL_BITS: u16 = 1 << 1 | SLEEP_TYPE;
const SLEEP_TYPE: u16 = 0b111 << SLEEP_TYPE_SHIFT;
const SLEEP_TYPE_SHIFT: u16 = 10;
/// PM1 control: enters the sleep state of the sleep type; reads as 0.
const SLEEP_ENABLE: u16 = 1 << 13;
/// The sleep type that means S5, soft off, in the DSDT's `\_S5`.
pub const SLEEP_TYPE_S5: u8 = 5;

/// PM timer frequency in Hz.
const TIMER_HZ: u128 = 3_579_545;

/// Places of the registers from the start of [`layout::PM`].
const CONTROL: usize = (layout::PM1_CONTROL.start - layout::PM.start) as usize;
const TIMER: usize = (layout::PM_TIMER.start - layout::PM.start) as usize;
const GPE: usize = (layout::GPE0.start - layout::PM.start) as usize;
const LEN: usize = (layout::PM.end - layout::PM.start) as usize;

/// The registers at [`layout::PM`].
pub struct PowerManagement {
    pm1_status: u16,
    pm1_enable: u16,
    pm1_control: u16,
    gpe_status: u16,
    gpe_enable: u16,
    started: Instant,
    sci: Arc<dyn InterruptLine>,
    events: EventSink,
}

impl PowerManagement {
    /// Registers with no event pending and none enabled.
    pub fn new(sci: Arc<dyn InterruptLine>, events: EventSink) -> Self {
        Self {
            pm1_status: 0,
            pm1_enable: 0,
            pm1_control: SCI_ENABLE,
            gpe_status: 0,
            gpe_enable: 0,
            started: Instant::now(),
            sci,
            events,
        }
    }

    /// The power button: the guest hears of it if it has enabled the event.
    pub fn press_power_button(&mut self) {
        self.pm1_status |= POWER_BUTTON;
        self.update_sci();
    }

    /// Raises general-purpose event `number`, 0 to 15, which runs the DSDT's method for it.
    pub fn raise_general_event(&mut self, number: u8) {
        self.gpe_status |= 1u16.checked_shl(number.into()).unwrap_or(0);
        self.update_sci();
    }

    /// The line is high for as long as an enabled event is pending.
    fn update_sci(&self) {
        let pending = self.pm1_status & self.pm1_enable | self.gpe_status & self.gpe_enable;
        self.sci.set(pending != 0);
    }

    /// All registers as the bytes a guest reads.
    fn bytes(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        let ticks = (self.started.elapsed().as_nanos()).saturating_mul(TIMER_HZ) / 1_000_000_000;
        let registers: [(usize, &[u8]); 6] = [
            (0, &self.pm1_status.to_le_bytes()),
            (2, &self.pm1_enable.to_le_bytes()),
            (CONTROL, &self.pm1_control.to_le_bytes()),
            (TIMER, &(ticks as u32).to_le_bytes()),
            (GPE, &self.gpe_status.to_le_bytes()),
            (GPE + 2, &self.gpe_enable.to_le_bytes()),
        ];
        for (at, register) in registers {
            for (byte, value) in bytes.iter_mut().skip(at).zip(register) {
                *byte = *value;
            }
        }
        bytes
    }

    /// Writes the byte at `at`. A status bit written as one is cleared.
    fn write_byte(&mut self, at: usize, value: u8) {
        const GPE_ENABLE: usize = GPE + 2;
        let high = at % 2 == 1;
        let bits = if high {
            u16::from(value) << 8
        } else {
            u16::from(value)
        };
        let keep = if high { 0x00ff } else { 0xff00 };
        match at & !1 {
            0 => self.pm1_status &= !bits,
            2 => self.pm1_enable = (self.pm1_enable & keep | bits) & PM1_ENABLE_BITS,
            CONTROL => self.control(self.pm1_control & keep | bits),
            GPE => self.gpe_status &= !bits,
            GPE_ENABLE => self.gpe_enable = self.gpe_enable & keep | bits,
            _ => {}
        }
    }

    fn control(&mut self, value: u16) {
        self.pm1_control = value & CONTROL_BITS | SCI_ENABLE;
        let sleep_type = (value & SLEEP_TYPE) >> SLEEP_TYPE_SHIFT;
        if value & SLEEP_ENABLE != 0 && sleep_type == u16::from(SLEEP_TYPE_S5) {
            (self.events)(ChipsetEvent::PowerOff);
        }
    }
}

impl RegisterDevice for PowerManagement {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        super::read_bytes(&self.bytes(), offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let first = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, &value) in (first..LEN).zip(data) {
            self.write_byte(at, value);
        }
        self.update_sci();
    }

    fn reset(&mut self) {
        self.pm1_status = 0;
        self.pm1_enable = 0;
        self.pm1_control = SCI_ENABLE;
        self.gpe_status = 0;
        self.gpe_enable = 0;
        self.update_sci();
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Line, events, read};
    use super::*;

    const ENABLE: u64 = 2;

    fn device() -> (PowerManagement, Arc<Line>) {
        let line = Arc::new(Line::default());
        (PowerManagement::new(line.clone(), events().0), line)
    }

    #[test]
    fn power_button_interrupts_until_its_status_is_cleared() {
        let (mut pm, line) = device();
        pm.press_power_button();
        assert!(!line.is_high(), "not enabled yet");
        pm.write(ENABLE, &0x0100u16.to_le_bytes());
        assert!(line.is_high());
        assert_eq!(read(&mut pm, 0), 0x0100u16.to_le_bytes());
        pm.write(0, &[0xff]);
        assert!(line.is_high(), "the button is in the other byte");
        pm.write(1, &[0x01]);
        assert!(!line.is_high());
        assert_eq!(read(&mut pm, 0), [0, 0, 0, 1]);
    }

    #[test]
    fn general_events_share_the_interrupt() {
        let (mut pm, line) = device();
        pm.write(GPE as u64 + 2, &[0x02]);
        pm.raise_general_event(1);
        assert!(line.is_high());
        assert_eq!(read(&mut pm, GPE as u64), [0x02, 0, 0x02, 0]);
        pm.write(GPE as u64, &[0x02]);
        assert!(!line.is_high());
        pm.raise_general_event(200);
        assert!(!line.is_high());
    }

    #[test]
    fn only_s5_powers_off_and_acpi_stays_enabled() {
        let (sink, taken) = events();
        let mut pm = PowerManagement::new(Arc::new(Line::default()), sink);
        let sleep = |kind: u16| (kind << 10 | SLEEP_ENABLE).to_le_bytes();
        pm.write(CONTROL as u64, &sleep(1));
        pm.write(CONTROL as u64, &(5u16 << 10).to_le_bytes());
        assert!(taken.lock().unwrap().is_empty());
        assert_eq!(
            u16::from_le_bytes(read(&mut pm, CONTROL as u64)),
            5 << 10 | SCI_ENABLE
        );
        pm.write(CONTROL as u64, &sleep(5));
        assert_eq!(*taken.lock().unwrap(), [ChipsetEvent::PowerOff]);
    }

    #[test]
    fn timer_counts_and_cannot_be_written() {
        let (mut pm, _) = device();
        let now = |pm: &mut PowerManagement| u32::from_le_bytes(read(pm, TIMER as u64));
        let first = now(&mut pm);
        pm.write(TIMER as u64, &[0xff; 4]);
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert!(now(&mut pm).wrapping_sub(first) >= 3579);
    }

    #[test]
    fn reset_lowers_the_line() {
        let (mut pm, line) = device();
        pm.write(ENABLE, &[0xff, 0xff]);
        pm.press_power_button();
        pm.reset();
        assert!(!line.is_high());
        assert_eq!(read(&mut pm, 0), [0; 4]);
    }
}
