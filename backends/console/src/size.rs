//! The size of the terminal a console is shown on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Columns and rows, shared by the terminal that knows them and the device that tells the guest.
/// Zero by zero when nobody knows.
#[derive(Debug, Clone, Default)]
pub struct Size(Arc<AtomicU32>);

impl Size {
    /// Columns and rows.
    pub fn get(&self) -> (u16, u16) {
        let both = self.0.load(Ordering::Relaxed);
        ((both >> 16) as u16, both as u16)
    }

    /// Sets both; `true` if that changed anything.
    pub fn set(&self, columns: u16, rows: u16) -> bool {
        let both = u32::from(columns) << 16 | u32::from(rows);
        self.0.swap(both, Ordering::Relaxed) != both
    }
}
