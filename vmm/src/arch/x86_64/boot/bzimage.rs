//! bzImage by the Linux boot protocol (Documentation/arch/x86/boot.rst): what distributions ship as
//! `vmlinuz`.
//!
//! A real-mode part that only its header is read of, and a protected-mode part that unpacks itself.
//! That part is entered in long mode at 0x200 where the header says it may be ("64-bit boot
//! protocol"), else in protected mode at its first byte ("32-bit boot protocol"): so enter 32-bit
//! kernels, and 64-bit ones from before Linux 3.8.
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

use std::io::SeekFrom;

use linux_loader::loader::bootparam::{XLF_KERNEL_64, setup_header};
use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryMmap};

use super::entry::{EntryMode, EntryState};
use super::error::BootError;
use super::initrd::{load_initrd, write_cmdline};
use super::memory_map::low_ram_end;
use super::paging::write_tables;
use super::zero_page::{SETUP_HEADER, ZeroPage};
use super::{Boot, Image};
use crate::arch::x86_64::layout;

/// The four letters `HdrS`, little endian.
const HEADER_MAGIC: u32 = 0x5372_6448;

// Protocol versions, by what came with them.

/// A size of the protected-mode part in 32 bits (Linux 2.6.14): the oldest that is booted.
const VERSION_SYSSIZE: u16 = 0x0204;
/// `cmdline_size`, which was 255 before.
const VERSION_CMDLINE_SIZE: u16 = 0x0206;
/// `pref_address` and `init_size` (Linux 2.6.31).
const VERSION_INIT_SIZE: u16 = 0x020a;
/// `xloadflags` (Linux 3.8).
const VERSION_XLOADFLAGS: u16 = 0x020c;

const LOADED_HIGH: u8 = 1 << 0;
const SECTOR: u64 = 512;
/// From the start of the protected-mode part.
const ENTRY_64: u64 = 0x200;
/// Where the header's jump instruction ends; its operand says how long the header is.
const JUMP_END: usize = 0x202;
/// The least length of a file that holds a header.
const MIN_SIZE: u64 = 0x202 + 0x6a;
/// How many times its packed size a kernel takes to unpack, where it does not say.
const UNPACKED: u64 = 8;

/// Loads a bzImage of `size` bytes. The image stands anywhere; it is read from its start.
pub(super) fn load<I: Image>(
    ram: &GuestMemoryMmap,
    boot: Boot<'_, I>,
    size: u64,
) -> Result<EntryState, BootError> {
    let head = read_head(boot.kernel, size)?;
    let header = check(&head, size)?;
    let setup_sectors = if header.setup_sects == 0 {
        4
    } else {
        header.setup_sects
    };
    let setup_sectors = u64::from(setup_sectors).saturating_add(1);
    let code_offset = setup_sectors.saturating_mul(SECTOR);
    let code_size = u64::from(header.syssize).saturating_mul(16);
    let expected = code_offset.saturating_add(code_size);
    // The last of the 16-byte units that syssize counts need not be full.
    if code_size == 0 || size.saturating_add(15) < expected {
        return Err(BootError::Truncated {
            expected,
            actual: size,
        });
    }
    let code_size = code_size.min(size.saturating_sub(code_offset));

    let (start, needed) = place(&header, code_size);
    if start < layout::HIGH_MEMORY {
        return Err(BootError::LoadAddress(start));
    }
    let ram_end = low_ram_end(ram);
    let end = start
        .checked_add(needed.max(code_size))
        .ok_or(BootError::Damaged(
            "its load address plus its size is no address",
        ))?;
    if end > ram_end {
        return Err(BootError::KernelTooLarge {
            start,
            end,
            ram_end,
        });
    }

    boot.kernel
        .seek(SeekFrom::Start(code_offset))
        .map_err(BootError::ReadKernel)?;
    ram.read_exact_volatile_from(GuestAddress(start), boot.kernel, code_size as usize)
        .map_err(BootError::write("the kernel"))?;
    write_cmdline(ram, boot.cmdline, cmdline_max(&header))?;
    let ceiling = ram_end.min(u64::from(header.initrd_addr_max).saturating_add(1));
    let initrd = load_initrd(ram, boot.initrd, end, ceiling)?;
    ZeroPage::from_setup_header(header_bytes(&head)).write(ram, start, initrd, boot.rsdp)?;

    let (mode, rip) = if has_64_bit_entry(&header) {
        (EntryMode::Long, start.saturating_add(ENTRY_64))
    } else {
        (EntryMode::Protected, start)
    };
    let entry = EntryState {
        mode,
        rip,
        rsp: layout::BOOT_STACK_TOP,
        rbx: 0,
        rsi: layout::ZERO_PAGE,
    };
    write_tables(ram, &entry)?;
    Ok(entry)
}

