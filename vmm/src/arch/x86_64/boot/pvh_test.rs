use std::io::Cursor;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::super::{Boot, BootError, EntryMode, EntryState, load};
use crate::arch::x86_64::layout;

const MIB: usize = 1 << 20;
const CODE: u64 = 0x20_0000;

fn ram() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 8 * MIB)]).unwrap()
}

/// An ELF image with one segment of 16 bytes (32 in memory) at [`CODE`], and a PVH note if asked.
fn elf(pvh: Option<u32>) -> Vec<u8> {
    let mut image = vec![0; 64];
    let mut put = |at: usize, value: &[u8]| image[at..at + value.len()].copy_from_slice(value);
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &2u16.to_le_bytes());
    put(18, &62u16.to_le_bytes());
    put(24, &(CODE + 4).to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(54, &56u16.to_le_bytes());
    put(56, &2u16.to_le_bytes());
    let header = |kind: u32, offset: u64, address: u64, file: u64, memory: u64| {
        let mut header = Vec::new();
        header.extend(kind.to_le_bytes());
        header.extend(7u32.to_le_bytes());
        for field in [offset, address, address, file, memory, 4] {
            header.extend(field.to_le_bytes());
        }
        header
    };
    let note_size = if pvh.is_some() { 20 } else { 0 };
    image.extend(header(1, 176, CODE, 16, 32));
    image.extend(header(4, 192, 0, note_size, note_size));
    image.extend([0x90; 16]);
    if let Some(entry) = pvh {
        for word in [4, 4, 18, u32::from_le_bytes(*b"Xen\0"), entry] {
            image.extend(word.to_le_bytes());
        }
    }
    image
}

fn boot(
    ram: &GuestMemoryMmap,
    kernel: &[u8],
    initrd: Option<&[u8]>,
    cmdline: &str,
) -> Result<EntryState, BootError> {
    let mut initrd = initrd.map(Cursor::new);
    let kernel = &mut Cursor::new(kernel);
    load(
        ram,
        Boot {
            kernel,
            initrd: initrd.as_mut(),
            cmdline,
            rsdp: 0xe_0000,
        },
    )
}

fn read64(ram: &GuestMemoryMmap, at: u64) -> u64 {
    ram.read_obj(GuestAddress(at)).unwrap()
}

#[test]
fn pvh_enters_in_protected_mode_with_a_start_info() {
    let ram = ram();
    let entry = boot(&ram, &elf(Some(CODE as u32 + 8)), Some(&[5; 100]), "quiet").unwrap();
    assert_eq!(entry.mode, EntryMode::Protected);
    assert_eq!((entry.rip, entry.rbx), (CODE + 8, layout::PVH_START_INFO));
    let info = layout::PVH_START_INFO;
    assert_eq!(read64(&ram, info), 1 << 32 | 0x336e_c578);
    assert_eq!(read64(&ram, info + 8), 1 << 32);
    assert_eq!(read64(&ram, info + 16), layout::PVH_MODULES);
    assert_eq!(read64(&ram, info + 24), layout::CMDLINE);
    assert_eq!(read64(&ram, info + 32), 0xe_0000);
    assert_eq!(read64(&ram, info + 40), layout::PVH_MEMORY_MAP);
    assert_eq!(read64(&ram, info + 48), 6);
    assert_eq!(read64(&ram, layout::PVH_MODULES), 8 * MIB as u64 - 4096);
    assert_eq!(read64(&ram, layout::PVH_MODULES + 8), 100);
    assert_eq!(read64(&ram, layout::PVH_MEMORY_MAP + 8), 0x9_fc00);
}

#[test]
fn pvh_without_initrd_and_command_line_points_at_neither() {
    let ram = ram();
    boot(&ram, &elf(Some(CODE as u32)), None, "").unwrap();
    let info = layout::PVH_START_INFO;
    assert_eq!(read64(&ram, info + 8), 0);
    assert_eq!(read64(&ram, info + 16), 0);
    assert_eq!(read64(&ram, info + 24), 0);
}

#[test]
fn segments_that_lie_on_each_other_do_not_fill_memory_for_ever() {
    let mut image = elf(Some(CODE as u32));
    image.copy_within(64..120, 120);
    for header in [64, 120] {
        let size = 5 * MIB as u64;
        image[header + 40..header + 48].copy_from_slice(&size.to_le_bytes());
    }
    let error = boot(&ram(), &image, None, "").unwrap_err();
    assert!(error.to_string().contains("on each other"), "{error}");
}

