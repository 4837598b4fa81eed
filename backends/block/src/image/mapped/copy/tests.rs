//! Tests of the copy, whole and cut short. Those of what ends the process are made in a child.
#![allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::*;

const LEN: usize = PAGE as usize;

/// A file in memory, mapped; as long as the test's process.
fn mapped(pages: usize) -> (File, *mut u8) {
    let file = File::from(memfd_create("lost", MFdFlags::MFD_CLOEXEC).unwrap());
    file.set_len((pages * LEN) as u64).unwrap();
    // SAFETY: a new mapping.
    let map = unsafe {
        libc::mmap(
            ptr::null_mut(),
            pages * LEN,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    assert_ne!(map, libc::MAP_FAILED);
    (file, map.cast())
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8 + 1).collect()
}

#[test]
fn every_length_and_alignment_is_copied_and_nothing_beside() {
    let from = pattern(400);
    for len in (0..=130).chain([255, 256, 257]) {
        for (behind, at) in (0..17).flat_map(|behind| (0..17).map(move |at| (behind, at))) {
            let mut to = vec![0; 400];
            // SAFETY: both are inside their vectors.
            let left = unsafe { copy(from.as_ptr().add(behind), to.as_mut_ptr().add(at), len) };
            assert_eq!(left, 0);
            assert!(to[at..at + len] == from[behind..behind + len]);
            assert!(to[..at].iter().chain(&to[at + len..]).all(|b| *b == 0));
        }
    }
}

#[test]
fn what_overlaps_is_copied_from_its_start() {
    let mut memory = pattern(300);
    let start = memory.as_mut_ptr();
    // SAFETY: both are inside the vector.
    assert_eq!(unsafe { copy(start, start.add(1), 200) }, 0);
    assert!(memory[..=200].iter().all(|b| *b == 1));
    assert_eq!(memory[201..], pattern(300)[201..]);
}

#[test]
fn a_copy_ends_where_a_page_is_lost_on_either_side() {
    arm().unwrap();
    arm().unwrap();
    for lost_is_read in [true, false] {
        for (first, other, len) in [
            (LEN, 0, 1),
            (LEN - 1, 5, 2),
            (LEN - 100, 3, 200),
            (LEN - 64, 0, LEN),
            (LEN - 64, 64, 2 * LEN),
            (0, 17, 3 * LEN),
            (1, 1, 3 * LEN - 1),
        ] {
            let (file, lost) = mapped(3);
            let (_whole, kept) = mapped(5);
            let (from, to, read, written) = if lost_is_read {
                (lost, kept, first, other)
            } else {
                (kept, lost, other, first)
            };
            let data = pattern(len);
            // SAFETY: as below; the pages are there.
            assert_eq!(unsafe { copy(data.as_ptr(), from.add(read), len) }, 0);
            file.set_len(PAGE).unwrap();
            // SAFETY: both are inside their mappings, of which the handler knows how to miss a page.
            let left = unsafe { copy(from.add(read), to.add(written), len) };
            let done = (LEN - first).min(len);
            assert_eq!(left, len - done, "{first} {other} {len}");
            let mut arrived = vec![0; len];
            // SAFETY: as above.
            unsafe { copy(to.add(written), arrived.as_mut_ptr(), done) };
            assert!(arrived[..done] == data[..done]);
            // Grown again, it is as any other.
            file.set_len(3 * PAGE).unwrap();
            // SAFETY: as above.
            assert_eq!(unsafe { copy(from.add(read), to.add(written), len) }, 0);
        }
    }
}

#[test]
fn only_the_registers_of_a_copy_that_touches_the_page_are_changed() {
    let at = rep_movsb as *const () as usize;
    let at = i64::try_from(at).unwrap();
    let registers = |rip, rsi, rdi, rcx| {
        let mut registers = [0i64; 23];
        registers[libc::REG_RIP as usize] = rip;
        registers[libc::REG_RSI as usize] = rsi;
        registers[libc::REG_RDI as usize] = rdi;
        registers[libc::REG_RCX as usize] = rcx;
        registers
    };
    for (fault, mine) in [
        (0x10_0000, true),
        (0x10_0f00, true),
        (0x10_2000, true),
        (0x10_3000, false),
        (0x0f_ffff, false),
        (0x20_1000, true),
        (0x1f_f000, false),
        (0, false),
        (u64::MAX, false),
    ] {
        let mut it = registers(at, 0x10_0f00, 0x20_0000, 0x1800);
        assert_eq!(leave_copy(&mut it, fault), mine, "{fault:#x}");
        assert_eq!(it[libc::REG_RIP as usize], at + if mine { 2 } else { 0 });
    }
    for elsewhere in [at - 1, at + 1, at + 2, 0] {
        let mut it = registers(elsewhere, 0x10_0000, 0x20_0000, 0x1000);
        assert!(!leave_copy(&mut it, 0x10_0000));
    }
}

/// Runs [`child`] as a process of its own.
fn end_of(what: &str) -> ExitStatus {
    let test = concat!(module_path!(), "::child");
    let (_, test) = test.split_once("::").unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("OUTBOARD_TEST_LOSES", what)
        .output()
        .unwrap()
        .status
}

#[test]
fn a_lost_page_ends_a_process_that_is_not_armed_and_a_lost_page_elsewhere_one_that_is() {
    assert!(end_of("copy").success());
    for what in ["copy unarmed", "elsewhere", "sent"] {
        assert_eq!(end_of(what).signal(), Some(libc::SIGBUS), "{what}");
    }
}

/// Does what the environment says. Not a test by itself.
#[test]
fn child() {
    let Ok(what) = std::env::var("OUTBOARD_TEST_LOSES") else {
        return;
    };
    if what != "copy unarmed" {
        arm().unwrap();
    }
    let (file, map) = mapped(1);
    let mut to = [0; 8];
    file.set_len(0).unwrap();
    match what.as_str() {
        "copy" | "copy unarmed" => {
            // SAFETY: inside the mapping; the page is lost, which is what is tested.
            assert_eq!(unsafe { copy(map, to.as_mut_ptr(), 8) }, 8);
        }
        "elsewhere" => {
            // SAFETY: as above.
            to[0] = unsafe { map.read_volatile() };
        }
        _ => {
            // SAFETY: a signal to ourselves.
            unsafe { libc::raise(libc::SIGBUS) };
        }
    }
    assert_ne!(to, [1; 8]);
}
