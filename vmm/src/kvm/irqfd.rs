//! An eventfd whose signal KVM turns into a guest interrupt, with no exit to us.

use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::{Gsi, KvmError, Vm};

/// A registered irqfd. Dropping it cuts the eventfd from the interrupt; a signal that comes after
/// that stays in the eventfd, and is injected when it is registered again.
#[derive(Debug)]
pub struct IrqFd {
    vm: Arc<Vm>,
    event: EventFd,
    gsi: u32,
}

impl IrqFd {
    /// From now on a signal of `event` raises `gsi`, by the route that GSI has at that moment. A
    /// signal that is already pending counts.
    ///
    /// Drop the `IrqFd` before its [`Gsi`].
    pub fn register(vm: &Arc<Vm>, event: &EventFd, gsi: &Gsi) -> Result<Self, KvmError> {
        let event = event.try_clone().map_err(|error| KvmError::Ioctl {
            action: "copy an eventfd",
            error,
        })?;
        let gsi = gsi.number();
        vm.fd()
            .register_irqfd(&event, gsi)
            .map_err(KvmError::ioctl("register an irqfd"))?;
        Ok(Self {
            vm: vm.clone(),
            event,
            gsi,
        })
    }
}

impl Drop for IrqFd {
    fn drop(&mut self) {
        if let Err(error) = self.vm.fd().unregister_irqfd(&self.event, self.gsi) {
            tracing::error!(gsi = self.gsi, %error, "KVM keeps an irqfd");
        }
    }
}
