//! A guest write that KVM turns into an eventfd's signal, with no exit to us.

use std::sync::Arc;

use kvm_ioctls::{IoEventAddress, NoDatamatch};
use vmm_sys_util::eventfd::EventFd;

use super::{KvmError, Vm};

/// Where the guest writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// A guest-physical address.
    Mmio(u64),
    /// A port.
    Port(u16),
}

impl From<Address> for IoEventAddress {
    fn from(address: Address) -> Self {
        match address {
            Address::Mmio(at) => Self::Mmio(at),
            Address::Port(at) => Self::Pio(at.into()),
        }
    }
}

/// A registered ioeventfd. Dropping it takes it off the bus.
#[derive(Debug)]
pub struct IoEventFd {
    vm: Arc<Vm>,
    event: EventFd,
    address: Address,
    /// `false` under `--no-ioeventfd`: the write then exits, and the device's register takes it.
    registered: bool,
}

impl IoEventFd {
    /// From now on a write of any length and value to exactly `address` signals `event`, and goes
    /// no further.
    ///
    /// Under `--no-ioeventfd` nothing is registered and the write reaches the bus as any other;
    /// the device must signal `event` itself, as it must for notifies by PCI config access.
    ///
    /// # Errors
    /// `EEXIST` where the address is taken; the VM has too many devices (KVM allows 1000).
    pub fn register(vm: &Arc<Vm>, event: &EventFd, address: Address) -> Result<Self, KvmError> {
        let action = KvmError::ioctl("register an ioeventfd");
        let event = event.try_clone().map_err(|error| KvmError::Ioctl {
            action: "copy an eventfd",
            error,
        })?;
        let registered = vm.ioeventfds();
        if registered {
            vm.fd()
                .register_ioevent(&event, &address.into(), NoDatamatch)
                .map_err(action)?;
        }
        Ok(Self {
            vm: vm.clone(),
            event,
            address,
            registered,
        })
    }
}

impl Drop for IoEventFd {
    fn drop(&mut self) {
        if !self.registered {
            return;
        }
        let gone = self
            .vm
            .fd()
            .unregister_ioevent(&self.event, &self.address.into(), NoDatamatch);
        if let Err(error) = gone {
            tracing::error!(address = ?self.address, %error, "KVM keeps an ioeventfd");
        }
    }
}
