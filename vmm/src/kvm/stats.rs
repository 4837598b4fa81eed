//! KVM's own statistics of a vCPU, as a file that stays open while the vCPU lives.
//!
//! Its format is that of KVM's API, section 4.133 (`struct kvm_stats_header`, `struct kvm_stats_desc`).
//! Whoever watches from outside takes a copy of the descriptor (`pidfd_getfd(2)`).
#![allow(unsafe_code)] // one ioctl that kvm-ioctls does not have

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;

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

/// As much as any kernel's statistics take.
const LEN_MAX: usize = 64 << 10;
/// Of a descriptor, before its name.
const DESCRIPTOR: usize = 16;

/// The counters of one value each, by their names. Empty where they cannot be read.
pub(super) fn read(stats: &File) -> BTreeMap<String, u64> {
    let mut bytes = vec![0; LEN_MAX];
    // The file's position is shared with whoever has a copy.
    let len = stats.read_at(&mut bytes, 0).unwrap_or(0);
    bytes.truncate(len);
    parse(&bytes).unwrap_or_default()
}

fn parse(bytes: &[u8]) -> Option<BTreeMap<String, u64>> {
    let at = |offset: usize, len| bytes.get(offset..offset.checked_add(len)?);
    let long = |offset| {
        let bytes = at(offset, 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let (name_size, count) = (long(4)?, long(8)?);
    let (descriptors, data) = (long(16)?, long(20)?);
    let mut counters = BTreeMap::new();
    for n in 0..count {
        let size = name_size.checked_add(DESCRIPTOR)?;
        let descriptor = descriptors.checked_add(n.checked_mul(size)?)?;
        let field = |offset| descriptor.checked_add(offset);
        let values = u16::from_le_bytes(at(field(6)?, 2)?.try_into().ok()?);
        let value = data.checked_add(long(field(8)?)?)?;
        let name = at(field(DESCRIPTOR)?, name_size)?;
        let name = name.split(|byte| *byte == 0).next()?;
        if values == 1 {
            let value = u64::from_le_bytes(at(value, 8)?.try_into().ok()?);
            counters.insert(String::from_utf8_lossy(name).into_owned(), value);
        }
    }
    Some(counters)
}
