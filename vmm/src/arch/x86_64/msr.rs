//! Model-specific registers as a firmware leaves them.

use kvm_bindings::kvm_msr_entry;

/// `IA32_MISC_ENABLE` (Intel SDM volume 4, table 2-2), and its fast-strings bit.
pub(crate) const MISC_ENABLE: u32 = 0x1a0;
const FAST_STRINGS: u64 = 1;
/// `IA32_MTRR_DEF_TYPE` (Intel SDM volume 3, 13.11.2.1): enable, and write-back by default.
/// Without it a kernel takes all of memory for uncacheable.
const MTRR_DEF_TYPE: u32 = 0x2ff;
const MTRR_ENABLE: u64 = 1 << 11;
const WRITE_BACK: u64 = 6;

/// What every vCPU's MSRs are set to before its first instruction. `misc_enable` is what KVM has in
/// [`MISC_ENABLE`]: there it says that there is neither BTS nor PEBS.
pub(crate) fn firmware(misc_enable: u64) -> [kvm_msr_entry; 2] {
    let msr = |index, data| kvm_msr_entry {
        index,
        data,
        reserved: 0,
    };
    [
        msr(MISC_ENABLE, misc_enable | FAST_STRINGS),
        msr(MTRR_DEF_TYPE, MTRR_ENABLE | WRITE_BACK),
    ]
}
