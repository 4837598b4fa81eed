//! One line into the in-kernel interrupt controllers.

use std::sync::Arc;

use outboard_device::register::InterruptLine;

use super::Vm;

/// The line of one GSI, for devices of registers.
#[derive(Debug, Clone)]
pub struct IrqLine {
    vm: Arc<Vm>,
    gsi: u32,
}

impl IrqLine {
    /// The line of `gsi`, 0 to 23.
    pub fn new(vm: &Arc<Vm>, gsi: u32) -> Self {
        Self {
            vm: vm.clone(),
            gsi,
        }
    }
}

impl InterruptLine for IrqLine {
    fn set(&self, high: bool) {
        if let Err(error) = self.vm.fd().set_irq_line(self.gsi, high) {
            tracing::error!(gsi = self.gsi, high, %error, "KVM did not take an interrupt line's level");
        }
    }
}
