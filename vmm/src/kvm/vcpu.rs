//! One vCPU: made, given its CPUID and its power-on state.

use std::fs::File;
use std::sync::atomic::AtomicI32;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kvm_bindings::{CpuId, kvm_cpuid_entry2, kvm_lapic_state};
use kvm_ioctls::{Kvm, VcpuFd};

use super::exits::Exits;
use super::kick::ImmediateExit;
use super::state::{VcpuState, read_msrs, resettable_msrs, write_msrs};
use super::{KvmError, Vm, stats};
use crate::arch::x86_64::boot::EntryState;
use crate::arch::x86_64::msr;

/// Local vector table registers of the local APIC (Intel SDM volume 3, 12.4.1), and the delivery
/// modes a firmware leaves in them: the PIC on LINT0, NMI on LINT1.
const LVT_LINT0: usize = 0x350;
const LVT_LINT1: usize = 0x360;
const DELIVER_EXTINT: u32 = 0b111 << 8;
const DELIVER_NMI: u32 = 0b100 << 8;

/// One vCPU. Its thread holds the lock of `fd` while the guest runs.
#[derive(Debug)]
pub(super) struct Vcpu {
    pub(super) index: u32,
    pub(super) immediate_exit: ImmediateExit,
    fd: Mutex<VcpuFd>,
    power_on: VcpuState,
    /// For those who watch from outside.
    pub(super) stats: Option<File>,
    pub(super) exits: Exits,
    /// The thread's id, once it runs; 0 before.
    pub(super) thread: AtomicI32,
}

impl Vcpu {
    /// Makes the vCPU and gives it `cpuid`. Its APIC id is its index.
    pub(super) fn new(
        kvm: &Kvm,
        vm: &Vm,
        index: u32,
        cpuid: &[kvm_cpuid_entry2],
    ) -> Result<Self, KvmError> {
        let fd = vm
            .fd()
            .create_vcpu(index.into())
            .map_err(KvmError::ioctl("create a vCPU"))?;
        let cpuid = CpuId::from_entries(cpuid).map_err(|_| KvmError::CpuidTooLong)?;
        fd.set_cpuid2(&cpuid)
            .map_err(KvmError::ioctl("set a vCPU's CPUID"))?;
        let misc_enable = read_msrs(&fd, &[msr::MISC_ENABLE])?;
        let misc_enable = misc_enable.first().map_or(0, |found| found.data);
        write_msrs(&fd, &msr::firmware(misc_enable))?;
        let mut power_on = VcpuState::of(&fd, &resettable_msrs(kvm)?)?;
        if index == 0 {
            set_lapic_register(&mut power_on.lapic, LVT_LINT0, DELIVER_EXTINT);
            set_lapic_register(&mut power_on.lapic, LVT_LINT1, DELIVER_NMI);
        }
        let immediate_exit = ImmediateExit::of(&fd)?;
        let stats = stats::open(&fd);
        Ok(Self {
            index,
            immediate_exit,
            fd: Mutex::new(fd),
            power_on,
            stats,
            exits: Exits::default(),
            thread: AtomicI32::new(0),
        })
    }

    /// The vCPU's file descriptor; waits for its thread to park.
    pub(super) fn fd(&self) -> MutexGuard<'_, VcpuFd> {
        self.fd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Back to power-on. The first vCPU then stands at `entry`; the others wait for INIT and SIPI.
    pub(super) fn reset(&self, entry: &EntryState) -> Result<(), KvmError> {
        let fd = self.fd();
        self.power_on.restore(&fd)?;
        if self.index == 0 {
            let mut sregs = self.power_on.sregs;
            entry.apply(&mut sregs);
            fd.set_sregs(&sregs)
                .map_err(KvmError::ioctl("set a vCPU's special registers"))?;
            fd.set_regs(&entry.regs())
                .map_err(KvmError::ioctl("set a vCPU's registers"))?;
        }
        Ok(())
    }
}

fn set_lapic_register(lapic: &mut kvm_lapic_state, offset: usize, value: u32) {
    if let Some(register) = lapic.regs.get_mut(offset..offset + 4) {
        for (byte, new) in register.iter_mut().zip(value.to_le_bytes()) {
            *byte = new.cast_signed();
        }
    }
}
