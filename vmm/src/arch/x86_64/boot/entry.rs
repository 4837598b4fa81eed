//! The CPU state at a kernel's entry: segments, control registers, and the few general registers
//! that a boot protocol sets.

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};

use crate::arch::x86_64::layout;

/// Selectors 0x08 to 0x20 of the GDT at [`layout::BOOT_GDT`]; Linux's protocol demands 0x10 and 0x18.
const CODE64: Descriptor = Descriptor {
    selector: 0x10,
    flags: 0xa09b,
    limit: 0xf_ffff,
};
const CODE32: Descriptor = Descriptor {
    selector: 0x10,
    flags: 0xc09b,
    limit: 0xf_ffff,
};
const DATA: Descriptor = Descriptor {
    selector: 0x18,
    flags: 0xc093,
    limit: 0xf_ffff,
};
const TSS: Descriptor = Descriptor {
    selector: 0x20,
    flags: 0x008b,
    limit: 0x67,
};

/// Control register bits (Intel SDM volume 3, 2.5).
const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// Interrupts off; bit 1 always reads as one.
const RFLAGS: u64 = 1 << 1;

/// Entries of the GDT at [`layout::BOOT_GDT`].
pub(super) const GDT_ENTRIES: usize = 6;

/// In which mode a vCPU enters the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryMode {
    /// Long mode, paging on with identity page tables at [`layout::BOOT_PAGE_TABLES`].
    Long,
    /// 32-bit protected mode with flat segments, paging off.
    Protected,
}

/// How the first vCPU enters the kernel. The other vCPUs wait for INIT and SIPI and take nothing
/// from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryState {
    /// Mode, segments and control registers.
    pub mode: EntryMode,
    /// The first instruction.
    pub rip: u64,
    /// A stack where the protocol has none of its own.
    pub rsp: u64,
    /// PVH: address of `hvm_start_info`; otherwise 0.
    pub rbx: u64,
    /// Linux: address of the zero page; otherwise 0.
    pub rsi: u64,
}

impl EntryState {
    /// The general registers, for `KVM_SET_REGS`. Those without a field here are 0, as Linux's
    /// 32-bit entry demands of EBP and EDI.
    pub fn regs(&self) -> kvm_regs {
        kvm_regs {
            rip: self.rip,
            rsp: self.rsp,
            rbx: self.rbx,
            rsi: self.rsi,
            rflags: RFLAGS,
            ..kvm_regs::default()
        }
    }

    /// Changes the special registers of a vCPU fresh from reset (`KVM_GET_SREGS`) into those of
    /// the entry. The APIC base and CR8 stay as they are.
    pub fn apply(&self, sregs: &mut kvm_sregs) {
        let code = self.code();
        sregs.cs = code.segment();
        for data in [
            &mut sregs.ds,
            &mut sregs.es,
            &mut sregs.fs,
            &mut sregs.gs,
            &mut sregs.ss,
        ] {
            *data = DATA.segment();
        }
        sregs.tr = kvm_segment {
            base: layout::BOOT_TSS,
            ..TSS.segment()
        };
        sregs.ldt = kvm_segment {
            unusable: 1,
            ..kvm_segment::default()
        };
        sregs.gdt = kvm_dtable {
            base: layout::BOOT_GDT,
            limit: (GDT_ENTRIES * size_of::<u64>() - 1) as u16,
            ..kvm_dtable::default()
        };
        sregs.idt = kvm_dtable::default();
        sregs.cr2 = 0;
        match self.mode {
            EntryMode::Long => {
                sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
                sregs.cr3 = layout::BOOT_PAGE_TABLES;
                sregs.cr4 = CR4_PAE;
                sregs.efer = EFER_LME | EFER_LMA;
            }
            EntryMode::Protected => {
                sregs.cr0 = CR0_PE | CR0_ET;
                sregs.cr3 = 0;
                sregs.cr4 = 0;
                sregs.efer = 0;
            }
        }
    }

