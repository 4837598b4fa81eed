//! KVM's own statistics of a vCPU, as a file that stays open while the vCPU lives.
//!
//! Nothing here reads it: whoever watches from outside takes a copy of the descriptor
//! (`pidfd_getfd(2)`) and reads it in the format of KVM's API, section 4.133.
#![allow(unsafe_code)] // one ioctl that kvm-ioctls does not have

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};

use kvm_ioctls::VcpuFd;

nix::ioctl_none_bad!(
    get_stats_fd,
    // `_IO(KVMIO, 0xce)` of linux/kvm.h
    nix::request_code_none!(0xae, 0xce)
);

/// Opens the statistics of a vCPU; `None` on hosts before Linux 5.14, which have none.
pub(super) fn open(vcpu: &VcpuFd) -> Option<File> {
    // SAFETY: the ioctl takes no argument, and the descriptor is a vCPU's.
    let fd = unsafe { get_stats_fd(vcpu.as_raw_fd()) }.ok()?;
    // SAFETY: KVM has just made this descriptor for us.
    Some(unsafe { File::from_raw_fd(fd) })
}
