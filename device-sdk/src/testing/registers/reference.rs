//! A small device of registers, which can be broken on purpose: the kit is tried on it.
//!
//! | offset | register  | what it is                                                     |
//! |-------:|-----------|----------------------------------------------------------------|
//! |   0x00 | `ID`      | read: a constant                                               |
//! |   0x04 | `CAUSE`   | read: 1 when it is done; write: ones clear it                  |
//! |   0x08 | `ADDRESS` | of four bytes in the guest's memory                            |
//! |   0x0c | `BELL`    | write: copies them to behind themselves, and is done in a while |

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{Access, Expected, Registers};
use crate::abi::host::{Place, Space};
use crate::device::DeviceError;
use crate::plugin::{Board, BoardDevice, FromOptions, OptionSpec, Options};
use crate::register::{InterruptLine, RegisterDevice};
use crate::testing::Outcome;

/// What is wrong with the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// It panics at the last byte of its registers.
    PanicsAtTheEnd,
    /// It waits for ever in a read of two bytes.
    Hangs,
    /// It takes writes of two bytes for writes of four.
    TakesAnyWidth,
    /// Reading where it rings changes its address.
    ReadsWrite,
    /// Its address is that of all devices of the kind.
    Shares,
    /// It interrupts as soon as it is there.
    SpeaksFirst,
    /// It never interrupts.
    Mute,
    /// Its line falls by itself.
    Pulses,
    /// Its line does not fall.
    Sticks,
    /// It interrupts twice in its life.
    Tires,
    /// Its address survives a reset.
    Remembers,
    /// What was under way is done after a reset.
    GoesOn,
    /// It does nothing any more after a reset.
    StaysDown,
    /// Its end waits for ever.
    Lingers,
    /// It panics when told of an address that is no memory.
    Trusts,
    /// It panics when there is no memory at all.
    Needs,
}

const ALL: [Fault; 17] = [
    Fault::None,
    Fault::PanicsAtTheEnd,
    Fault::Hangs,
    Fault::TakesAnyWidth,
    Fault::ReadsWrite,
    Fault::Shares,
    Fault::SpeaksFirst,
    Fault::Mute,
    Fault::Pulses,
    Fault::Sticks,
    Fault::Tires,
    Fault::Remembers,
    Fault::GoesOn,
    Fault::StaysDown,
    Fault::Lingers,
    Fault::Trusts,
    Fault::Needs,
];

const ID: u64 = 0x00;
const CAUSE: u64 = 0x04;
const ADDRESS: u64 = 0x08;
const BELL: u64 = 0x0c;
const LEN: u64 = 0x10;

const TIME: Duration = Duration::from_millis(2);

static SHARED: AtomicU32 = AtomicU32::new(0);

struct Reference {
    fault: Fault,
    board: Option<Board>,
    cause: u32,
    address: u32,
    done: u32,
    was_reset: bool,
}

/// The device under test.
pub(super) fn registers(fault: Fault) -> Outcome<Registers> {
    let number = ALL.iter().position(|one| *one == fault).unwrap_or(0);
    let expected = Expected {
        widths: vec![4],
        plain: vec![ID, CAUSE, ADDRESS],
        raise: vec![Access::word(ADDRESS, 0x1000), Access::word(BELL, 1)],
        lower: vec![Access::word(CAUSE, 1)],
    };
    let registers = Registers::of::<Reference>(&[("fault", &number.to_string())], expected)?;
    Ok(if fault == Fault::None {
        registers
    } else {
        registers.with_limit(Duration::from_secs(1))
    })
}

impl FromOptions for Reference {
    const NAME: &'static str = "reference";
    const SUMMARY: &'static str = "Registers, sound or broken";
    const OPTIONS: &'static [OptionSpec] =
        &[OptionSpec::number("fault", "which of its faults").default("0")];

    fn from_options(options: &Options<'_>) -> Result<Self, DeviceError> {
        let number = options.number("fault").unwrap_or(0) as usize;
        Ok(Self {
            fault: ALL.get(number).copied().unwrap_or(Fault::None),
            board: None,
            cause: 0,
            address: 0,
            done: 0,
            was_reset: false,
        })
    }
}

impl BoardDevice for Reference {
    fn place(&self) -> Place {
        Place {
            space: Space::Mmio,
            base: 0xf000_0000,
            len: LEN,
            line: Some(10),
        }
    }

    fn wire(&mut self, board: Board) {
        if self.fault == Fault::SpeaksFirst {
            board.set_timer(TIME);
        }
        self.board = Some(board);
    }

    fn timer(&mut self) {
        self.done += 1;
        let silent = match self.fault {
            Fault::Mute => true,
            Fault::Tires => self.done > 2,
            Fault::StaysDown => self.was_reset,
            _ => false,
        };
        if silent {
            return;
        }
        self.cause = 1;
        self.drive();
        if let (Fault::Pulses, Some(board)) = (self.fault, &self.board) {
            board.set(false);
        }
    }
}

impl RegisterDevice for Reference {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if self.fault == Fault::Hangs && data.len() == 2 {
            std::thread::park();
        }
        let value = match offset {
            ID => 0x0bad_f00d,
            CAUSE => self.cause,
            ADDRESS if self.fault == Fault::Shares => SHARED.load(Ordering::Relaxed),
            ADDRESS => self.address,
            BELL if self.fault == Fault::ReadsWrite => {
                self.address += 4;
                return;
            }
            _ => return,
        };
        if let Ok(data) = <&mut [u8; 4]>::try_from(data) {
            *data = value.to_le_bytes();
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        assert!(
            self.fault != Fault::PanicsAtTheEnd || offset != LEN - 1,
            "as it was told to"
        );
        let value = match *data {
            [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
            [a, b] if self.fault == Fault::TakesAnyWidth => u32::from_le_bytes([a, b, 0, 0]),
            _ => return,
        };
        match offset {
            CAUSE => {
                self.cause &= !value;
                if self.fault != Fault::Sticks {
                    self.drive();
                }
            }
            ADDRESS => {
                self.address = value;
                if self.fault == Fault::Shares {
                    SHARED.store(value, Ordering::Relaxed);
                }
            }
            BELL => self.ring(),
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.was_reset = true;
        self.cause = 0;
        if self.fault != Fault::Remembers {
            self.address = 0;
        }
        if let (Fault::GoesOn, Some(board)) = (self.fault, &self.board) {
            board.set_timer(TIME);
        }
        self.drive();
    }
}

impl Reference {
    fn ring(&mut self) {
        let Some(board) = &self.board else { return };
        let mut bytes = [0; 4];
        let there = board.read_memory(self.address.into(), &mut bytes);
        // Where there is memory at all, there is some at its beginning.
        let some = board.read_memory(0, &mut [0]);
        assert!(there || !some || self.fault != Fault::Trusts, "no memory");
        assert!(some || self.fault != Fault::Needs, "no memory at all");
        if there {
            board.write_memory(u64::from(self.address) + 4, &bytes);
            board.set_timer(TIME);
        }
    }

    fn drive(&self) {
        if let Some(board) = &self.board {
            board.set(self.cause != 0);
        }
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        if self.fault == Fault::Lingers {
            loop {
                std::thread::park();
            }
        }
    }
}
