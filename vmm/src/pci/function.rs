//! What the PCI root needs of a function.

use super::bar::BarSpec;

/// One PCI function: config space, BARs and what lies behind them.
///
/// All calls come from vCPU threads, several at once, and from the thread that builds or resets the VM. None
/// blocks for long. A function never calls the root, so the root may call it under its locks.
pub trait PciFunction: Send + Sync {
    /// Reads config space. `offset + data.len()` is at most 4096 and `data` is 1 to 8 bytes at
    /// any alignment. Bytes that no register owns read 0.
    fn config_read(&self, offset: u16, data: &mut [u8]);

    /// Writes config space, bounds as for [`config_read`](Self::config_read). Any value at any
    /// offset is harmless. The root asks [`decoded_bar`](Self::decoded_bar) after a write to the command register or
    /// to a BAR, and maps what changed.
    fn config_write(&self, offset: u16, data: &[u8]);

    /// The BARs the function has; the same at each call.
    fn bars(&self) -> Vec<BarSpec> {
        Vec::new()
    }

    /// Sets a BAR to the address the VMM chose for it, now and after each reset. `bar` is one of
    /// [`bars`](Self::bars) and `address` a multiple of its size.
    fn assign_bar(&self, bar: usize, address: u64) {
        let _ = (bar, address);
    }

    /// Where the guest wants the BAR: its address while the command register's memory-decode bit
    /// is set, else `None`.
    fn decoded_bar(&self, bar: usize) -> Option<u64> {
        let _ = bar;
        None
    }

    /// Says where accesses reach the BAR from now on; `None`: nowhere. Called on each change,
    /// never from two threads at once for one function. The place to register doorbells.
    fn bar_mapped(&self, bar: usize, address: Option<u64>) {
        let _ = (bar, address);
    }

    /// Reads behind a BAR: `offset + data.len()` is within it, `data` is 1 to 8 bytes.
    fn bar_read(&self, bar: usize, offset: u64, data: &mut [u8]) {
        let _ = (bar, offset);
        data.fill(0);
    }

    /// Writes behind a BAR, bounds as for [`bar_read`](Self::bar_read).
    fn bar_write(&self, bar: usize, offset: u64, data: &[u8]) {
        let _ = (bar, offset, data);
    }

    /// The VM resets: config space as after power-on with the BARs the VMM assigned. What takes
    /// time is posted; see [`is_reset`](Self::is_reset).
    fn reset(&self);

    /// Whether the last [`reset`](Self::reset) has ended: the function's device touches guest memory no more.
    fn is_reset(&self) -> bool {
        true
    }
}
