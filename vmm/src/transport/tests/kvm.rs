//! The same on a VM of the machine's own KVM, where there is one.

use std::ops::Deref;

use kvm_ioctls::{Kvm, VcpuFd};

use super::*;
use crate::config::MemoryConfig;
use crate::kvm::{Routes, Vm};
use crate::memory::GuestRam;
use crate::pci::KvmWiring;

/// Local APIC registers: spurious interrupt vector, with the enable bit; interrupt requests.
const SVR: usize = 0xf0;
const SVR_ENABLED: u8 = 1;
const IRR: usize = 0x200;

/// A running device wired to a VM with one vCPU that never runs: interrupts stay in its local
/// APIC, to be looked at.
struct KvmRig {
    rig: Rig<KvmWiring>,
    vcpu: VcpuFd,
}

impl Deref for KvmRig {
    type Target = Rig<KvmWiring>;

    fn deref(&self) -> &Self::Target {
        &self.rig
    }
}

impl KvmRig {
    /// `None` (and a word about it) without KVM.
    fn running(ioeventfds: bool) -> Option<Self> {
        let Ok(kvm) = Kvm::new() else {
            eprintln!("skipped: /dev/kvm cannot be opened here");
            return None;
        };
        let memory = MemoryConfig {
            size: 32 << 20,
            hugepages: false,
            prefault: false,
        };
        let ram = Arc::new(GuestRam::new(&memory).unwrap());
        let vm = Vm::new(&kvm, &ram, ioeventfds).unwrap();
        let vcpu = vm.fd().create_vcpu(0).unwrap();
        let routes = Routes::new(&vm).unwrap();
        let device = FakeDevice::new(VERSION_1 | RING_RESET);
        let wiring = Arc::new(KvmWiring::new(vm, routes));
        let rig = Rig::with(device, wiring, in_ram(ram.mmap()));
        rig.enable_msix();
        rig.drive();
        let rig = Self { rig, vcpu };
        rig.clear();
        Some(rig)
    }

    /// Enables the local APIC, with no interrupt requested.
    fn clear(&self) {
        let mut lapic = self.vcpu.get_lapic().unwrap();
        lapic.regs[SVR + 1] = SVR_ENABLED.cast_signed();
        lapic.regs[IRR..IRR + 0x80].fill(0);
        self.vcpu.set_lapic(&lapic).unwrap();
    }

    /// Whether an MSI-X vector's interrupt reaches the local APIC; takes it from there.
    fn arrives(&self, vector: u32) -> bool {
        let number = message(vector).data as usize;
        let register = IRR + number / 32 * 0x10 + number % 32 / 8;
        // KVM injects from a kernel thread where it cannot at once.
        let arrived = (0..400).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            self.vcpu.get_lapic().unwrap().regs[register] & 1 << (number % 8) != 0
        });
        self.clear();
        arrived
    }

    /// Whether nothing has reached the local APIC, after a time in which it would have.
    fn is_quiet(&self) -> bool {
        std::thread::sleep(std::time::Duration::from_millis(50));
        self.vcpu.get_lapic().unwrap().regs[IRR..IRR + 0x80]
            .iter()
            .all(|byte| *byte == 0)
    }
}

#[test]
fn kvm_injects_but_for_masked_vectors() {
    let Some(rig) = KvmRig::running(true) else {
        return;
    };
    rig.device.interrupt(0);
    assert!(rig.arrives(1));
    rig.mask(1, true);
    rig.device.interrupt(0);
    assert!(rig.is_quiet());
    assert_eq!(rig.pending(), 1 << 1);
    rig.mask(1, false);
    assert!(rig.arrives(1));
    assert_eq!(rig.pending(), 0);
    // What was injected at the unmasking is not injected again at the next.
    rig.mask(1, true);
    assert_eq!(rig.pending(), 0);
    rig.mask(1, false);
    assert!(rig.is_quiet());
    rig.device.events().config_changed();
    assert!(rig.arrives(0));
}

#[test]
fn wires_survive_moves_resets_and_bad_messages() {
    for ioeventfds in [true, false] {
        let Some(rig) = KvmRig::running(ioeventfds) else {
            return;
        };
        for round in 0..20_u32 {
            rig.config_write(0x10, &(0xc100_0000 + (round << 16)).to_le_bytes());
            rig.config_write(4, &[4]);
            rig.config_write(0x10, &(BAR0 as u32).to_le_bytes());
            rig.config_write(4, &[6]);
            rig.write_entry(1, 0, &u64::MAX.to_le_bytes());
            rig.drive();
        }
        rig.device.interrupt(0);
        rig.device.interrupt(1);
        assert!(rig.arrives(2));
        rig.write(notify(1), &[1, 0]);
        assert_eq!(rig.device.kicks(1), 1);
        rig.root.reset();
        assert!(rig.root.is_reset());
    }
}
