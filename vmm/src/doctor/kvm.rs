//! KVM: there, permitted, able, and of which kind.

use std::fs;

use kvm_ioctls::Kvm;

use super::Finding;
use crate::kvm::missing_capabilities;

pub(super) fn examine() -> Vec<Finding> {
    let kvm = match Kvm::new() {
        Ok(kvm) => kvm,
        Err(error) => return vec![refused(error)],
    };
    let version = kvm.get_api_version();
    let missing = missing_capabilities(&kvm);
    let capabilities = if missing.is_empty() {
        Finding::pass("capabilities", "all that are needed")
    } else {
        Finding::fail(
            "capabilities",
            format!("missing: {}", missing.join(", ")),
            "use a host kernel of 5.10 or later with full KVM",
        )
    };
    vec![
        Finding::pass("/dev/kvm", format!("opens, API version {version}")),
        kind(),
        capabilities,
    ]
}

fn refused(error: kvm_ioctls::Error) -> Finding {
    let remedy = match error.errno() {
        libc::ENOENT => {
            "load kvm_intel or kvm_amd, and turn on virtualization in the firmware; in a VM, ask for nested virtualization"
        }
        libc::EACCES => {
            "join the group of /dev/kvm (usermod -aG kvm $USER, then log in again), or have root let you in: setfacl -m u:$USER:rw /dev/kvm"
        }
        _ => "see dmesg for what KVM said",
    };
    Finding::fail("/dev/kvm", error.to_string(), remedy)
}

/// Which module stands behind `/dev/kvm`: `kvm_intel`, `kvm_amd`, `kvm_pvm`, or `built-in`.
pub fn kvm_kind() -> &'static str {
    let loaded = |module: &&str| fs::metadata(format!("/sys/module/{module}")).is_ok();
    let known = ["kvm_intel", "kvm_amd", "kvm_pvm"];
    known.into_iter().find(loaded).unwrap_or("built-in")
}

fn kind() -> Finding {
    match kvm_kind() {
        "kvm_pvm" => Finding::warn(
            "KVM kind",
            "kvm_pvm: guest kernels are interpreted, and an unmodified Linux does not boot",
            "use a machine with VT-x or AMD-V for Linux guests; make demo takes the nested way by itself",
        ),
        "built-in" => Finding::pass("KVM kind", "built into the kernel"),
        module => Finding::pass("KVM kind", module),
    }
}