/// As rust-hypervisor-firmware is linked: one segment at 1 MiB that begins with the file's headers and
/// ends in memory that the file lacks, with the note inside it, whose value has 64 bits.
#[test]
fn a_firmware_is_loaded_with_its_headers_and_told_where_ram_and_acpi_are() {
    const START: u64 = 0x10_0000;
    let mut image = elf(Some(0));
    let mut put = |at: usize, value: u64| image[at..at + 8].copy_from_slice(&value.to_le_bytes());
    for (at, value) in [
        (72, 0),
        (80, START),
        (88, START),
        (96, 216),
        (104, 0x4_8000),
    ] {
        put(at, value);
    }
    for (at, value) in [
        (128, 192),
        (136, START + 192),
        (144, START + 192),
        (152, 24),
    ] {
        put(at, value);
    }
    image.resize(216, 0);
    image[196..200].copy_from_slice(&8u32.to_le_bytes());
    image[208..216].copy_from_slice(&(START + 0x2_0000).to_le_bytes());

    let ram = ram();
    let entry = boot(&ram, &image, None, "").unwrap();
    assert_eq!(
        (entry.mode, entry.rip),
        (EntryMode::Protected, START + 0x2_0000)
    );
    assert_eq!(read64(&ram, START) as u32, u32::from_le_bytes(*b"\x7fELF"));
    let info = entry.rbx;
    assert_eq!(
        (read64(&ram, info + 24), read64(&ram, info + 32)),
        (0, 0xe_0000)
    );
    // What it keeps reading lies in nothing that it may use.
    let map = read64(&ram, info + 40);
    let entries = (map..).step_by(24).take(read64(&ram, info + 48) as usize);
    let mut usable = 0;
    for entry in entries {
        let (start, size) = (read64(&ram, entry), read64(&ram, entry + 8));
        if read64(&ram, entry + 16) == 1 {
            usable += size;
            for kept in [info, map, entry, 0xe_0000] {
                assert!(
                    !(start..start + size).contains(&kept),
                    "{kept:#x} is in RAM"
                );
            }
        }
    }
    assert_eq!(usable, 0x9_fc00 + 7 * MIB as u64);
}

#[test]
fn memory_beyond_the_file_is_zeroed_also_at_a_reboot() {
    let ram = ram();
    ram.write_slice(&[0xaa; 64], GuestAddress(CODE)).unwrap();
    boot(&ram, &elf(Some(CODE as u32)), None, "").unwrap();
    assert_eq!(read64(&ram, CODE + 8), 0x9090_9090_9090_9090);
    assert_eq!(read64(&ram, CODE + 16), 0);
    assert_eq!(read64(&ram, CODE + 24), 0);
    assert_eq!(read64(&ram, CODE + 32), 0xaaaa_aaaa_aaaa_aaaa);
}

#[test]
fn elf_without_the_note_enters_in_long_mode_with_a_zero_page() {
    let ram = ram();
    let entry = boot(&ram, &elf(None), None, "quiet").unwrap();
    assert_eq!(entry.mode, EntryMode::Long);
    assert_eq!((entry.rip, entry.rsi), (CODE + 4, layout::ZERO_PAGE));
    let header: u32 = ram
        .read_obj(GuestAddress(layout::ZERO_PAGE + 0x202))
        .unwrap();
    assert_eq!(header, u32::from_le_bytes(*b"HdrS"));
}

#[test]
fn images_that_cannot_boot_here_are_told_apart() {
    let error = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut image = elf(None);
        change(&mut image);
        boot(&ram(), &image, None, "").unwrap_err().to_string()
    };
    assert!(error(&|image| image[18..20].copy_from_slice(&[183, 0])).contains("arm64"));
    assert!(error(&|image| image[5] = 2).contains("big-endian"));
    assert!(error(&|image| (image[4], image[18]) = (1, 3)).contains("32-bit"));
    assert!(error(&|image| image[24..32].fill(0)).contains("PVH note"));
    assert!(error(&|image| image.truncate(180)).contains("truncated"));
    assert!(error(&|image| image.truncate(20)).contains("truncated"));
    assert!(error(&|image| image[16] = 1).contains("object file"));
    assert!(error(&|image| image[56] = 0).contains("nothing to load"));
    assert!(error(&|image| image[91] = 0x7f).contains("--memory"));
    assert!(error(&|image| image[120] = 3).contains("is a program"));
    assert!(error(&|image| image[88..96].fill(0)).contains("first MiB"));
}

proptest! {
    #[test]
    fn any_bytes_after_the_magic_end_in_an_entry_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let mut image = b"\x7fELF\x02\x01".to_vec();
        image.extend(bytes);
        let _ = boot(&ram(), &image, None, "");
    }

    #[test]
    fn any_damage_ends_in_an_entry_or_an_error(
        damage in prop::collection::vec((0usize..212, any::<u8>()), 0..6),
        length in 0usize..240,
    ) {
        let mut image = elf(Some(CODE as u32));
        for (at, value) in damage {
            image[at] = value;
        }
        image.truncate(length);
        let _ = boot(&ram(), &image, Some(b"initrd"), "quiet");
    }
}
