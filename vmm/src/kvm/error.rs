//! Why KVM refused.

use std::io;

/// Why KVM refused.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// `/dev/kvm` is not there.
    #[error(
        "/dev/kvm is missing; load the kvm_intel or kvm_amd module, or switch virtualization on in \
         the firmware (or in the outer VM's settings), then run: outboard doctor"
    )]
    Missing,
    /// `/dev/kvm` may not be opened.
    #[error(
        "/dev/kvm may not be opened by this user; join the group it belongs to \
         (usually: sudo usermod -aG kvm \"$USER\", and log in again), or have root let you in: \
         sudo setfacl -m u:\"$USER\":rw /dev/kvm"
    )]
    Permission,
    /// `/dev/kvm` cannot be opened for another reason.
    #[error("/dev/kvm cannot be opened; run: outboard doctor")]
    Open(#[source] io::Error),
    /// Something else is in its place.
    #[error(
        "/dev/kvm is not KVM's device; see that nothing is mounted or made in its place, then run: outboard doctor"
    )]
    NotKvm,
    /// Another API than the one that is stable since Linux 2.6.22.
    #[error("/dev/kvm speaks API version {0} and not 12; this kernel is not supported")]
    ApiVersion(i32),
    /// Capabilities that we cannot do without.
    #[error("this host's KVM lacks {}; a newer kernel, or another machine, has it", .0.join(", "))]
    Capabilities(Vec<&'static str>),
    /// More vCPUs than the host can do.
    #[error("{asked} vCPUs are more than this host's KVM can do; use --cpus {most} or fewer")]
    TooManyCpus {
        /// Asked for.
        asked: u32,
        /// The host's limit.
        most: u32,
    },
    /// Every GSI is taken.
    #[error("all {0} interrupt routes of KVM are in use; use fewer devices or fewer queues")]
    NoGsi(u32),
    /// More CPUID leaves than KVM takes.
    #[error("this host has more CPUID leaves than KVM takes; this is a bug, please report it")]
    CpuidTooLong,
    /// No thread for a vCPU.
    #[error("a vCPU's thread cannot be started; check the limit of processes (ulimit -u)")]
    Thread(#[source] io::Error),
    /// vCPUs hang.
    #[error("{0} vCPUs do not leave the guest; the host's kernel log (dmesg) may say why")]
    Stuck(usize),
    /// The process may have no more descriptors.
    #[error(
        "this process may not open enough files to {action}; raise the limit (ulimit -Hn), or use \
         fewer CPUs, devices and queues"
    )]
    Files {
        /// What was asked, as in "create a vCPU".
        action: &'static str,
    },
    /// One ioctl failed.
    #[error("KVM refused to {action}; see the kernel log (dmesg)")]
    Ioctl {
        /// What was asked, as in "create the VM".
        action: &'static str,
        /// What the kernel said.
        #[source]
        error: io::Error,
    },
}

impl KvmError {
    /// For `map_err` on ioctls: names what was tried.
    pub(crate) fn ioctl(action: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |error| match error.errno() {
            libc::EMFILE => Self::Files { action },
            _ => Self::Ioctl {
                action,
                error: error.into(),
            },
        }
    }
}
