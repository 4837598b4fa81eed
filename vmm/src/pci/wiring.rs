//! What PCI devices need of the hypervisor: message interrupts and doorbells.
//!
//! A trait, so that everything above it runs in tests without KVM.

use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use crate::kvm::{Address, Gsi, IoEventFd, IrqFd, MsiMessage, Routes, Vm};

/// Why the hypervisor did not wire something up.
pub type WiringError = Box<dyn std::error::Error + Send + Sync>;

/// Connects eventfds to a guest. Everything it hands out undoes itself when dropped.
///
/// Called from vCPU threads under the lock of one function; must not call back into PCI.
pub trait Wiring: Send + Sync + 'static {
    /// An interrupt of the hypervisor that can be given an MSI message; freed when dropped.
    type Vector: Send + Sync;
    /// An eventfd that raises an interrupt; ended when dropped, after which writes to the
    /// eventfd stay in it.
    type Connection: Send + Sync;
    /// A guest address whose writes signal an eventfd; ended when dropped.
    type Doorbell: Send + Sync;

    /// Allocates an interrupt, without a message so far.
    fn vector(&self) -> Result<Self::Vector, WiringError>;

    /// Sets the messages of several interrupts at once. On an error none has changed.
    fn program(&self, batch: &[(&Self::Vector, MsiMessage)]) -> Result<(), WiringError>;

    /// From now on a write to `call` raises the interrupt; one that is pending in `call` already
    /// raises it at once.
    fn connect(
        &self,
        call: &EventFd,
        vector: &Self::Vector,
    ) -> Result<Self::Connection, WiringError>;

    /// From now on a guest write of any length and value at exactly `address` signals `kick` and
    /// goes no further. Where doorbells are switched off the write reaches the BAR, and is
    /// signalled from there.
    fn doorbell(&self, kick: &EventFd, address: u64) -> Result<Self::Doorbell, WiringError>;
}

/// The wiring of a KVM virtual machine.
#[derive(Debug)]
pub struct KvmWiring {
    vm: Arc<Vm>,
    routes: Arc<Routes>,
}

impl KvmWiring {
    /// Wires devices to this VM.
    pub fn new(vm: Arc<Vm>, routes: Arc<Routes>) -> Self {
        Self { vm, routes }
    }
}

impl Wiring for KvmWiring {
    type Vector = Gsi;
    type Connection = IrqFd;
    type Doorbell = IoEventFd;

    fn vector(&self) -> Result<Gsi, WiringError> {
        Ok(self.routes.allocate()?)
    }

    fn program(&self, batch: &[(&Gsi, MsiMessage)]) -> Result<(), WiringError> {
        Ok(self.routes.set_msi(batch)?)
    }

    fn connect(&self, call: &EventFd, vector: &Gsi) -> Result<IrqFd, WiringError> {
        Ok(IrqFd::register(&self.vm, call, vector)?)
    }

    fn doorbell(&self, kick: &EventFd, address: u64) -> Result<IoEventFd, WiringError> {
        Ok(IoEventFd::register(&self.vm, kick, Address::Mmio(address))?)
    }
}