    /// The GDT that belongs at [`layout::BOOT_GDT`], entry by entry.
    pub(super) fn gdt(&self) -> [u64; GDT_ENTRIES] {
        let [tss_low, tss_high] = [TSS.raw(layout::BOOT_TSS), layout::BOOT_TSS >> 32];
        [0, 0, self.code().raw(0), DATA.raw(0), tss_low, tss_high]
    }

    fn code(&self) -> Descriptor {
        match self.mode {
            EntryMode::Long => CODE64,
            EntryMode::Protected => CODE32,
        }
    }
}

/// A segment: its selector, its limit (in pages where the G flag is set), and bits 40 to 55 of
/// its descriptor with the limit's four bits left out (Intel SDM volume 3, 3.4.5).
#[derive(Clone, Copy)]
struct Descriptor {
    selector: u16,
    flags: u16,
    limit: u32,
}

impl Descriptor {
    fn raw(self, base: u64) -> u64 {
        let (base, limit) = (base & 0xffff_ffff, u64::from(self.limit));
        (limit & 0xffff)
            | ((base & 0xff_ffff) << 16)
            | (u64::from(self.flags) << 40)
            | ((limit >> 16 & 0xf) << 48)
            | ((base >> 24) << 56)
    }

    fn segment(self) -> kvm_segment {
        let bit = |n: u16| (self.flags >> n & 1) as u8;
        let granular = bit(15) == 1;
        kvm_segment {
            base: 0,
            limit: if granular {
                self.limit << 12 | 0xfff
            } else {
                self.limit
            },
            selector: self.selector,
            type_: (self.flags & 0xf) as u8,
            s: bit(4),
            dpl: (self.flags >> 5 & 3) as u8,
            present: bit(7),
            avl: bit(12),
            l: bit(13),
            db: bit(14),
            g: bit(15),
            unusable: 0,
            padding: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(mode: EntryMode) -> EntryState {
        EntryState {
            mode,
            rip: 0x100_0200,
            rsp: 0,
            rbx: 0,
            rsi: layout::ZERO_PAGE,
        }
    }

    #[test]
    fn descriptors_match_the_manuals_flat_segments() {
        assert_eq!(CODE64.raw(0), 0x00af_9b00_0000_ffff);
        assert_eq!(CODE32.raw(0), 0x00cf_9b00_0000_ffff);
        assert_eq!(DATA.raw(0), 0x00cf_9300_0000_ffff);
        assert_eq!(TSS.raw(0x1234_5678), 0x1200_8b34_5678_0067);
    }

    #[test]
    fn long_mode_entry_has_paging_and_a_64_bit_code_segment() {
        let mut sregs = kvm_sregs::default();
        entry(EntryMode::Long).apply(&mut sregs);
        assert_eq!((sregs.cs.l, sregs.cs.db, sregs.cs.selector), (1, 0, 0x10));
        assert_eq!((sregs.ds.selector, sregs.ds.limit), (0x18, 0xffff_ffff));
        assert_eq!(sregs.efer, 0x500);
        assert_eq!(sregs.cr0, 0x8000_0011);
        assert_eq!(sregs.gdt.limit, 47);
    }

    #[test]
    fn protected_mode_entry_is_flat_without_paging() {
        let mut sregs = kvm_sregs {
            cr4: 0x20,
            efer: 0xd01,
            ..kvm_sregs::default()
        };
        entry(EntryMode::Protected).apply(&mut sregs);
        assert_eq!((sregs.cs.l, sregs.cs.db, sregs.cs.g), (0, 1, 1));
        assert_eq!((sregs.cr0, sregs.cr4, sregs.efer), (0x11, 0, 0));
        assert_eq!((sregs.tr.type_, sregs.tr.s, sregs.tr.limit), (0xb, 0, 0x67));
    }

    #[test]
    fn the_gdt_agrees_with_the_segments() {
        let gdt = entry(EntryMode::Long).gdt();
        assert_eq!(gdt[usize::from(CODE64.selector >> 3)], CODE64.raw(0));
        assert_eq!(gdt[usize::from(DATA.selector >> 3)], DATA.raw(0));
        assert_eq!(
            gdt[usize::from(TSS.selector >> 3)],
            TSS.raw(layout::BOOT_TSS)
        );
    }
}
