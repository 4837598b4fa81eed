//! The network card of every textbook: a few registers, a doorbell, an interrupt.
//!
//! | offset | register        | what it is                                                    |
//! |-------:|-----------------|---------------------------------------------------------------|
//! |   0x00 | `ID`            | read: the letters `NIC1`                                      |
//! |   0x04 | `MAC`           | read: the address, four bytes and then two                    |
//! |   0x0c | `CAUSE`         | read: what has happened; write: ones clear it                 |
//! |   0x10 | `MASK`          | which causes interrupt                                        |
//! |   0x14 | `SEND_ADDRESS`  | where the frame to send is in the guest's memory              |
//! |   0x18 | `SEND_LENGTH`   | how long it is                                                |
//! |   0x1c | `TAKE_ADDRESS`  | where a frame that comes may go                               |
//! |   0x20 | `TAKE_ROOM`     | how long it may be                                            |
//! |   0x24 | `TAKE_LENGTH`   | read: how long the last one was                               |
//! |   0x28 | `DOORBELL`      | write: 1 sends the frame, 2 gives the card the room for one   |
//!
//! Registers are 32 bits wide and are accessed as such; so buffers lie below 4 GiB. The cable is a
//! loopback plug: what is sent comes back, after its time on the wire. A frame that comes while
//! the card has no room for it is lost.
//!
//! Its driver is a bare-metal guest's: `tests/payload/nic.rs`. What virtio does otherwise is seen here: each
//! register costs the guest an exit, and its vCPU waits for the answer.
#![allow(unsafe_code)] // The plugin's entry is a symbol that C finds.

use std::time::Duration;

use outboard_device::DeviceError;
use outboard_device::abi::host::{Place, Space};
use outboard_device::plugin::{Board, BoardDevice, FromOptions, OptionSpec, Options};
use outboard_device::register::{InterruptLine, RegisterDevice};

outboard_device::export_plugin! { registers: Card }

const ID: u64 = 0x00;
const MAC_LOW: u64 = 0x04;
const MAC_HIGH: u64 = 0x08;
const CAUSE: u64 = 0x0c;
const MASK: u64 = 0x10;
const SEND_ADDRESS: u64 = 0x14;
const SEND_LENGTH: u64 = 0x18;
const TAKE_ADDRESS: u64 = 0x1c;
const TAKE_ROOM: u64 = 0x20;
const TAKE_LENGTH: u64 = 0x24;
const DOORBELL: u64 = 0x28;
/// How many bytes of registers there are.
const LEN: u64 = 0x2c;

/// Values of `DOORBELL`, which may come together.
const SEND: u32 = 1;
const TAKE: u32 = 2;

/// Bits of `CAUSE` and `MASK`: the frame is sent and the card free for another.
const SENT: u32 = 1;
/// A frame has come.
const TAKEN: u32 = 2;
/// One came and there was no room.
const LOST: u32 = 4;
/// The doorbell asked for what cannot be: a length of no frame, an address of no memory, a second
/// frame before the first was sent.
const WRONG: u32 = 8;

const NAME: [u8; 4] = *b"NIC1";
/// As it is read, four bytes and two; locally administered.
const ADDRESS: [[u8; 4]; 2] = [[0x02, b'n', b'i', b'c'], [0, 1, 0, 0]];
/// Ethernet's, without its checksum.
const FRAME_MAX: u32 = 1514;

/// The card.
#[derive(Default)]
pub struct Card {
    base: u64,
    irq: u32,
    time: Duration,
    board: Option<Board>,
    cause: u32,
    mask: u32,
    send_address: u32,
    send_length: u32,
    take_address: u32,
    take_room: u32,
    take_length: u32,
    /// There is room for a frame.
    takes: bool,
    /// The frame on the wire.
    wire: Option<Vec<u8>>,
}

