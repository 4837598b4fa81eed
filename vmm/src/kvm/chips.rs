//! The in-kernel interrupt controllers and timer, kept as they are at power-on.

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, kvm_irqchip, kvm_pit_state2,
};
use kvm_ioctls::VmFd;

use super::KvmError;

/// State of both PICs, the I/O APIC and the PIT.
#[derive(Debug)]
pub(super) struct Chips {
    irqchips: Vec<kvm_irqchip>,
    pit: kvm_pit_state2,
}

impl Chips {
    pub(super) fn of(vm: &VmFd) -> Result<Self, KvmError> {
        let irqchips = [
            KVM_IRQCHIP_PIC_MASTER,
            KVM_IRQCHIP_PIC_SLAVE,
            KVM_IRQCHIP_IOAPIC,
        ]
        .into_iter()
        .map(|chip_id| {
            let mut chip = kvm_irqchip {
                chip_id,
                ..kvm_irqchip::default()
            };
            vm.get_irqchip(&mut chip)
                .map_err(KvmError::ioctl("read an interrupt controller"))?;
            Ok(chip)
        })
        .collect::<Result<_, KvmError>>()?;
        let pit = vm.get_pit2().map_err(KvmError::ioctl("read the timer"))?;
        Ok(Self { irqchips, pit })
    }

    pub(super) fn restore(&self, vm: &VmFd) -> Result<(), KvmError> {
        for chip in &self.irqchips {
            vm.set_irqchip(chip)
                .map_err(KvmError::ioctl("reset an interrupt controller"))?;
        }
        vm.set_pit2(&self.pit)
            .map_err(KvmError::ioctl("reset the timer"))
    }
}
