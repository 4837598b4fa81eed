//! Base address registers.

/// Which memory BAR it is (PCI 3.0, section 6.2.5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarKind {
    /// 32-bit memory, one register.
    Memory32,
    /// 64-bit memory, two registers: this one and the next.
    Memory64,
}

/// What a function asks of one BAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BarSpec {
    /// Its register, 0 to 5 (0 to 4 for a 64-bit one).
    pub index: usize,
    /// Its width.
    pub kind: BarKind,
    /// Bytes: a power of two, at least 4096 and at most 2 GiB.
    pub size: u64,
}

impl BarSpec {
    /// Config space offset of the BAR's first register.
    pub(super) fn offset(&self) -> usize {
        self.index.saturating_mul(4).saturating_add(FIRST_BAR)
    }

    /// Bytes its registers take.
    pub(super) fn width(&self) -> usize {
        match self.kind {
            BarKind::Memory32 => 4,
            BarKind::Memory64 => 8,
        }
    }

    /// The read-only bits below the address: memory, its type, not prefetchable.
    pub(super) fn type_bits(&self) -> u64 {
        match self.kind {
            BarKind::Memory32 => 0b000,
            BarKind::Memory64 => 0b100,
        }
    }

    /// The address bits that a guest can set. Writing all ones and reading back gives the size.
    pub(super) fn writable(&self) -> u64 {
        let address = !self.size.saturating_sub(1);
        match self.kind {
            BarKind::Memory32 => address & u64::from(u32::MAX),
            BarKind::Memory64 => address,
        }
    }

    /// Whether the spec keeps the limits written on its fields.
    pub(super) fn is_sound(&self) -> bool {
        let last = match self.kind {
            BarKind::Memory32 => 5,
            BarKind::Memory64 => 4,
        };
        self.index <= last && self.size.is_power_of_two() && (4096..=1 << 31).contains(&self.size)
    }
}

/// Config space offset of BAR 0.
const FIRST_BAR: usize = 0x10;
