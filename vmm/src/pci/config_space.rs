//! The registers of a type 0 configuration header and its capabilities (PCI 3.0, chapter 6).

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::bar::BarSpec;

const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const CAPABILITIES_POINTER: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
/// Where the header ends and capabilities may begin.
const HEADER_END: usize = 0x40;

/// Command register: the function answers memory accesses.
const COMMAND_MEMORY: u16 = 1 << 1;
/// Command register: the function may start memory accesses.
const COMMAND_BUS_MASTER: u16 = 1 << 2;
/// Command register: no `INTx`, which there is none of anyway; drivers read the bit back.
const COMMAND_INTX_DISABLE: u16 = 1 << 10;
/// Status register: there is a list of capabilities.
const STATUS_CAPABILITIES: u8 = 1 << 4;

/// Bytes of the conventional configuration space. The extended space beyond reads 0, which says
/// that there are no extended capabilities.
const SIZE: usize = 256;

/// What a function says it is.
#[derive(Debug, Clone, Copy)]
pub struct Ids {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Class, subclass and programming interface: 24 bits.
    pub class: u32,
    /// Subsystem vendor id.
    pub subsystem_vendor: u16,
    /// Subsystem id.
    pub subsystem: u16,
}

/// The configuration space of one function. Every byte has a value and a mask of the bits that a
/// guest can write; all other bits of a write are dropped.
#[derive(Debug)]
pub struct ConfigSpace {
    values: [u8; SIZE],
    writable: [u8; SIZE],
    /// The values after a reset.
    initial: [u8; SIZE],
    bars: Vec<BarSpec>,
    /// Where the next capability goes, and which byte is to point at it.
    free: usize,
    link: usize,
}

impl ConfigSpace {
    /// A header without BARs or capabilities, memory decode off, interrupt pin 0.
    pub fn new(ids: Ids) -> Self {
        let mut space = Self {
            values: [0; SIZE],
            writable: [0; SIZE],
            initial: [0; SIZE],
            bars: Vec::new(),
            free: HEADER_END,
            link: CAPABILITIES_POINTER,
        };
        space.set(0x00, &ids.vendor.to_le_bytes());
        space.set(0x02, &ids.device.to_le_bytes());
        space.set(0x08, &[ids.revision]);
        let [interface, subclass, class, _] = ids.class.to_le_bytes();
        space.set(0x09, &[interface, subclass, class]);
        space.set(0x2c, &ids.subsystem_vendor.to_le_bytes());
        space.set(0x2e, &ids.subsystem.to_le_bytes());
        let command = COMMAND_MEMORY | COMMAND_BUS_MASTER | COMMAND_INTX_DISABLE;
        space.allow(COMMAND, &command.to_le_bytes());
        space.allow(INTERRUPT_LINE, &[0xff]);
        space
    }

    /// Gives the function a BAR, at address 0 so far. False when the spec breaks its own limits;
    /// nothing has changed then.
    #[must_use]
    pub fn add_bar(&mut self, spec: BarSpec) -> bool {
        if !spec.is_sound() {
            return false;
        }
        let (width, bits, mask) = (spec.width(), spec.type_bits(), spec.writable());
        self.set(
            spec.offset(),
            bits.to_le_bytes().get(..width).unwrap_or_default(),
        );
        self.allow(
            spec.offset(),
            mask.to_le_bytes().get(..width).unwrap_or_default(),
        );
        self.bars.push(spec);
        true
    }

    /// Appends a capability: its id, then `body`, the bytes after the id and the next pointer.
    /// `writable` masks the bytes of `body`; it may be shorter. Returns the capability's offset,
    /// or `None` when config space is full.
    #[must_use]
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> Option<u16> {
        let offset = self.free;
        let start = offset.checked_add(2)?;
        let end = start.checked_add(body.len())?;
        if end > SIZE {
            return None;
        }
        self.set(offset, &[id, 0]);
        self.set(start, body);
        self.allow(start, writable);
        self.set(self.link, &[u8::try_from(offset).ok()?]);
        self.set(STATUS, &[STATUS_CAPABILITIES]);
        self.link = offset.checked_add(1)?;
        self.free = end.checked_next_multiple_of(4)?;
        u16::try_from(offset).ok()
    }

    /// Reads any bytes; those beyond the conventional space are 0.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        data.fill(0);
        for (byte, value) in data.iter_mut().zip(self.values.iter().skip(offset.into())) {
            *byte = *value;
        }
    }

    /// Writes any bytes, as far as each bit can be written.
    pub fn write(&mut self, offset: u16, data: &[u8]) {
        let registers = self
            .values
            .iter_mut()
            .zip(&self.writable)
            .skip(offset.into());
        for ((value, mask), byte) in registers.zip(data) {
            *value = (*value & !mask) | (byte & mask);
        }
    }

    /// The two bytes at `offset`.
    pub fn word(&self, offset: u16) -> u16 {
        let mut word = [0; 2];
        self.read(offset, &mut word);
        u16::from_le_bytes(word)
    }

    /// The four bytes at `offset`.
    pub fn dword(&self, offset: u16) -> u32 {
        let mut dword = [0; 4];
        self.read(offset, &mut dword);
        u32::from_le_bytes(dword)
    }

    /// The BARs added.
    pub fn bars(&self) -> &[BarSpec] {
        &self.bars
    }

    /// Sets a BAR's address, now and after each reset.
    pub fn assign_bar(&mut self, bar: usize, address: u64) {
        let Some(spec) = self.bars.iter().find(|spec| spec.index == bar).copied() else {
            return;
        };
        let value = (address & spec.writable()) | spec.type_bits();
        self.set(
            spec.offset(),
            value.to_le_bytes().get(..spec.width()).unwrap_or_default(),
        );
    }

    /// A BAR's address, while memory decode is on.
    pub fn decoded_bar(&self, bar: usize) -> Option<u64> {
        let spec = self.bars.iter().find(|spec| spec.index == bar)?;
        if self.word(COMMAND as u16) & COMMAND_MEMORY == 0 {
            return None;
        }
        let mut value = [0; 8];
        let offset = u16::try_from(spec.offset()).ok()?;
        self.read(offset, value.get_mut(..spec.width())?);
        Some(u64::from_le_bytes(value) & spec.writable())
    }

    /// Whether the function may reach memory and send interrupts by itself.
    pub fn is_bus_master(&self) -> bool {
        self.word(COMMAND as u16) & COMMAND_BUS_MASTER != 0
    }

    /// Back to the state after power-on, with the BARs assigned.
    pub fn reset(&mut self) {
        self.values = self.initial;
    }

    /// Sets bytes whatever their mask, now and for each reset.
    fn set(&mut self, offset: usize, bytes: &[u8]) {
        let registers = self.values.iter_mut().zip(&mut self.initial).skip(offset);
        for ((value, initial), byte) in registers.zip(bytes) {
            *value = *byte;
            *initial = *byte;
        }
    }

    fn allow(&mut self, offset: usize, mask: &[u8]) {
        for (writable, mask) in self.writable.iter_mut().skip(offset).zip(mask) {
            *writable = *mask;
        }
    }
}

