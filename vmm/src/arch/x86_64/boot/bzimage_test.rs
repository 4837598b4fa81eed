use std::io::Cursor;

use kvm_bindings::kvm_sregs;
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::super::{Boot, BootError, EntryMode, load};
use crate::arch::x86_64::layout;

const MIB: usize = 1 << 20;

fn ram(size: usize) -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size)]).unwrap()
}

/// A bzImage with one setup sector and `code` bytes of protected-mode part, each its index.
fn bzimage(code: usize) -> Vec<u8> {
    let mut image = vec![0; 1024];
    let mut put = |at: usize, value: &[u8]| image[at..at + value.len()].copy_from_slice(value);
    put(0x1f1, &[1]);
    put(0x1f4, &(code as u32 / 16).to_le_bytes());
    put(0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    put(0x202, b"HdrS");
    put(0x206, &0x020fu16.to_le_bytes());
    put(0x211, &[1]);
    put(0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(0x230, &0x20_0000u32.to_le_bytes());
    put(0x234, &[1]);
    put(0x236, &1u16.to_le_bytes());
    put(0x238, &2047u32.to_le_bytes());
    put(0x258, &0x100_0000u64.to_le_bytes());
    put(0x260, &0x10_0000u32.to_le_bytes());
    image.extend((0..code).map(|n| n as u8));
    image
}

fn set_version(kernel: &mut [u8], version: u16) {
    kernel[0x206..0x208].copy_from_slice(&version.to_le_bytes());
}

fn boot(
    ram: &GuestMemoryMmap,
    kernel: &[u8],
    initrd: Option<&[u8]>,
    cmdline: &str,
) -> Result<super::EntryState, BootError> {
    let mut initrd = initrd.map(Cursor::new);
    let boot = Boot {
        kernel: &mut Cursor::new(kernel),
        initrd: initrd.as_mut(),
        cmdline,
        rsdp: 0xe_0000,
    };
    load(ram, boot)
}

fn message(kernel: &[u8]) -> String {
    boot(&ram(32 * MIB), kernel, None, "")
        .unwrap_err()
        .to_string()
}

#[test]
fn kernel_initrd_and_zero_page_are_where_the_protocol_wants_them() {
    let ram = ram(32 * MIB);
    let entry = boot(&ram, &bzimage(4096), Some(&[9; 5000]), "console=ttyS0").unwrap();
    assert_eq!(entry.mode, EntryMode::Long);
    assert_eq!((entry.rip, entry.rsi), (0x100_0200, layout::ZERO_PAGE));

    let read32 = |at: u64| ram.read_obj::<u32>(GuestAddress(at)).unwrap();
    assert_eq!(read32(0x100_0000 + 0x200), 0x0302_0100);
    let zero_page = |at: u64| read32(layout::ZERO_PAGE + at);
    assert_eq!(zero_page(0x202), u32::from_le_bytes(*b"HdrS"));
    assert_eq!(zero_page(0x210) & 0xff, 0xff);
    assert_eq!(zero_page(0x218), (32 * MIB - 8192) as u32);
    assert_eq!(zero_page(0x21c), 5000);
    assert_eq!(zero_page(0x228), layout::CMDLINE as u32);
    assert_eq!(zero_page(0x070), 0xe_0000);
    assert_eq!(zero_page(0x1e8) & 0xff, 6);
    let cmdline = ram
        .read_obj::<[u8; 14]>(GuestAddress(layout::CMDLINE))
        .unwrap();
    assert_eq!(&cmdline, b"console=ttyS0\0");
}

#[test]
fn a_kernel_without_a_64_bit_entry_enters_in_protected_mode_at_its_first_byte() {
    let mut kernel = bzimage(4096);
    kernel[0x236] = 0;
    let ram = ram(32 * MIB);
    let entry = boot(&ram, &kernel, Some(&[9; 5000]), "console=ttyS0").unwrap();
    assert_eq!(entry.mode, EntryMode::Protected);
    assert_eq!((entry.rip, entry.rsi), (0x100_0000, layout::ZERO_PAGE));

    // Documentation/arch/x86/boot.rst, "32-bit boot protocol".
    let regs = entry.regs();
    assert_eq!((regs.rbp, regs.rdi, regs.rbx), (0, 0, 0));
    assert_eq!(regs.rflags & 1 << 9, 0, "interrupts are on");
    let mut sregs = kvm_sregs::default();
    entry.apply(&mut sregs);
    assert_eq!((sregs.cs.selector, sregs.cs.type_), (0x10, 0xb));
    for data in [sregs.ds, sregs.es, sregs.ss] {
        assert_eq!((data.selector, data.base, data.type_), (0x18, 0, 3));
        assert_eq!(data.limit, 0xffff_ffff);
    }
    let descriptor = |at: u64| ram.read_obj::<u64>(GuestAddress(layout::BOOT_GDT + at));
    assert_eq!(descriptor(0x10).unwrap(), 0x00cf_9b00_0000_ffff);
    assert_eq!(descriptor(0x18).unwrap(), 0x00cf_9300_0000_ffff);
    let zero_page = |at: u64| {
        ram.read_obj::<u32>(GuestAddress(layout::ZERO_PAGE + at))
            .unwrap()
    };
    assert_eq!(zero_page(0x214), 0x100_0000);
    assert_eq!(zero_page(0x21c), 5000);
}

#[test]
fn fields_that_an_old_protocol_lacks_are_not_read() {
    let mut kernel = bzimage(4096);
    set_version(&mut kernel, 0x0205);
    let ram = ram(32 * MIB);
    let entry = boot(&ram, &kernel, None, &"x".repeat(255)).unwrap();
    assert_eq!(entry.mode, EntryMode::Protected);
    assert_eq!(entry.rip, layout::HIGH_MEMORY);
    let error = boot(&ram, &kernel, None, &"x".repeat(256)).unwrap_err();
    assert!(error.to_string().contains("at most 255"), "{error}");
}

#[test]
fn initrd_stays_below_the_address_the_kernel_can_reach() {
    let mut kernel = bzimage(4096);
    kernel[0x22c..0x230].copy_from_slice(&0x17f_ffffu32.to_le_bytes());
    let ram = ram(64 * MIB);
    boot(&ram, &kernel, Some(&[1; 4096]), "").unwrap();
    let address: u32 = ram
        .read_obj(GuestAddress(layout::ZERO_PAGE + 0x218))
        .unwrap();
    assert_eq!(address, 0x17f_f000);
}

#[test]
fn nothing_of_the_file_but_its_header_reaches_the_zero_page() {
    let mut kernel = bzimage(4096);
    kernel[0x26c..0x400].fill(0xee);
    let ram = ram(32 * MIB);
    boot(&ram, &kernel, None, "").unwrap();
    let after: u64 = ram
        .read_obj(GuestAddress(layout::ZERO_PAGE + 0x26c))
        .unwrap();
    assert_eq!(after, 0);
}

#[test]
fn a_second_load_gives_the_same_machine() {
    let ram = ram(32 * MIB);
    let kernel = bzimage(4096);
    let first = boot(&ram, &kernel, None, "a").unwrap();
    ram.write_slice(&vec![0xaa; 2 * MIB], GuestAddress(0))
        .unwrap();
    assert_eq!(boot(&ram, &kernel, None, "a").unwrap(), first);
    let zero: u64 = ram
        .read_obj(GuestAddress(layout::ZERO_PAGE + 0x40))
        .unwrap();
    assert_eq!(zero, 0);
}

#[test]
fn too_large_for_memory_names_the_remedy() {
    let kernel = bzimage(4096);
    assert!(
        boot(&ram(16 * MIB), &kernel, None, "")
            .unwrap_err()
            .to_string()
            .contains("--memory")
    );
    let error = boot(&ram(32 * MIB), &kernel, Some(&vec![0; 16 * MIB]), "").unwrap_err();
    assert!(matches!(error, BootError::InitrdTooLarge { .. }), "{error}");
    let error = boot(&ram(32 * MIB), &kernel, None, &"x".repeat(2048)).unwrap_err();
    assert!(
        matches!(
            error,
            BootError::CmdlineTooLong {
                length: 2048,
                max: 2047
            }
        ),
        "{error}"
    );
}

#[test]
fn kernels_that_cannot_boot_here_are_told_apart() {
    let mut old = bzimage(4096);
    set_version(&mut old, 0x0203);
    assert!(message(&old).contains("version 2.03"));
    let mut low = bzimage(4096);
    low[0x211] = 0;
    assert!(message(&low).contains("zImage"));
    let mut arm = vec![0; 4096];
    arm[0x38..0x3c].copy_from_slice(b"ARM\x64");
    assert!(message(&arm).contains("arm64"));
    assert!(message(&bzimage(4096)[..4000]).contains("truncated"));
    assert!(message(b"").contains("is empty"));
    assert!(message(b"#!/bin/sh\n").contains("script"));
    assert!(message(b"070701").contains("cpio"));
    assert!(message(&[0x1f, 0x8b, 8, 0]).contains("gzip"));
    assert!(message(&[0; 10_000]).contains("Not a kernel"));
}

proptest! {
    #[test]
    fn any_bytes_end_in_an_entry_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let _ = boot(&ram(4 * MIB), &bytes, Some(&bytes), "quiet");
    }

    #[test]
    fn any_damage_to_the_header_ends_in_an_entry_or_an_error(
        damage in prop::collection::vec((0x1f0usize..0x270, any::<u8>()), 0..8),
        length in 0usize..6000,
    ) {
        let mut kernel = bzimage(4096);
        for (at, value) in damage {
            kernel[at] = value;
        }
        kernel.truncate(length);
        let _ = boot(&ram(32 * MIB), &kernel, Some(b"initrd"), "quiet");
    }
}
