//! The CMOS clock (MC146818 and its PC successors) at ports 0x70 and 0x71.
//!
//! It always shows the host's time, in UTC; what a guest writes into the time registers is
//! dropped. There is no alarm and no periodic interrupt. The update-in-progress bit always reads
//! as 0: instead of asking a guest to read between updates, the time stands still from its read of
//! the seconds until the next one, so that a reading is of one moment.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use outboard_device::register::RegisterDevice;
use time::OffsetDateTime;

const INDEX: u64 = 0;
const DATA: u64 = 1;

const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
/// 1 is Sunday.
const WEEKDAY: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const REGISTER_A: u8 = 0x0a;
const REGISTER_B: u8 = 0x0b;
const REGISTER_C: u8 = 0x0c;
const REGISTER_D: u8 = 0x0d;
/// Where the FADT says the century is.
pub const CENTURY: u8 = 0x32;

/// Register A: the usual 32.768 kHz time base and 1024 Hz rate.
const A_AT_RESET: u8 = 0x26;
const A_UPDATE_IN_PROGRESS: u8 = 1 << 7;
/// Register B: hours count to 24 rather than to 12 with a PM bit.
const B_24_HOURS: u8 = 1 << 1;
/// Register B: values are binary rather than BCD.
const B_BINARY: u8 = 1 << 2;
/// Register D: the battery is good.
const D_VALID: u8 = 1 << 7;
/// In 12-hour mode: afternoon.
const PM: u8 = 1 << 7;

/// How long a reading of the time may take before it begins anew.
const READING: Duration = Duration::from_millis(500);

/// The clock, and the memory behind its battery.
pub struct Rtc {
    index: u8,
    memory: [u8; 128],
    now: fn() -> SystemTime,
    /// The moment that is being read.
    shown: SystemTime,
}

impl Default for Rtc {
    fn default() -> Self {
        Self::new()
    }
}

impl Rtc {
    /// A clock that shows the host's time.
    pub fn new() -> Self {
        Self::with_clock(SystemTime::now)
    }

    fn with_clock(now: fn() -> SystemTime) -> Self {
        let mut rtc = Self {
            index: 0,
            memory: [0; 128],
            now,
            shown: UNIX_EPOCH,
        };
        rtc.reset();
        rtc
    }

    fn cell(&self, index: u8) -> u8 {
        self.memory.get(usize::from(index)).copied().unwrap_or(0)
    }

    fn set_cell(&mut self, index: u8, value: u8) {
        if let Some(cell) = self.memory.get_mut(usize::from(index)) {
            *cell = value;
        }
    }

    fn get(&mut self, index: u8) -> u8 {
        match index {
            SECONDS | MINUTES | HOURS | WEEKDAY | DAY | MONTH | YEAR | CENTURY => self.time(index),
            REGISTER_A => self.cell(REGISTER_A) & !A_UPDATE_IN_PROGRESS,
            REGISTER_C => 0,
            REGISTER_D => D_VALID,
            _ => self.cell(index),
        }
    }

    fn set(&mut self, index: u8, value: u8) {
        match index {
            SECONDS | MINUTES | HOURS | WEEKDAY | DAY | MONTH | YEAR | CENTURY | REGISTER_C
            | REGISTER_D => {}
            _ => self.set_cell(index, value),
        }
    }

    fn time(&mut self, index: u8) -> u8 {
        let now = (self.now)();
        let age = now.duration_since(self.shown);
        if index == SECONDS || age.is_ok_and(|age| age > READING) || now < self.shown {
            self.shown = now;
        }
        let seconds = self
            .shown
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let time = i64::try_from(seconds)
            .ok()
            .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
            .unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let year = u32::try_from(time.year()).unwrap_or(1970);
        match index {
            SECONDS => self.encode(time.second()),
            MINUTES => self.encode(time.minute()),
            HOURS => self.encode_hour(time.hour()),
            WEEKDAY => self.encode(time.weekday().number_from_sunday()),
            DAY => self.encode(time.day()),
            MONTH => self.encode(u8::from(time.month())),
            YEAR => self.encode((year % 100) as u8),
            _ => self.encode((year / 100 % 100) as u8),
        }
    }

