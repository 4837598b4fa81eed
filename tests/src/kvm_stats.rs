//! KVM's statistics of a VM in another process, and what its threads did.
//!
//! The file is read from outside: a copy of the VMM's descriptor, in the format of KVM's API,
//! section 4.133 (`struct kvm_stats_header`, `struct kvm_stats_desc`).
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Counters of one vCPU by name, those of one value only. `None` where this host keeps none.
pub fn vcpu(pid: i32) -> Option<BTreeMap<String, u64>> {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    let number = fds
        .filter(|fd| {
            fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().contains("kvm-vcpu-stats"))
        })
        .filter_map(|fd| fd.file_name().to_str()?.parse().ok())
        .min()?;
    parse(&read_all(&copy(pid, number)?))
}

/// A copy of another process's descriptor.
fn copy(pid: i32, number: i32) -> Option<OwnedFd> {
    // SAFETY: pidfd_open takes two integers.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let pidfd = i32::try_from(pidfd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: the call has just made it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    // SAFETY: pidfd_getfd takes three integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: as above.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// From its beginning; the descriptor's own position is shared with the VMM, so it is not used.
fn read_all(fd: &OwnedFd) -> Vec<u8> {
    let mut bytes = vec![0; 64 << 10];
    let got = nix::sys::uio::pread(fd, &mut bytes, 0).unwrap_or(0);
    bytes.truncate(got);
    bytes
}

fn parse(bytes: &[u8]) -> Option<BTreeMap<String, u64>> {
    let long =
        |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize);
    let (name_size, count, descriptors, data) = (long(4)?, long(8)?, long(16)?, long(20)?);
    let mut counters = BTreeMap::new();
    for n in 0..count {
        let at = descriptors + n * (16 + name_size);
        let values = u16::from_le_bytes(bytes.get(at + 6..at + 8)?.try_into().ok()?);
        let place = data + long(at + 8)?;
        let name = bytes.get(at + 16..at + 16 + name_size)?;
        let name = String::from_utf8_lossy(name.split(|byte| *byte == 0).next()?).into_owned();
        if values == 1 {
            counters.insert(
                name,
                u64::from_le_bytes(bytes.get(place..place + 8)?.try_into().ok()?),
            );
        }
    }
    Some(counters)
}

/// Voluntary context switches of the VMM's threads that are not vCPUs, and of those that are.
pub fn switches(pid: i32) -> (u64, u64) {
    let (mut others, mut vcpus) = (0, 0);
    for task in fs::read_dir(format!("/proc/{pid}/task"))
        .expect("the VMM lives")
        .flatten()
    {
        let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let status = read("status");
        let count = status.lines().find_map(|line| {
            line.strip_prefix("voluntary_ctxt_switches:")?
                .trim()
                .parse::<u64>()
                .ok()
        });
        let sum = if read("comm").starts_with("vcpu") {
            &mut vcpus
        } else {
            &mut others
        };
        *sum += count.unwrap_or(0);
    }
    (others, vcpus)
}
