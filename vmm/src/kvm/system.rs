//! `/dev/kvm` itself: opening it, and what it must be able to do.
#![allow(unsafe_code)] // one system call that libc has no name for

use std::io;

use kvm_bindings::KVM_API_VERSION;
use kvm_ioctls::{Cap, Kvm};

use super::KvmError;

/// What we cannot do without, with the names that the kernel's documentation gives them
/// (Documentation/virt/kvm/api.rst).
const REQUIRED: [(Cap, &str); 17] = [
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::Hlt, "KVM_CAP_HLT"),
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::SetIdentityMapAddr, "KVM_CAP_SET_IDENTITY_MAP_ADDR"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::MpState, "KVM_CAP_MP_STATE"),
    (Cap::IrqRouting, "KVM_CAP_IRQ_ROUTING"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::IoeventfdNoLength, "KVM_CAP_IOEVENTFD_NO_LENGTH"),
    (Cap::SignalMsi, "KVM_CAP_SIGNAL_MSI"),
    (Cap::Pit2, "KVM_CAP_PIT2"),
    (Cap::PitState2, "KVM_CAP_PIT_STATE2"),
    (Cap::VcpuEvents, "KVM_CAP_VCPU_EVENTS"),
    (Cap::Xcrs, "KVM_CAP_XCRS"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
];

/// `arch_prctl` with `ARCH_REQ_XCOMP_GUEST_PERM` and the number of AMX's tile data
/// (Documentation/arch/x86/xstate.rst).
const REQUEST_GUEST_STATE: libc::c_int = 0x1025;
const TILE_DATA: libc::c_ulong = 18;

/// Opens `/dev/kvm` and makes sure that it can do what a VM needs.
pub fn open() -> Result<Kvm, KvmError> {
    // Before KVM is asked for its CPUID, or guests get no AMX. Where the host has none this fails,
    // and nothing is lost.
    // SAFETY: the call takes plain numbers and changes only what this process's guests may have.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_GUEST_STATE, TILE_DATA) };
    let kvm = Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => KvmError::Missing,
        libc::EACCES | libc::EPERM => KvmError::Permission,
        other => KvmError::Open(io::Error::from_raw_os_error(other)),
    })?;
    match kvm.get_api_version() {
        version if version == KVM_API_VERSION.cast_signed() => {}
        ..0 => return Err(KvmError::NotKvm),
        version => return Err(KvmError::ApiVersion(version)),
    }
    match missing_capabilities(&kvm) {
        missing if missing.is_empty() => Ok(kvm),
        missing => Err(KvmError::Capabilities(missing)),
    }
}

/// The names of the capabilities that a VM needs and this KVM has not.
pub fn missing_capabilities(kvm: &Kvm) -> Vec<&'static str> {
    let missing = |(cap, _): &&(Cap, _)| !kvm.check_extension(*cap);
    REQUIRED
        .iter()
        .filter(missing)
        .map(|&(_, name)| name)
        .collect()
}
