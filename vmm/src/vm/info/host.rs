//! The KVM and the processor under a VM.

use std::fs;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// Which KVM runs the VM, on which processor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvmInfo {
    /// The module behind `/dev/kvm`: `kvm_intel`, `kvm_amd`, `kvm_pvm`, or `built-in`.
    pub module: String,
    /// The processor's vendor by CPUID: `GenuineIntel`, `AuthenticAMD`. Empty where it is not known.
    pub vendor: String,
    /// The host is itself a VM: what KVM does here is paid for twice.
    pub nested: bool,
}

impl KvmInfo {
    pub(super) fn of_host() -> Self {
        // The same as long as this process lives, and slow to read where there are many processors.
        static HOST: LazyLock<KvmInfo> = LazyLock::new(|| {
            let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            KvmInfo::of(crate::doctor::kvm_kind(), &processor)
        });
        HOST.clone()
    }

    /// By the text of `/proc/cpuinfo`.
    fn of(module: &str, cpuinfo: &str) -> Self {
        let field = |name: &str| {
            let value = |line: &str| {
                let (key, value) = line.split_once(':')?;
                (key.trim() == name).then(|| value.trim().to_owned())
            };
            cpuinfo.lines().find_map(value).unwrap_or_default()
        };
        Self {
            module: module.to_owned(),
            vendor: field("vendor_id"),
            nested: field("flags").split(' ').any(|flag| flag == "hypervisor"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_says_who_made_it_and_whether_it_is_a_guests() {
        let text = "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu hypervisor svm\n";
        let info = KvmInfo::of("kvm_amd", text);
        assert_eq!((info.vendor.as_str(), info.nested), ("AuthenticAMD", true));
        let info = KvmInfo::of("kvm_intel", &text.replace("hypervisor ", ""));
        assert!(!info.nested);
        assert_eq!(KvmInfo::of("built-in", "").vendor, "");
    }
}