/// Whether a write of `len` bytes at `offset` can change what [`ConfigSpace::decoded_bar`] answers.
pub(super) fn moves_bars(offset: u16, len: usize) -> bool {
    let start = usize::from(offset);
    let end = start.saturating_add(len);
    (start < COMMAND + 2 && end > COMMAND) || (start < 0x28 && end > 0x10)
}

#[cfg(test)]
mod tests {
    use super::super::bar::BarKind;
    use super::*;

    fn space() -> ConfigSpace {
        let mut space = ConfigSpace::new(Ids {
            vendor: 0x1af4,
            device: 0x1042,
            revision: 1,
            class: 0x01_0000,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
        });
        assert!(space.add_bar(BarSpec {
            index: 0,
            kind: BarKind::Memory32,
            size: 0x4000
        }));
        assert!(space.add_bar(BarSpec {
            index: 2,
            kind: BarKind::Memory64,
            size: 0x1000
        }));
        space
    }

    #[test]
    fn identity_is_read_only() {
        let mut space = space();
        space.write(0, &[0xff; 4]);
        space.write(8, &[0xff; 4]);
        space.write(0x2c, &[0xff; 4]);
        assert_eq!(space.dword(0), 0x1042_1af4);
        assert_eq!(space.dword(8), 0x0100_0001);
        assert_eq!(space.dword(0x2c), 0x1100_1af4);
        assert_eq!(space.dword(0x3c), 0, "interrupt pin is 0");
    }

    #[test]
    fn sizing_gives_the_size() {
        let mut space = space();
        space.write(0x10, &[0xff; 4]);
        assert_eq!(space.dword(0x10), 0xffff_c000);
        space.write(0x18, &[0xff; 4]);
        space.write(0x1c, &[0xff; 4]);
        assert_eq!(space.dword(0x18), 0xffff_f004);
        assert_eq!(space.dword(0x1c), 0xffff_ffff);
        space.write(0x14, &[0xff; 4]);
        assert_eq!(space.dword(0x14), 0, "no BAR 1");
    }

    #[test]
    fn bars_decode_only_while_memory_is_on() {
        let mut space = space();
        space.assign_bar(0, 0xc000_4000);
        space.assign_bar(2, 0x1_2000_0000);
        assert_eq!(space.decoded_bar(0), None);
        space.write(4, &[2]);
        assert_eq!(space.decoded_bar(0), Some(0xc000_4000));
        assert_eq!(space.decoded_bar(2), Some(0x1_2000_0000));
        assert_eq!(space.decoded_bar(1), None);
        space.write(0x11, &[0x88]);
        assert_eq!(space.decoded_bar(0), Some(0xc000_8000), "one byte moves it");
        space.reset();
        assert_eq!(space.decoded_bar(0), None);
        space.write(4, &[2]);
        assert_eq!(space.decoded_bar(0), Some(0xc000_4000));
    }

    #[test]
    fn capabilities_are_linked() {
        let mut space = space();
        let first = space.add_capability(0x11, &[0; 10], &[0, 0xc0]).unwrap();
        let second = space.add_capability(0x09, &[1, 2, 3], &[]).unwrap();
        assert_eq!((first, second), (0x40, 0x4c));
        assert_eq!(space.word(6) & 0x10, 0x10);
        assert_eq!(space.dword(0x34), 0x40);
        assert_eq!(space.word(first), 0x4c11);
        assert_eq!(space.word(second), 0x0009);
        space.write(first, &[0xff; 12]);
        assert_eq!(space.dword(first), 0xc000_4c11);
        assert!(space.add_capability(0x09, &[0; 200], &[]).is_none());
    }

    #[test]
    fn reads_beyond_the_end_are_zero() {
        let mut data = [0xaa; 8];
        space().read(0xfc, &mut data);
        assert_eq!(data, [0; 8]);
        let mut data = [0xaa; 4];
        space().read(0xffe, &mut data);
        assert_eq!(data, [0; 4]);
    }

    #[test]
    fn bars_move_on_writes_to_command_and_bars_only() {
        assert!(moves_bars(4, 1) && moves_bars(0, 8) && moves_bars(0x24, 4) && moves_bars(0xf, 2));
        assert!(!moves_bars(6, 2) && !moves_bars(0x28, 4) && !moves_bars(0xc, 4));
    }
}
