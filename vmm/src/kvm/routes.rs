//! The table of interrupt routes, and its one owner.
//!
//! KVM takes the table as a whole (`KVM_SET_GSI_ROUTING`), so whoever changes one route must know
//! all of them. GSIs 0 to 23 are the interrupt lines of the PICs and the I/O APIC and never
//! change; MSI routes come after them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_irqchip,
    kvm_irq_routing_msi,
};

use super::{KvmError, Vm};
use crate::arch::x86_64::layout::IOAPIC_GSIS;

/// What a device writes to raise an interrupt: the address and data of its MSI-X table entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MsiMessage {
    /// Both halves of the message address.
    pub address: u64,
    /// The message data.
    pub data: u32,
}

/// How many routes the lines take more than they have GSIs: IRQ 0 to 15, but 2, reach a PIC and the
/// I/O APIC. KVM counts routes, so as many GSIs stay unused.
const SPARE: u32 = 15;

/// The owner of the GSI table. Any thread may use it.
#[derive(Debug)]
pub struct Routes {
    vm: Arc<Vm>,
    /// One past the highest GSI that may be used.
    limit: u32,
    table: Mutex<BTreeMap<u32, Option<MsiMessage>>>,
}

/// A GSI for MSI, free for use by others when dropped.
#[derive(Debug)]
pub struct Gsi {
    routes: Arc<Routes>,
    number: u32,
}

impl Routes {
    /// Takes the table over, and sets the routes of the interrupt lines.
    pub(crate) fn new(vm: &Arc<Vm>) -> Result<Arc<Self>, KvmError> {
        let routes = Self {
            vm: vm.clone(),
            limit: vm.max_routes().saturating_sub(SPARE),
            table: Mutex::default(),
        };
        routes.install(&routes.table())?;
        Ok(Arc::new(routes))
    }

    /// Takes a GSI that nobody has. It has no route: raising it does nothing until
    /// [`set_msi`](Self::set_msi).
    pub fn allocate(self: &Arc<Self>) -> Result<Gsi, KvmError> {
        let mut table = self.table();
        let number = (IOAPIC_GSIS..self.limit)
            .find(|gsi| !table.contains_key(gsi))
            .ok_or(KvmError::NoGsi(self.limit))?;
        table.insert(number, None);
        Ok(Gsi {
            routes: self.clone(),
            number,
        })
    }

    /// Sets the messages of all the GSIs given, by one call into KVM.
    ///
    /// On an error no route has changed.
    pub fn set_msi(&self, updates: &[(&Gsi, MsiMessage)]) -> Result<(), KvmError> {
        let mut table = self.table();
        let mut changed = table.clone();
        changed.extend(
            updates
                .iter()
                .map(|(gsi, message)| (gsi.number, Some(*message))),
        );
        if changed == *table {
            return Ok(());
        }
        self.install(&changed)?;
        *table = changed;
        Ok(())
    }

    fn install(&self, table: &BTreeMap<u32, Option<MsiMessage>>) -> Result<(), KvmError> {
        let entries: Vec<_> = lines()
            .chain(
                table
                    .iter()
                    .filter_map(|(&gsi, message)| Some(msi(gsi, (*message)?))),
            )
            .collect();
        let failed = |_| KvmError::NoGsi(self.limit);
        let routing = KvmIrqRouting::from_entries(&entries).map_err(failed)?;
        self.vm
            .fd()
            .set_gsi_routing(&routing)
            .map_err(KvmError::ioctl("set interrupt routes"))
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<u32, Option<MsiMessage>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gsi {
    /// The number, as KVM knows it.
    pub fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Gsi {
    fn drop(&mut self) {
        // Its route leaves KVM with the next change; nothing can raise it meanwhile.
        self.routes.table().remove(&self.number);
    }
}

/// Both PICs, and the I/O APIC with the timer's line on its pin 2 (as the MADT tells the guest).
fn lines() -> impl Iterator<Item = kvm_irq_routing_entry> {
    let pics = (0..16u32).map(|irq| match irq {
        0..8 => line(irq, KVM_IRQCHIP_PIC_MASTER, irq),
        _ => line(irq, KVM_IRQCHIP_PIC_SLAVE, irq - 8),
    });
    let ioapic = (0..IOAPIC_GSIS)
        .filter(|&gsi| gsi != 2)
        .map(|gsi| line(gsi, KVM_IRQCHIP_IOAPIC, if gsi == 0 { 2 } else { gsi }));
    pics.chain(ioapic)
}

fn line(gsi: u32, irqchip: u32, pin: u32) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_IRQCHIP,
        ..Default::default()
    };
    entry.u.irqchip = kvm_irq_routing_irqchip { irqchip, pin };
    entry
}

fn msi(gsi: u32, message: MsiMessage) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        ..Default::default()
    };
    entry.u.msi = kvm_irq_routing_msi {
        address_lo: message.address as u32,
        address_hi: (message.address >> 32) as u32,
        data: message.data,
        ..Default::default()
    };
    entry
}
