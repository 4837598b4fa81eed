//! What counters of a vCPU mean: ours, and those of KVM that say why it left the guest.

/// A counter's name, and a line for people.
type Meaning = (&'static str, &'static str);

/// What came to the VMM, by [`VcpuInfo::exits`](super::VcpuInfo::exits).
pub const OURS: &[Meaning] = &[
    (
        "port-read",
        "a device's port was read: chipset, serial port, PCI",
    ),
    ("port-write", "a device's port was written"),
    (
        "memory-read",
        "a device's register in memory was read: virtio, PCI",
    ),
    (
        "memory-write",
        "a device's register in memory was written; a notification of a queue is none of these",
    ),
    (
        "msr",
        "a model-specific register that nobody has was accessed",
    ),
    (
        "interrupted",
        "the VMM called the vCPU out of the guest, or another vCPU woke it",
    ),
    ("other", "KVM had settled it, and gave the VMM a look"),
];

/// What KVM counts in all (KVM's API, 4.133; `kvm_vcpu_stats_desc` in Linux's arch/x86/kvm/x86.c),
/// by [`VcpuInfo::counters`](super::VcpuInfo::counters). Others of KVM's are no events.
pub const KVMS: &[Meaning] = &[
    ("exits", "the guest was left, for whatever reason"),
    ("io_exits", "a port was accessed"),
    (
        "mmio_exits",
        "memory that is not RAM was accessed, and the VMM was asked",
    ),
    ("halt_exits", "the guest had nothing to do: HLT"),
    ("irq_exits", "an interrupt came for the host"),
    (
        "irq_window_exits",
        "the guest could take an interrupt at last",
    ),
    ("nmi_window_exits", "the guest could take an NMI at last"),
    ("request_irq_exits", "the VMM wanted to give an interrupt"),
    ("signal_exits", "a signal came for the vCPU's thread"),
    (
        "notify_window_exits",
        "the guest kept interrupts out for too long",
    ),
    ("hypercalls", "the guest asked KVM for something"),
    (
        "insn_emulation",
        "KVM carried out an instruction for the guest",
    ),
    (
        "insn_emulation_fail",
        "KVM could not carry out an instruction",
    ),
    ("pf_taken", "a page of the guest was not mapped, or not so"),
    ("pf_fixed", "KVM mapped a page of the guest"),
    (
        "pf_emulate",
        "a fault on a page led to emulation: a device's registers",
    ),
    ("pf_fast", "a fault on a page was settled without a lock"),
    (
        "pf_spurious",
        "a fault on a page that was settled meanwhile",
    ),
    (
        "pf_mmio_spte_created",
        "an address without RAM was remembered",
    ),
    ("pf_guest", "a fault on a page was handed to the guest"),
    ("invlpg", "the guest dropped one translation"),
    ("tlb_flush", "translations of the guest were dropped"),
    (
        "l1d_flush",
        "the data cache was flushed before the guest was entered",
    ),
    ("nested_run", "a guest of the guest was entered"),
    ("irq_injections", "an interrupt was given to the guest"),
    ("nmi_injections", "an NMI was given to the guest"),
    ("req_event", "KVM looked for something to give to the guest"),
    ("host_state_reload", "the host's registers were restored"),
    (
        "fpu_reload",
        "the guest's floating-point registers were restored",
    ),
    (
        "halt_attempted_poll",
        "KVM waited for an event by looking, before it slept",
    ),
    ("halt_successful_poll", "the event came while KVM looked"),
    ("halt_poll_invalid", "KVM looked, and what came was none"),
    ("halt_wakeup", "the vCPU was woken from its sleep"),
    (
        "directed_yield_attempted",
        "the vCPU spun, and another was to run instead",
    ),
    ("directed_yield_successful", "another vCPU ran instead"),
    (
        "preemption_reported",
        "the guest was told that its vCPU was preempted",
    ),
    (
        "preemption_other",
        "the vCPU was preempted, and the guest not told",
    ),
];

#[cfg(test)]
mod tests {
    use super::super::exits::Exits;
    use super::*;

    #[test]
    fn every_counter_of_ours_has_a_meaning_and_no_name_has_two() {
        let mut counted: Vec<String> = Exits::default().read().into_keys().collect();
        let mut known: Vec<_> = OURS.iter().map(|(name, _)| *name).collect();
        counted.sort();
        known.sort_unstable();
        assert_eq!(counted, known);
        let mut names: Vec<_> = KVMS.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), KVMS.len());
    }
}
