//! What a vCPU is right after power-on, so that it can be that again.

use kvm_bindings::{
    Msrs, kvm_debugregs, kvm_fpu, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs,
    kvm_sregs, kvm_vcpu_events, kvm_xcrs,
};
use kvm_ioctls::{Kvm, VcpuFd};

use super::KvmError;

/// Time goes on through a reset, and vCPUs whose clocks were set apart would stay apart.
const MSR_TSC: u32 = 0x10;
const MSR_TSC_ADJUST: u32 = 0x3b;
/// `IA32_FEATURE_CONTROL` (Intel SDM volume 4, table 2-2): 0 means no VMX.
const MSR_FEATURE_CONTROL: u32 = 0x3a;
/// Hyper-V's synthetic MSRs, which no guest of ours is told of.
const HYPERV_MSRS: std::ops::Range<u32> = 0x4000_0000..0x4000_1000;

/// Everything of a vCPU that a guest can change, but for vector registers beyond SSE (which
/// INIT leaves alone on real processors too) and the time-stamp counter.
#[derive(Debug)]
pub(super) struct VcpuState {
    pub(super) regs: kvm_regs,
    pub(super) sregs: kvm_sregs,
    fpu: kvm_fpu,
    xcrs: kvm_xcrs,
    debug: kvm_debugregs,
    pub(super) lapic: kvm_lapic_state,
    events: kvm_vcpu_events,
    mp_state: kvm_mp_state,
    pub(super) msrs: Vec<kvm_msr_entry>,
}

impl VcpuState {
    /// Reads the state of a vCPU that has not run yet. `msrs` are those that KVM saves.
    pub(super) fn of(vcpu: &VcpuFd, msrs: &[u32]) -> Result<Self, KvmError> {
        let read = KvmError::ioctl;
        Ok(Self {
            regs: vcpu.get_regs().map_err(read("read a vCPU's registers"))?,
            sregs: vcpu
                .get_sregs()
                .map_err(read("read a vCPU's special registers"))?,
            fpu: kvm_fpu {
                fcw: 0x37f,
                mxcsr: 0x1f80,
                ..kvm_fpu::default()
            },
            xcrs: vcpu.get_xcrs().map_err(read("read a vCPU's XCR0"))?,
            debug: vcpu
                .get_debug_regs()
                .map_err(read("read a vCPU's debug registers"))?,
            lapic: vcpu.get_lapic().map_err(read("read a vCPU's local APIC"))?,
            events: vcpu
                .get_vcpu_events()
                .map_err(read("read a vCPU's pending events"))?,
            mp_state: vcpu
                .get_mp_state()
                .map_err(read("read a vCPU's run state"))?,
            msrs: read_msrs(vcpu, msrs)?,
        })
    }

    /// Puts a vCPU that does not run into this state. From any thread.
    pub(super) fn restore(&self, vcpu: &VcpuFd) -> Result<(), KvmError> {
        let write = KvmError::ioctl;
        // First of all, since it takes a guest that is itself a hypervisor out of VMX: until then
        // KVM refuses a CR4 without VMXE, and registers would be those of the guest's guest.
        let leave_vmx = |msr: &&kvm_msr_entry| msr.index == MSR_FEATURE_CONTROL;
        let first: Vec<_> = self.msrs.iter().filter(leave_vmx).copied().collect();
        write_msrs(vcpu, &first)?;
        vcpu.set_regs(&self.regs)
            .map_err(write("set a vCPU's registers"))?;
        vcpu.set_sregs(&self.sregs)
            .map_err(write("set a vCPU's special registers"))?;
        vcpu.set_fpu(&self.fpu).map_err(write("set a vCPU's FPU"))?;
        vcpu.set_xcrs(&self.xcrs)
            .map_err(write("set a vCPU's XCR0"))?;
        write_msrs(vcpu, &self.msrs)?;
        vcpu.set_vcpu_events(&self.events)
            .map_err(write("set a vCPU's pending events"))?;
        vcpu.set_mp_state(self.mp_state)
            .map_err(write("set a vCPU's run state"))?;
        vcpu.set_lapic(&self.lapic)
            .map_err(write("set a vCPU's local APIC"))?;
        vcpu.set_debug_regs(&self.debug)
            .map_err(write("set a vCPU's debug registers"))
    }
}

/// The MSRs that this KVM saves and restores, less those that must not go back at a reset.
pub(super) fn resettable_msrs(kvm: &Kvm) -> Result<Vec<u32>, KvmError> {
    let list = kvm
        .get_msr_index_list()
        .map_err(KvmError::ioctl("list its MSRs"))?;
    let keep = |msr: &u32| !matches!(*msr, MSR_TSC | MSR_TSC_ADJUST) && !HYPERV_MSRS.contains(msr);
    Ok(list.as_slice().iter().copied().filter(keep).collect())
}

/// Reads what can be read: KVM lists MSRs that a vCPU without the feature does not have.
pub(super) fn read_msrs(vcpu: &VcpuFd, indices: &[u32]) -> Result<Vec<kvm_msr_entry>, KvmError> {
    let wanted: Vec<_> = indices
        .iter()
        .map(|&index| kvm_msr_entry {
            index,
            ..Default::default()
        })
        .collect();
    let mut found = Vec::with_capacity(wanted.len());
    for_each_batch(&wanted, |batch| {
        let done = vcpu
            .get_msrs(batch)
            .map_err(KvmError::ioctl("read a vCPU's MSRs"))?;
        found.extend(batch.as_slice().iter().take(done).copied());
        Ok(done)
    })?;
    Ok(found)
}

/// Sets what can be set; an MSR that KVM lets one read and not write keeps its value.
pub(super) fn write_msrs(vcpu: &VcpuFd, entries: &[kvm_msr_entry]) -> Result<(), KvmError> {
    for_each_batch(entries, |batch| {
        vcpu.set_msrs(batch)
            .map_err(KvmError::ioctl("set a vCPU's MSRs"))
    })
}

/// KVM stops at the first MSR it refuses and says how many it took: go on behind that one.
fn for_each_batch(
    mut rest: &[kvm_msr_entry],
    mut call: impl FnMut(&mut Msrs) -> Result<usize, KvmError>,
) -> Result<(), KvmError> {
    const MOST: usize = 256;
    while !rest.is_empty() {
        let count = rest.len().min(MOST);
        let (batch, _) = rest.split_at(count);
        let Ok(mut msrs) = Msrs::from_entries(batch) else {
            return Ok(());
        };
        let done = call(&mut msrs)?;
        if done < count
            && let Some(refused) = batch.get(done)
        {
            tracing::debug!(
                msr = format_args!("{:#x}", refused.index),
                "KVM refuses an MSR"
            );
        }
        let skip = if done < count { done + 1 } else { count };
        rest = rest.get(skip..).unwrap_or_default();
    }
    Ok(())
}