impl FromOptions for Card {
    const NAME: &'static str = "nic-regs";
    const SUMMARY: &'static str = "A network card of registers, with a loopback plug";
    const OPTIONS: &'static [OptionSpec] = &[
        OptionSpec::number("base", "where its registers lie in memory").default("0xf0000000"),
        OptionSpec::number("irq", "its interrupt line").default("10"),
        OptionSpec::number("time", "microseconds a frame is on the wire").default("20"),
    ];

    fn from_options(options: &Options<'_>) -> Result<Self, DeviceError> {
        let number = |name| options.number(name).unwrap_or_default();
        Ok(Self {
            base: number("base"),
            irq: number("irq").try_into().unwrap_or(u32::MAX),
            // No time at all would take the timer back.
            time: Duration::from_micros(number("time").max(1)),
            ..Self::default()
        })
    }
}

impl BoardDevice for Card {
    fn place(&self) -> Place {
        Place {
            space: Space::Mmio,
            base: self.base,
            len: LEN,
            line: Some(self.irq),
        }
    }

    fn wire(&mut self, board: Board) {
        self.board = Some(board);
    }

    /// The frame has come to the end of the wire, which is here.
    fn timer(&mut self) {
        if let Some(frame) = self.wire.take() {
            let taken = self.take(&frame);
            self.happened(SENT | taken);
        }
    }
}

impl RegisterDevice for Card {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let value = match offset {
            ID => u32::from_le_bytes(NAME),
            MAC_LOW => u32::from_le_bytes(ADDRESS[0]),
            MAC_HIGH => u32::from_le_bytes(ADDRESS[1]),
            CAUSE => self.cause,
            MASK => self.mask,
            SEND_ADDRESS => self.send_address,
            SEND_LENGTH => self.send_length,
            TAKE_ADDRESS => self.take_address,
            TAKE_ROOM => self.take_room,
            TAKE_LENGTH => self.take_length,
            _ => return,
        };
        if let Ok(data) = <&mut [u8; 4]>::try_from(data) {
            *data = value.to_le_bytes();
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let Ok(data) = <[u8; 4]>::try_from(data) else {
            return;
        };
        let value = u32::from_le_bytes(data);
        match offset {
            CAUSE => self.cause &= !value,
            MASK => self.mask = value,
            SEND_ADDRESS => self.send_address = value,
            SEND_LENGTH => self.send_length = value,
            TAKE_ADDRESS => self.take_address = value,
            TAKE_ROOM => self.take_room = value,
            DOORBELL => {
                self.takes |= value & TAKE != 0;
                if value & SEND != 0 && !self.send() {
                    self.cause |= WRONG;
                }
            }
            _ => {}
        }
        self.happened(0);
    }

    fn reset(&mut self) {
        *self = Self {
            base: self.base,
            irq: self.irq,
            time: self.time,
            board: self.board.take(),
            ..Self::default()
        };
        self.happened(0);
    }
}

impl Card {
    /// Puts the frame on the wire; false: there is none to put there.
    fn send(&mut self) -> bool {
        let Some(board) = self.board.as_ref().filter(|_| self.wire.is_none()) else {
            return false;
        };
        if self.send_length == 0 || self.send_length > FRAME_MAX {
            return false;
        }
        let mut frame = vec![0; self.send_length as usize];
        if !board.read_memory(self.send_address.into(), &mut frame) {
            return false;
        }
        self.wire = Some(frame);
        board.set_timer(self.time);
        true
    }

    /// Takes a frame in; what came of it.
    fn take(&mut self, frame: &[u8]) -> u32 {
        let len = frame.len() as u32;
        let Some(board) = &self.board else {
            return LOST;
        };
        if !self.takes || len > self.take_room {
            return LOST;
        }
        self.takes = false;
        if !board.write_memory(self.take_address.into(), frame) {
            return WRONG;
        }
        self.take_length = len;
        TAKEN
    }

    /// Notes causes. The line is high as long as there is one that the driver wants to know of.
    fn happened(&mut self, causes: u32) {
        self.cause |= causes;
        if let Some(board) = &self.board {
            board.set(self.cause & self.mask != 0);
        }
    }
}
