//! ELF kernels and firmware: by Xen's PVH entry (`public/arch-x86/hvm/start_info.h`, and Xen's
//! `docs/misc/pvh.pandoc` for the CPU state), or, where an image has no PVH note, by its own entry
//! in long mode with a Linux zero page in RSI.
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

use std::io::SeekFrom;

use linux_loader::loader::elf::start_info::{
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::elf::{self, ElfKernel, Segment};
use super::entry::{EntryMode, EntryState};
use super::error::BootError;
use super::initrd::{Initrd, load_initrd, write_cmdline};
use super::memory_map::{low_ram_end, memory_map};
use super::paging::write_tables;
use super::zero_page::ZeroPage;
use super::{Boot, Image};
use crate::arch::x86_64::layout;

/// "xEn3" with the top bit of the E set.
const START_MAGIC: u32 = 0x336e_c578;
/// The first version with a memory map.
const START_VERSION: u32 = 1;

/// Loads an ELF image of `size` bytes.
pub(super) fn load<I: Image>(
    ram: &GuestMemoryMmap,
    boot: Boot<'_, I>,
    size: u64,
) -> Result<EntryState, BootError> {
    let kernel = elf::parse(boot.kernel, size)?;
    let ram_end = low_ram_end(ram);
    let (mut end, mut filled) = (0, 0u64);
    for segment in &kernel.segments {
        end = end.max(load_segment(ram, boot.kernel, segment, ram_end)?);
        // A small file can ask for the same memory to be filled thousands of times.
        filled = filled.saturating_add(segment.memory_size);
        if filled > ram_end {
            return Err(BootError::Damaged("its segments lie on each other"));
        }
    }
    write_cmdline(ram, boot.cmdline, layout::CMDLINE_MAX)?;
    let floor = end.checked_next_multiple_of(0x1000).unwrap_or(end);
    let initrd = load_initrd(ram, boot.initrd, floor, ram_end)?;
    let entry = enter(&kernel)?;
    match entry.mode {
        EntryMode::Protected => {
            write_start_info(ram, boot.cmdline.is_empty(), initrd, boot.rsdp)?;
        }
        EntryMode::Long => {
            let code = kernel.segments.iter().map(|s| s.address).min().unwrap_or(0);
            ZeroPage::for_elf().write(ram, code, initrd, boot.rsdp)?;
        }
    }
    write_tables(ram, &entry)?;
    Ok(entry)
}

/// PVH where the image has the note, else its own entry.
fn enter(kernel: &ElfKernel) -> Result<EntryState, BootError> {
    let inside = |entry: u64| {
        kernel.segments.iter().any(|segment| {
            entry
                .checked_sub(segment.address)
                .is_some_and(|at| at < segment.memory_size)
        })
    };
    let state = |mode, rip| EntryState {
        mode,
        rip,
        rsp: layout::BOOT_STACK_TOP,
        rbx: 0,
        rsi: 0,
    };
    match kernel.pvh_entry.map(u64::from) {
        Some(entry) if inside(entry) => Ok(EntryState {
            rbx: layout::PVH_START_INFO,
            ..state(EntryMode::Protected, entry)
        }),
        Some(_) => Err(BootError::Damaged(
            "its PVH entry lies in none of its segments",
        )),
        None if inside(kernel.entry) => Ok(EntryState {
            rsi: layout::ZERO_PAGE,
            ..state(EntryMode::Long, kernel.entry)
        }),
        None => Err(BootError::NoEntry {
            entry: kernel.entry,
        }),
    }
}

/// What memory beyond a segment's file bytes is filled from.
static ZEROES: [u8; 0x1_0000] = [0; 0x1_0000];

/// Loads one segment and zeroes what the file has no bytes for; returns its end in memory.
fn load_segment<I: Image>(
    ram: &GuestMemoryMmap,
    image: &mut I,
    segment: &Segment,
    ram_end: u64,
) -> Result<u64, BootError> {
    let start = segment.address;
    if start < layout::HIGH_MEMORY {
        return Err(BootError::LoadAddress(start));
    }
    let end = start
        .checked_add(segment.memory_size)
        .ok_or(BootError::Damaged("a segment's end is no address"))?;
    if end > ram_end {
        return Err(BootError::KernelTooLarge {
            start,
            end,
            ram_end,
        });
    }
    image
        .seek(SeekFrom::Start(segment.offset))
        .map_err(BootError::ReadKernel)?;
    ram.read_exact_volatile_from(GuestAddress(start), image, segment.file_size as usize)
        .map_err(BootError::write("the kernel"))?;

    let mut at = start.saturating_add(segment.file_size);
    while at < end {
        let length = end.saturating_sub(at).min(ZEROES.len() as u64);
        let zeroes = ZEROES.get(..length as usize).unwrap_or(&ZEROES);
        ram.write_slice(zeroes, GuestAddress(at))
            .map_err(BootError::write("the kernel"))?;
        at = at.saturating_add(length);
    }
    Ok(end)
}

/// `hvm_start_info` with its memory map, and a module list if there is an initrd.
fn write_start_info(
    ram: &GuestMemoryMmap,
    no_cmdline: bool,
    initrd: Option<Initrd>,
    rsdp: u64,
) -> Result<(), BootError> {
    let map = memory_map(ram);
    for (address, entry) in (layout::PVH_MEMORY_MAP..).step_by(24).zip(&map) {
        let entry = hvm_memmap_table_entry {
            addr: entry.start,
            size: entry.size,
            type_: entry.kind as u32,
            reserved: 0,
        };
        ram.write_obj(entry, GuestAddress(address))
            .map_err(BootError::write("the memory map"))?;
    }
    let mut info = hvm_start_info {
        magic: START_MAGIC,
        version: START_VERSION,
        rsdp_paddr: rsdp,
        cmdline_paddr: if no_cmdline { 0 } else { layout::CMDLINE },
        memmap_paddr: layout::PVH_MEMORY_MAP,
        memmap_entries: map.len() as u32,
        ..hvm_start_info::default()
    };
    if let Some(Initrd { address, size }) = initrd {
        let module = hvm_modlist_entry {
            paddr: address,
            size,
            ..hvm_modlist_entry::default()
        };
        ram.write_obj(module, GuestAddress(layout::PVH_MODULES))
            .map_err(BootError::write("the module list"))?;
        info.nr_modules = 1;
        info.modlist_paddr = layout::PVH_MODULES;
    }
    ram.write_obj(info, GuestAddress(layout::PVH_START_INFO))
        .map_err(BootError::write("the PVH start info"))
}

#[cfg(test)]
#[path = "pvh_test.rs"]
mod tests;
