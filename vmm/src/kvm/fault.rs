//! What is said of a vCPU that cannot go on.
#![allow(unsafe_code)] // one union field of kvm_run, chosen by its exit reason

use std::fmt;

use kvm_bindings::{KVM_EXIT_INTERNAL_ERROR, KVM_INTERNAL_ERROR_EMULATION, kvm_regs, kvm_sregs};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress};

use crate::memory::GuestRam;

/// The flag in the first data word of an emulation error: instruction bytes follow
/// (`KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES`).
const HAS_INSTRUCTION: u64 = 1;
/// The longest x86 instruction.
const INSTRUCTION_MAX: usize = 15;

/// Why a vCPU stopped for good, with what is needed to find the reason.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// Index of the vCPU.
    pub vcpu: u32,
    /// What happened, with its numbers.
    pub what: String,
    /// `None` where KVM would not tell.
    registers: Option<(kvm_regs, kvm_sregs)>,
    /// What lies at RIP; empty where nothing can be read.
    instruction: Vec<u8>,
}

impl Fault {
    /// Describes a vCPU that has just left `KVM_RUN`.
    pub(super) fn of(vcpu: u32, fd: &VcpuFd, ram: &GuestRam, what: String) -> Self {
        let registers = fd.get_regs().ok().zip(fd.get_sregs().ok());
        let instruction = registers.map_or_else(Vec::new, |(regs, sregs)| {
            bytes_at(fd, ram, sregs.cs.base.wrapping_add(regs.rip))
        });
        Self {
            vcpu,
            what,
            registers,
            instruction,
        }
    }

    /// Says only what happened, where the vCPU itself cannot be asked.
    pub(super) fn without_registers(vcpu: u32, what: String) -> Self {
        Self {
            vcpu,
            what,
            registers: None,
            instruction: Vec::new(),
        }
    }

    /// As [`of`](Self::of), for `KVM_EXIT_INTERNAL_ERROR`.
    pub(super) fn internal_error(vcpu: u32, fd: &mut VcpuFd, ram: &GuestRam) -> Self {
        let run = fd.get_kvm_run();
        debug_assert_eq!(run.exit_reason, KVM_EXIT_INTERNAL_ERROR);
        // SAFETY: the exit reason says that this is the field in use; it is plain integers.
        let internal = unsafe { run.__bindgen_anon_1.internal };
        let count = (internal.ndata as usize).min(internal.data.len());
        let data = internal.data.get(..count).unwrap_or_default().to_vec();
        let kind = match internal.suberror {
            KVM_INTERNAL_ERROR_EMULATION => "an instruction could not be emulated",
            2 => "two exceptions at once",
            3 => "an exception while an event was delivered",
            4 => "an exit that KVM does not know",
            _ => "unknown",
        };
        let words: Vec<_> = data.iter().map(|word| format!("{word:#x}")).collect();
        let what = format!(
            "KVM internal error, suberror {} ({kind}), data [{}]",
            internal.suberror,
            words.join(", ")
        );
        let mut fault = Self::of(vcpu, fd, ram, what);
        if internal.suberror == KVM_INTERNAL_ERROR_EMULATION
            && let Some(bytes) = emulated(&data)
        {
            fault.instruction = bytes;
        }
        fault
    }
}

/// The instruction that KVM put behind an emulation error: flags, then a length, then its bytes.
fn emulated(data: &[u64]) -> Option<Vec<u8>> {
    let (flags, rest) = data.split_first()?;
    let bytes: Vec<u8> = rest.iter().flat_map(|word| word.to_le_bytes()).collect();
    let (length, bytes) = bytes.split_first()?;
    (flags & HAS_INSTRUCTION != 0 && *length != 0).then(|| {
        bytes
            .iter()
            .copied()
            .take(usize::from(*length).min(INSTRUCTION_MAX))
            .collect()
    })
}

/// As many bytes of an instruction as can be read at a linear address.
fn bytes_at(fd: &VcpuFd, ram: &GuestRam, linear: u64) -> Vec<u8> {
    (0..INSTRUCTION_MAX as u64)
        .map_while(|offset| {
            let place = fd.translate_gva(linear.wrapping_add(offset)).ok()?;
            let address = GuestAddress(place.physical_address);
            (place.valid != 0).then(|| ram.mmap().read_obj::<u8>(address).ok())?
        })
        .collect()
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "vCPU {}: {}", self.vcpu, self.what)?;
        write!(f, "  instruction bytes at RIP:")?;
        if self.instruction.is_empty() {
            write!(f, " not readable")?;
        }
        for byte in &self.instruction {
            write!(f, " {byte:02x}")?;
        }
        let Some((r, s)) = &self.registers else {
            return write!(f, "\n  registers: not readable");
        };
        write!(
            f,
            "\n  RIP {:016x}  RFLAGS {:016x}\
             \n  RAX {:016x}  RBX {:016x}  RCX {:016x}  RDX {:016x}\
             \n  RSI {:016x}  RDI {:016x}  RBP {:016x}  RSP {:016x}\
             \n  R8  {:016x}  R9  {:016x}  R10 {:016x}  R11 {:016x}\
             \n  R12 {:016x}  R13 {:016x}  R14 {:016x}  R15 {:016x}\
             \n  CR0 {:016x}  CR2 {:016x}  CR3 {:016x}  CR4 {:016x}\
             \n  EFER {:x}  GDT {:x}/{:x}  IDT {:x}/{:x}",
            r.rip,
            r.rflags,
            r.rax,
            r.rbx,
            r.rcx,
            r.rdx,
            r.rsi,
            r.rdi,
            r.rbp,
            r.rsp,
            r.r8,
            r.r9,
            r.r10,
            r.r11,
            r.r12,
            r.r13,
            r.r14,
            r.r15,
            s.cr0,
            s.cr2,
            s.cr3,
            s.cr4,
            s.efer,
            s.gdt.base,
            s.gdt.limit,
            s.idt.base,
            s.idt.limit,
        )?;
        let segments = [
            ("CS", s.cs),
            ("SS", s.ss),
            ("DS", s.ds),
            ("ES", s.es),
            ("FS", s.fs),
            ("GS", s.gs),
            ("TR", s.tr),
        ];
        for (name, segment) in segments {
            write!(
                f,
                "\n  {name} {:04x} base {:x} limit {:x} type {:x} dpl {} l {} db {}",
                segment.selector,
                segment.base,
                segment.limit,
                segment.type_,
                segment.dpl,
                segment.l,
                segment.db
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instruction_bytes_come_out_of_an_emulation_error() {
        assert_eq!(
            emulated(&[1, u64::from_le_bytes([2, 0x0f, 0x0b, 9, 9, 9, 9, 9])]),
            Some(vec![0x0f, 0x0b])
        );
        assert_eq!(emulated(&[0, 2]), None, "the flag says there are none");
        assert_eq!(emulated(&[1]), None);
        assert_eq!(emulated(&[]), None);
    }

    #[test]
    fn a_report_names_rip_and_bytes() {
        let regs = kvm_regs {
            rip: 0xffff_8000_1234,
            ..Default::default()
        };
        let fault = Fault {
            vcpu: 1,
            what: "KVM internal error, suberror 1".into(),
            registers: Some((regs, kvm_sregs::default())),
            instruction: vec![0x0f, 0x0b],
        };
        let text = fault.to_string();
        for part in [
            "vCPU 1",
            "suberror 1",
            "RIP 0000ffff80001234",
            "0f 0b",
            "CR3",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }
}
