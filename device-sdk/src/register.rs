//! Devices of registers: what the guest reads and writes while its vCPU waits.
//!
//! A virtio device moves its data through rings and never stops a vCPU. The devices of every
//! textbook (a UART, a clock, a keyboard controller) are the other kind: a handful of registers
//! behind ports or MMIO, and an interrupt line. vhost-user cannot carry them, so they run in the
//! VMM, behind the two traits here.

/// Registers behind a range of ports or of MMIO.
///
/// The bus calls this on the vCPU thread that made the access and holds the device's own lock
/// for the length of the call; no two calls on one device overlap. The vCPU is stopped meanwhile,
/// so an implementation must not block, wait for a peer, or take a lock that another thread holds
/// while it does either.
///
/// The guest chooses `offset`, the length and the value, and is hostile: any combination must be
/// harmless. No panic, no unbounded loop, no memory that grows without limit.
pub trait RegisterDevice: Send {
    /// Fills `data` with what the guest reads at `offset` bytes from the start of the range.
    ///
    /// `data.len()` is 1, 2, 4 or 8, and `offset + data.len()` does not pass the end of the range.
    /// Bytes are in the guest's order (little endian). `data` holds all ones on entry, what a bus
    /// with no device reads as, so an implementation may leave bytes it does not know alone. It
    /// may have side effects, as reads of real registers do.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// Takes what the guest wrote at `offset` bytes from the start of the range.
    ///
    /// Same rules as [`read`](Self::read). Writes to registers that do not exist, or with a length
    /// the register does not take, are dropped.
    fn write(&mut self, offset: u64, data: &[u8]);

    /// Returns every register to its power-on value and lowers the interrupt line.
    ///
    /// Called when the machine resets, on the thread that runs the reset, with all vCPUs stopped.
    /// Idempotent. Bytes on their way to or from the host side (input not read yet, output not sent
    /// yet) may be kept.
    fn reset(&mut self) {}
}

/// One interrupt line into the machine's interrupt controller.
///
/// The VMM implements it. Any thread may call it, also with the device's lock held: it never
/// blocks on a vCPU and never calls back into the device. Errors are the VMM's to handle.
pub trait InterruptLine: Send + Sync {
    /// Drives the line to the level `high`. Setting the level it already has is harmless.
    ///
    /// An edge-triggered line takes one interrupt for each change from low to high; a
    /// level-triggered line interrupts for as long as it is high and unmasked.
    fn set(&self, high: bool);

    /// Raises and lowers the line: one interrupt, on an edge-triggered line.
    fn pulse(&self) {
        self.set(true);
        self.set(false);
    }
}