fn has_64_bit_entry(header: &setup_header) -> bool {
    header.version >= VERSION_XLOADFLAGS && header.xloadflags & XLF_KERNEL_64 != 0
}

/// Where the protected-mode part of `code_size` bytes goes, and how much memory it needs from there
/// until it runs.
fn place(header: &setup_header, code_size: u64) -> (u64, u64) {
    if header.version >= VERSION_INIT_SIZE {
        (header.pref_address, u64::from(header.init_size))
    } else {
        (layout::HIGH_MEMORY, code_size.saturating_mul(UNPACKED))
    }
}

/// The longest command line that the kernel takes, without the terminating zero.
fn cmdline_max(header: &setup_header) -> usize {
    if header.version >= VERSION_CMDLINE_SIZE {
        header.cmdline_size as usize
    } else {
        255
    }
}

/// The first sectors of the image, or less if it is shorter.
fn read_head<I: Image>(kernel: &mut I, size: u64) -> Result<Vec<u8>, BootError> {
    let mut head = vec![0; size.min(2 * SECTOR) as usize];
    kernel
        .rewind()
        .and_then(|()| kernel.read_exact(&mut head))
        .map_err(BootError::ReadKernel)?;
    Ok(head)
}

/// The setup header, once it is known to be one of a bzImage.
fn check(head: &[u8], size: u64) -> Result<setup_header, BootError> {
    let mut header = setup_header::default();
    let bytes = header.as_mut_slice();
    let Some(found) = head.get(SETUP_HEADER..SETUP_HEADER.saturating_add(bytes.len())) else {
        return Err(not_bzimage(head, size));
    };
    bytes.copy_from_slice(found);
    if header.boot_flag != 0xaa55 || header.header != HEADER_MAGIC {
        return Err(not_bzimage(head, size));
    }
    if size < MIN_SIZE {
        return Err(BootError::Truncated {
            expected: MIN_SIZE,
            actual: size,
        });
    }
    if header.version < VERSION_SYSSIZE {
        return Err(BootError::TooOld {
            version: header.version,
        });
    }
    if header.loadflags & LOADED_HIGH == 0 {
        return Err(BootError::NotAKernel {
            found: "is a zImage, which loads below 1 MiB".into(),
        });
    }
    Ok(header)
}

/// The part of the image that belongs into the zero page, as long as the header's own jump says.
fn header_bytes(head: &[u8]) -> &[u8] {
    let length = head.get(JUMP_END - 1).copied().unwrap_or(0);
    let end = (JUMP_END + usize::from(length)).min(head.len());
    head.get(SETUP_HEADER..end).unwrap_or_default()
}

/// What a file that is no bzImage looks like, for the message.
fn not_bzimage(head: &[u8], size: u64) -> BootError {
    let at = |offset: usize, magic: &[u8]| {
        head.get(offset..)
            .is_some_and(|rest| rest.starts_with(magic))
    };
    let found = if size == 0 {
        "is empty".into()
    } else if at(0x38, b"ARM\x64") {
        return BootError::OtherArchitecture {
            found: "arm64".into(),
        };
    } else if at(0x38, b"RSC\x05") {
        return BootError::OtherArchitecture {
            found: "RISC-V".into(),
        };
    } else if at(4, b"zimg") {
        return BootError::OtherArchitecture {
            found: "EFI zboot, which x86 has none of".into(),
        };
    } else if at(0x24, &0x016f_2818u32.to_le_bytes()) {
        return BootError::OtherArchitecture {
            found: "32-bit Arm".into(),
        };
    } else if at(0, &[0x1f, 0x8b]) {
        "is gzip data (an initrd, or a kernel to unpack first)".into()
    } else if at(0, b"070701") {
        "is a cpio archive (an initrd?)".into()
    } else if at(0, &[0x28, 0xb5, 0x2f, 0xfd]) || at(0, b"\xfd7zXZ") {
        "is compressed data (an initrd?)".into()
    } else if at(0, b"MZ") {
        "is an EFI or DOS program without a Linux header".into()
    } else if at(0x1fe, &[0x55, 0xaa]) {
        "begins with a boot sector, as a disk image does".into()
    } else if at(0, b"#!") {
        "is a script".into()
    } else {
        "has neither the header of a bzImage nor that of an ELF image".into()
    };
    BootError::NotAKernel { found }
}

#[cfg(test)]
#[path = "bzimage_test.rs"]
mod tests;
