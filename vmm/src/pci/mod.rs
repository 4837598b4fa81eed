//! PCI: one bus of 32 slots behind a host bridge, its config space by ECAM and ports, BARs
//! that the guest may move, and MSI-X.

pub mod bar;
mod function;

pub use bar::{BarKind, BarSpec};
pub use function::PciFunction;
