//! The VM's file descriptor, with everything set that must be before its first vCPU.
#![allow(unsafe_code)] // KVM_SET_USER_MEMORY_REGION is unsafe: it hands out our address space.

use std::sync::Arc;

use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, kvm_pit_config, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, Kvm, VmFd};

use super::KvmError;
use super::chips::Chips;
use crate::arch::x86_64::layout;
use crate::memory::GuestRam;

/// One VM in KVM: memory, interrupt controllers and timer, no vCPUs yet.
#[derive(Debug)]
pub struct Vm {
    fd: VmFd,
    chips: Chips,
    ioeventfds: bool,
    /// Keeps the mapping alive for as long as KVM may touch it.
    _ram: Arc<GuestRam>,
}

impl Vm {
    /// Makes the VM with `ram` as its memory. `ioeventfds` is `false` for `--no-ioeventfd`.
    pub fn new(kvm: &Kvm, ram: &Arc<GuestRam>, ioeventfds: bool) -> Result<Arc<Self>, KvmError> {
        let fd = kvm.create_vm().map_err(KvmError::ioctl("create a VM"))?;
        // VT-x needs both before the first vCPU; elsewhere they are harmless.
        fd.set_tss_address(layout::KVM_TSS as usize)
            .map_err(KvmError::ioctl("set the TSS address"))?;
        fd.set_identity_map_address(layout::KVM_IDENTITY_MAP)
            .map_err(KvmError::ioctl("set the identity map address"))?;
        fd.create_irq_chip()
            .map_err(KvmError::ioctl("create the interrupt controllers"))?;
        let pit = kvm_pit_config {
            flags: KVM_PIT_SPEAKER_DUMMY,
            ..Default::default()
        };
        fd.create_pit2(pit)
            .map_err(KvmError::ioctl("create the timer"))?;
        for (slot, region) in ram.regions().iter().enumerate() {
            let region = kvm_userspace_memory_region {
                slot: slot as u32,
                flags: 0,
                guest_phys_addr: region.guest_addr,
                memory_size: region.size,
                userspace_addr: region.host_addr,
            };
            // SAFETY: the region is a live shared mapping of our own that `_ram` keeps until after
            // `fd` is closed (fields drop in order), and we only touch it by volatile access.
            unsafe { fd.set_user_memory_region(region) }
                .map_err(KvmError::ioctl("map guest memory"))?;
        }
        let chips = Chips::of(&fd)?;
        Ok(Arc::new(Self {
            chips,
            fd,
            ioeventfds,
            _ram: ram.clone(),
        }))
    }

    /// Puts the interrupt controllers and the timer back to power-on. All vCPUs are parked.
    pub fn reset_chips(&self) -> Result<(), KvmError> {
        self.chips.restore(&self.fd)
    }

    pub(crate) fn fd(&self) -> &VmFd {
        &self.fd
    }

    /// Whether notifications go through KVM; see [`IoEventFd::register`](super::IoEventFd::register).
    pub(super) fn ioeventfds(&self) -> bool {
        self.ioeventfds
    }

    /// How many GSIs the table of routes may name.
    pub(super) fn max_routes(&self) -> u32 {
        u32::try_from(self.fd.check_extension_int(Cap::IrqRouting)).unwrap_or(0)
    }
}