    fn encode_hour(&self, hour: u8) -> u8 {
        if self.cell(REGISTER_B) & B_24_HOURS != 0 {
            return self.encode(hour);
        }
        let afternoon = if hour >= 12 { PM } else { 0 };
        let hour = match hour % 12 {
            0 => 12,
            hour => hour,
        };
        self.encode(hour) | afternoon
    }

    /// `value`, less than 100, in the format that register B asks for.
    fn encode(&self, value: u8) -> u8 {
        if self.cell(REGISTER_B) & B_BINARY != 0 {
            value
        } else {
            ((value / 10) << 4) | (value % 10)
        }
    }
}

impl RegisterDevice for Rtc {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        // The index port cannot be read.
        if let (DATA, [byte]) = (offset, data) {
            *byte = self.get(self.index);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match (offset, data) {
            // Bit 7 masks NMI.
            (INDEX, &[index]) => self.index = index & 0x7f,
            (DATA, &[value]) => self.set(self.index, value),
            _ => {}
        }
    }

    /// The index and the control registers; memory is kept, as a battery keeps it.
    fn reset(&mut self) {
        self.index = 0;
        self.set_cell(REGISTER_A, A_AT_RESET);
        self.set_cell(REGISTER_B, B_24_HOURS);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::read;
    use super::*;

    /// 2026-11-22 15:04:05 UTC, a Sunday.
    fn sunday() -> SystemTime {
        UNIX_EPOCH
            .checked_add(Duration::from_secs(1_795_359_845))
            .unwrap()
    }

    fn get(rtc: &mut Rtc, index: u8) -> u8 {
        rtc.write(INDEX, &[index | 0x80]);
        read::<1>(rtc, DATA)[0]
    }

    fn set(rtc: &mut Rtc, index: u8, value: u8) {
        rtc.write(INDEX, &[index]);
        rtc.write(DATA, &[value]);
    }

    fn date(rtc: &mut Rtc) -> [u8; 8] {
        [SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY].map(|i| get(rtc, i))
    }

    #[test]
    fn time_is_bcd_at_reset_and_binary_when_asked() {
        let mut rtc = Rtc::with_clock(sunday);
        assert_eq!(
            date(&mut rtc),
            [0x05, 0x04, 0x15, 1, 0x22, 0x11, 0x26, 0x20]
        );
        set(&mut rtc, REGISTER_B, B_24_HOURS | B_BINARY);
        assert_eq!(date(&mut rtc), [5, 4, 15, 1, 22, 11, 26, 20]);
        set(&mut rtc, REGISTER_B, 0);
        assert_eq!(get(&mut rtc, HOURS), 0x03 | PM);
    }

    #[test]
    fn midnight_and_noon_are_twelve_in_12_hour_mode() {
        let mut rtc = Rtc::with_clock(sunday);
        set(&mut rtc, REGISTER_B, B_BINARY);
        assert_eq!(rtc.encode_hour(0), 12);
        assert_eq!(rtc.encode_hour(12), 0x0c | PM);
        assert_eq!(rtc.encode_hour(11), 11);
    }

    #[test]
    fn writes_do_not_set_the_clock_but_memory_is_kept() {
        let mut rtc = Rtc::with_clock(sunday);
        set(&mut rtc, HOURS, 0x01);
        assert_eq!(get(&mut rtc, HOURS), 0x15);
        set(&mut rtc, 0x40, 0xa5);
        rtc.reset();
        assert_eq!(get(&mut rtc, 0x40), 0xa5);
    }

    #[test]
    fn clock_says_it_is_valid_and_never_updating() {
        let mut rtc = Rtc::new();
        set(&mut rtc, REGISTER_A, 0xff);
        assert_eq!(get(&mut rtc, REGISTER_A) & A_UPDATE_IN_PROGRESS, 0);
        assert_eq!(get(&mut rtc, REGISTER_D), D_VALID);
        assert_eq!(get(&mut rtc, REGISTER_C), 0);
    }
}
