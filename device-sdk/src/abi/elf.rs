//! What can be known of a library before any of its code runs: its ELF header and its symbols.
//!
//! Only as much is read as refuses the wrong file with a clear answer; the dynamic loader reads it
//! anew, and all of it. The file is somebody's: each offset in it is checked.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::error::Problem;

/// ELF's number of this machine (`e_machine`), and what it is called.
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// `e_type` of a shared library.
const ET_DYN: u16 = 3;
/// `sh_type` of the dynamic symbol table.
const SHT_DYNSYM: u32 = 11;
/// `p_type` of a part that is mapped.
const PT_LOAD: u32 = 1;
/// The entry symbol.
pub(super) const ENTRY: &str = "outboard_plugin_entry_v1";

/// Refuses what is no shared library for this machine with the entry symbol.
pub(super) fn check(file: &[u8]) -> Result<(), Problem> {
    let bytes: [u8; 4] = take(file, 0).ok_or(Problem::NotElf("it is empty or too short"))?;
    if bytes != *b"\x7fELF" {
        return Err(Problem::NotElf("its first bytes are others"));
    }
    let class = take::<1>(file, 4);
    let order = take::<1>(file, 5);
    let machine = u16(file, 18).ok_or(Problem::NotElf("its header is cut off"))?;
    if class != Some([2]) || order != Some([1]) || machine != MACHINE {
        return Err(Problem::Machine {
            found: machine_name(class, machine),
        });
    }
    if u16(file, 16) != Some(ET_DYN) {
        return Err(Problem::NotElf(
            "it is a program or an object file; link it with -shared, or as a cdylib",
        ));
    }
    if !is_whole(file) {
        return Err(Problem::NotElf(
            "it is cut off: its header promises more bytes than there are",
        ));
    }
    // A file without section headers is left to the loader.
    match exports(file, ENTRY) {
        Some(false) => Err(Problem::NoEntry),
        Some(true) | None => Ok(()),
    }
}

/// Whether the file has all that is to be mapped of it.
fn is_whole(file: &[u8]) -> bool {
    let (Some(headers), Some(step), Some(count)) = (u64(file, 32), u16(file, 54), u16(file, 56))
    else {
        return false;
    };
    (0..u64::from(count)).all(|n| {
        let within = || {
            // Elf64_Phdr: type 4, flags 4, offset 8, two addresses, size in the file 8.
            let at = headers.checked_add(n.checked_mul(u64::from(step))?)?;
            let end = u64(file, field(at, 8)?)?.checked_add(u64(file, field(at, 32)?)?)?;
            let maps = u32(file, at)? == PT_LOAD;
            Some(!maps || end <= file.len() as u64)
        };
        within() == Some(true)
    })
}

fn machine_name(class: Option<[u8; 1]>, machine: u16) -> String {
    let name = match machine {
        3 => "x86",
        40 => "arm",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv",
        _ => return format!("machine {machine}"),
    };
    let width = if class == Some([1]) { ", 32-bit" } else { "" };
    format!("{name}{width}")
}

/// Whether the dynamic symbol table defines `name`; `None` where there is no such table to be found.
fn exports(file: &[u8], name: &str) -> Option<bool> {
    let sections = u64(file, 40)?;
    let step = u64::from(u16(file, 58)?);
    let count = u64::from(u16(file, 60)?);
    let section = |n: u64| sections.checked_add(n.checked_mul(step)?);
    let dynsym = (0..count)
        .filter_map(section)
        .find(|&at| field(at, 4).and_then(|at| u32(file, at)) == Some(SHT_DYNSYM))?;
    let symbols = u64(file, field(dynsym, 24)?)?;
    let size = u64(file, field(dynsym, 32)?)?;
    let strings = section(u64::from(u32(file, field(dynsym, 40)?)?))?;
    let strings = u64(file, field(strings, 24)?)?;
    // Elf64_Sym: name 4, info 1, other 1, section 2, value 8, size 8.
    let defined = (0..size / 24).any(|n| {
        let symbol = || {
            let at = symbols.checked_add(n.checked_mul(24)?)?;
            let text = strings.checked_add(u64::from(u32(file, at)?))?;
            let text = file.get(usize::try_from(text).ok()?..)?;
            let named = text.strip_prefix(name.as_bytes())?.first() == Some(&0);
            Some(named && u16(file, field(at, 6)?)? != 0)
        };
        symbol() == Some(true)
    });
    Some(defined)
}

fn field(at: u64, offset: u64) -> Option<u64> {
    at.checked_add(offset)
}

fn take<const N: usize>(file: &[u8], at: u64) -> Option<[u8; N]> {
    let at = usize::try_from(at).ok()?;
    file.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16(file: &[u8], at: u64) -> Option<u16> {
    take(file, at).map(u16::from_le_bytes)
}

fn u32(file: &[u8], at: u64) -> Option<u32> {
    take(file, at).map(u32::from_le_bytes)
}

fn u64(file: &[u8], at: u64) -> Option<u64> {
    take(file, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// This test program: an ELF file of this machine, and no plugin.
    fn own() -> Vec<u8> {
        let mut file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        file[16] = ET_DYN as u8;
        file
    }

    #[test]
    fn each_wrong_file_has_its_answer() {
        assert!(matches!(check(b""), Err(Problem::NotElf(_))));
        assert!(matches!(check(b"#!/bin/sh\n"), Err(Problem::NotElf(_))));
        assert!(matches!(check(b"\x7fELF\x02\x01"), Err(Problem::NotElf(_))));
        assert!(matches!(check(&own()), Err(Problem::NoEntry)));
        let changed = |at: usize, value: u8| {
            let mut file = own();
            file[at] = value;
            check(&file).unwrap_err().to_string()
        };
        assert!(changed(16, 2).contains("-shared"));
        let arm = changed(18, 183);
        assert!(arm.contains("aarch64") && arm.contains(std::env::consts::ARCH));
        assert!(changed(4, 1).contains("32-bit"));
    }

    #[test]
    fn a_symbol_is_found_only_where_it_is_defined() {
        assert_eq!(exports(&own(), "no_such_symbol_anywhere"), Some(false));
        // Imported, not defined.
        assert_eq!(exports(&own(), "malloc"), Some(false));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_without_harm(mut file in prop::collection::vec(any::<u8>(), 0..4096), elf: bool) {
            if elf && file.len() > 20 {
                let own = own();
                file[..20].copy_from_slice(&own[..20]);
            }
            let _ = check(&file);
        }
    }
}
