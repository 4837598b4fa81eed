//! CPUID's feature words, and the names of their bits as QEMU spells them.
//!
//! Bits: Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E; KVM's in
//! Documentation/virt/kvm/x86/cpuid.rst.

/// One of the four results of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}
use Register::{Eax, Ebx, Ecx, Edx};

/// Thirty-two feature bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) leaf: u32,
    pub(super) index: u32,
    pub(super) register: Register,
}

const fn word(leaf: u32, index: u32, register: Register) -> Word {
    Word {
        leaf,
        index,
        register,
    }
}

// Leaf 1, ECX
pub(super) const TSC_DEADLINE: u32 = 1 << 24;
pub(super) const OSXSAVE: u32 = 1 << 27;
pub(super) const HYPERVISOR: u32 = 1 << 31;
// Leaf 1, EDX
pub(super) const HTT: u32 = 1 << 28;
// Leaf 7, EBX and ECX
pub(super) const SGX: u32 = 1 << 2;
pub(super) const OSPKE: u32 = 1 << 4;
pub(super) const SGX_LC: u32 = 1 << 30;
// Leaf 0x8000_0001, ECX
pub(super) const CMP_LEGACY: u32 = 1 << 1;
/// The bits of leaf `0x8000_0001` EDX that on AMD repeat those of leaf 1 EDX.
pub(super) const AMD_ALIASES: u32 = 0x0183_f3ff;

/// Each word with the names of its bits, lowest first; `-` has none, and a name may stand at
/// several bits.
#[rustfmt::skip]
pub(super) const WORDS: [(Word, &str); 17] = [
    (word(1, 0, Edx),
        "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn \
         clflush - ds acpi mmx fxsr sse sse2 ss ht tm ia64 pbe"),
    (word(1, 0, Ecx),
        "pni pclmulqdq dtes64 monitor ds-cpl vmx smx est tm2 ssse3 cid - fma cx16 xtpr pdcm \
         - pcid dca sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave - avx f16c \
         rdrand hypervisor"),
    (word(6, 0, Eax),
        "- - arat"),
    (word(7, 0, Ebx),
        "fsgsbase tsc-adjust sgx bmi1 hle avx2 fdp-excptn-only smep bmi2 erms invpcid rtm - \
         zero-fcs-fds mpx - avx512f avx512dq rdseed adx smap avx512ifma pcommit clflushopt \
         clwb intel-pt avx512pf avx512er avx512cd sha-ni avx512bw avx512vl"),
    (word(7, 0, Ecx),
        "- avx512vbmi umip pku - waitpkg avx512vbmi2 shstk gfni vaes vpclmulqdq avx512vnni \
         avx512bitalg - avx512-vpopcntdq - la57 - - - - - rdpid - bus-lock-detect cldemote \
         - movdiri movdir64b - sgxlc pks"),
    (word(7, 0, Edx),
        "- - avx512-4vnniw avx512-4fmaps fsrm - - - avx512-vp2intersect - md-clear - - - \
         serialize - tsx-ldtrk - - arch-lbr ibt - amx-bf16 avx512-fp16 amx-tile amx-int8 \
         spec-ctrl stibp flush-l1d arch-capabilities core-capability ssbd"),
    (word(7, 1, Eax),
        "sha512 sm3 sm4 - avx-vnni avx512-bf16 - cmpccxadd - - fzrm fsrs fsrc - - - - fred \
         lkgs wrmsrns - amx-fp16 - avx-ifma - - lam"),
    (word(7, 1, Edx),
        "- - - - avx-vnni-int8 avx-ne-convert - - amx-complex - avx-vnni-int16 - - - \
         prefetchiti - - - - avx10"),
    (word(7, 2, Edx),
        "intel-psfd ipred-ctrl rrsba-ctrl ddpd-u bhi-ctrl mcdt-no"),
    (word(0xd, 1, Eax),
        "xsaveopt xsavec xgetbv1 xsaves xfd"),
    (word(0x8000_0001, 0, Edx),
        "- - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - fxsr-opt pdpe1gb \
         rdtscp - lm 3dnowext 3dnow"),
    (word(0x8000_0001, 0, Ecx),
        "lahf-lm cmp-legacy svm extapic cr8legacy abm sse4a misalignsse 3dnowprefetch osvw \
         ibs xop skinit wdt - lwp fma4 tce - nodeid-msr - tbm topoext perfctr-core \
         perfctr-nb"),
    (word(0x8000_0007, 0, Edx),
        "- - - - - - - - invtsc"),
    (word(0x8000_0008, 0, Ebx),
        "clzero - xsaveerptr - - - - - - wbnoinvd - - ibpb - ibrs amd-stibp - \
         stibp-always-on - - - - - - amd-ssbd virt-ssbd amd-no-ssb - amd-psfd"),
    (word(0x8000_000a, 0, Edx),
        "npt lbrv svm-lock nrip-save tsc-scale vmcb-clean flushbyasid decodeassists - - \
         pause-filter - pfthreshold avic - v-vmsave-vmload vgif - - - - - - - - vnmi"),
    (word(0x8000_0021, 0, Eax),
        "no-nested-data-bp - lfence-always-serializing - - - null-sel-clr-base - auto-ibrs"),
    (word(0x4000_0001, 0, Eax),
        "kvmclock kvm-nopiodelay kvm-mmu kvmclock kvm-asyncpf kvm-steal-time kvm-pv-eoi \
         kvm-pv-unhalt - kvm-pv-tlb-flush kvm-asyncpf-vmexit kvm-pv-ipi kvm-poll-control \
         kvm-pv-sched-yield kvm-asyncpf-int kvm-msi-ext-dest-id - - - - - - - - \
         kvmclock-stable-bit"),
];

