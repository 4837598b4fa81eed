//! Configuration space by ECAM, bus 0.

const ECAM: usize = 0xe000_0000;

/// A function of bus 0.
#[derive(Clone, Copy)]
pub struct Function(usize);

impl Function {
    /// The function in `slot`, if there is one.
    pub fn find(slot: u8) -> Option<Self> {
        let function = Self(ECAM + (usize::from(slot) << 15));
        (function.read::<u16>(0) != 0xffff).then_some(function)
    }

    pub fn read<T: Copy>(self, offset: usize) -> T {
        unsafe { ((self.0 + offset) as *const T).read_volatile() }
    }

    pub fn write<T>(self, offset: usize, value: T) {
        unsafe { ((self.0 + offset) as *mut T).write_volatile(value) };
    }

    /// Memory decoding and bus mastering on.
    pub fn enable(self) {
        self.write(4, self.read::<u16>(4) | 0x6);
    }

    /// The address in a memory BAR.
    pub fn bar(self, index: u8) -> usize {
        let register = 0x10 + usize::from(index) * 4;
        let low: u32 = self.read(register);
        let high: u32 = if low & 0x6 == 0x4 { self.read(register + 4) } else { 0 };
        (usize::try_from(high).unwrap_or(0) << 32) | (low & !0xf) as usize
    }

    /// Offsets of the capabilities with this id.
    pub fn capabilities(self, id: u8) -> impl Iterator<Item = usize> {
        let mut next = usize::from(self.read::<u8>(0x34));
        core::iter::from_fn(move || {
            let at = next;
            next = if at == 0 { 0 } else { usize::from(self.read::<u8>(at + 1)) };
            (at != 0).then_some(at)
        })
        .filter(move |at| self.read::<u8>(*at) == id)
    }
}
