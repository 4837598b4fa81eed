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