/// Features that make no sense without the first one.
#[rustfmt::skip]
pub(super) const NEEDED_BY: [(&str, &str); 10] = [
    ("xsave",
        "xsaveopt xsavec xgetbv1 xsaves xfd avx pku mpx amx-tile"),
    ("xsavec",
        "xsaves"),
    ("avx",
        "avx2 fma f16c xop fma4 vaes vpclmulqdq avx-vnni avx-ifma avx-vnni-int8 \
         avx-vnni-int16 avx-ne-convert sha512 sm3 sm4"),
    ("avx2",
        "avx512f"),
    ("avx512f",
        "avx512dq avx512ifma avx512pf avx512er avx512cd avx512bw avx512vl avx512-4vnniw \
         avx512-4fmaps avx512-vpopcntdq avx512vnni avx512bitalg avx512-bf16 avx10"),
    ("avx512bw",
        "avx512vbmi avx512vbmi2 avx512-fp16"),
    ("avx512vl",
        "avx512-vp2intersect"),
    ("amx-tile",
        "amx-bf16 amx-int8 amx-fp16 amx-complex xfd"),
    ("svm",
        "npt lbrv svm-lock nrip-save tsc-scale vmcb-clean flushbyasid decodeassists \
         pause-filter pfthreshold avic v-vmsave-vmload vgif vnmi"),
    ("pcid",
        "invpcid"),
];

/// What a bit without a name has instead.
const NO_NAME: &str = "-";

/// Every name.
pub(super) fn all() -> impl Iterator<Item = &'static str> {
    WORDS
        .iter()
        .flat_map(|(_, names)| names.split_whitespace())
        .filter(|name| *name != NO_NAME)
}

/// Every bit that a name stands for.
pub(super) fn bits(name: &str) -> impl Iterator<Item = (Word, u32)> {
    WORDS.iter().flat_map(move |(word, names)| {
        let found = (0..)
            .zip(names.split_whitespace())
            .filter(move |(_, n)| *n == name);
        found.map(|(bit, _)| (*word, bit))
    })
}

/// What makes no sense without this feature.
pub(super) fn dependents(name: &str) -> impl Iterator<Item = &'static str> {
    let needed = NEEDED_BY.iter().filter(move |(needed, _)| *needed == name);
    needed.flat_map(|(_, dependents)| dependents.split_whitespace())
}
