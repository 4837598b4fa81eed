//! Kernels, initrds and ISO images that are none: one message that names the thing, the documented exit
//! code, and nothing left behind.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::fs;
use std::process::Command;

use outboard_tests::daemons::daemon;
use outboard_tests::guest::{disk, has_kvm, payload};
use outboard_tests::refusal::{FAILED, USAGE, home, output, refused, run};

#[test]
fn iso_images_that_are_none() {
    let home = home();
    let file = |name: &str, bytes: &[u8]| fs::write(home.path().join(name), bytes).unwrap();
    file("garbage.iso", &vec![0x5a; 100_000]);
    file("empty.iso", b"");
    let outboard = |args: &[&str]| {
        let mut command = Command::new(daemon("outboard"));
        command.args(args);
        command
    };
    for (image, part) in [
        ("garbage.iso", "is no ISO 9660 image"),
        ("empty.iso", "is no ISO 9660 image"),
        ("no-such.iso", "No such file"),
        ("/", "is a directory"),
    ] {
        let run = outboard(&["run", "--cdrom", image, "--serial", "off"]);
        refused(&home, run, FAILED, &[part, image]);
        refused(
            &home,
            outboard(&["iso", "ls", image]),
            FAILED,
            &[part, image],
        );
    }
    let entry = [
        "run",
        "--cdrom",
        "garbage.iso",
        "--boot-entry",
        "x",
        "--kernel",
        "kernel",
    ];
    refused(&home, outboard(&entry), USAGE, &["boot-entry"]);
    refused(
        &home,
        outboard(&["run"]),
        USAGE,
        &["--cdrom FILE", "--kernel FILE"],
    );
}

/// No error, for a guest may write such a beginning; but whoever made the image ought to know.
#[test]
fn a_disk_that_begins_as_qcow2_and_is_called_raw() {
    if !has_kvm() {
        return;
    }
    let home = home();
    let warnings = || {
        let args = ["--cmdline", "jobs=hello", "--disk", "path=disk.img"];
        let output = output(&home, run(&args));
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(said.matches("WARN").count(), said.matches("disk0").count());
        said.matches("begins as a qcow2 image").count()
    };
    assert_eq!(warnings(), 0);
    let disk = home.path().join("disk.img");
    let mut bytes = fs::read(&disk).unwrap();
    bytes[..4].copy_from_slice(b"QFI\xfb");
    fs::write(&disk, bytes).unwrap();
    assert_eq!(warnings(), 1);
}

#[test]
fn kernels_that_are_none() {
    let home = home();
    let file = |name: &str, bytes: &[u8]| fs::write(home.path().join(name), bytes).unwrap();
    file("garbage", &[0x5a; 10_000]);
    file("nothing", b"");
    file("short", &fs::read(payload()).unwrap()[..300]);
    file("aarch", &elf(2, 183));
    file("x86-32", &elf(1, 3));
    let mut object = elf(2, 62);
    object[16] = 1;
    file("unlinked.o", &object);
    file("no-entry", &elf(2, 62));
    file("half", &bzimage());
    fs::create_dir(home.path().join("folder")).unwrap();
    for (kernel, part) in [
        ("no-such-kernel", "No such file"),
        ("garbage", "bzImage"),
        ("nothing", "is empty"),
        ("short", "truncated"),
        ("folder", "is a directory"),
        ("aarch", "needs an x86-64 kernel"),
        ("x86-32", "32-bit ELF image"),
        ("no-entry", "no PVH note"),
        ("unlinked.o", "an object file"),
        ("half", "truncated"),
    ] {
        let mut run = Command::new(daemon("outboard"));
        run.args(["run", "--kernel", kernel]);
        refused(&home, run, FAILED, &[kernel, part]);
    }
}

/// An ELF header of a class (1: 32 bits, 2: 64) and a machine, with one segment that does not have the
/// entry address, and no note (ELF-64 object file format, version 1.5, figures 2 and 6).
fn elf(class: u8, machine: u16) -> Vec<u8> {
    let mut file = vec![0; 8192];
    file[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, 1, 1]);
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(16, &2_u16.to_le_bytes());
    put(18, &machine.to_le_bytes());
    put(20, &1_u32.to_le_bytes());
    if class == 2 {
        put(24, &0x900_0000_u64.to_le_bytes());
        put(32, &64_u64.to_le_bytes());
        for (at, value) in [(52, 64_u16), (54, 56), (56, 1)] {
            put(at, &value.to_le_bytes());
        }
        put(64, &1_u32.to_le_bytes());
        for (at, value) in [(72, 4096_u64), (80, 0x10_0000), (88, 0x10_0000)] {
            put(at, &value.to_le_bytes());
        }
        for at in [96, 104] {
            put(at, &4096_u64.to_le_bytes());
        }
    }
    file
}

/// The beginning of a bzImage whose header speaks of a megabyte more
/// (Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header").
fn bzimage() -> Vec<u8> {
    let mut file = vec![0; 4096];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[4]);
    put(0x1f4, &0x1_0000_u32.to_le_bytes());
    put(0x1fe, &0xaa55_u16.to_le_bytes());
    put(0x202, b"HdrS");
    put(0x206, &0x020f_u16.to_le_bytes());
    put(0x211, &[1]);
    put(0x236, &1_u16.to_le_bytes());
    file
}

#[test]
fn an_initrd_that_does_not_fit() {
    if !has_kvm() {
        return;
    }
    let home = home();
    disk(home.path(), "initrd", 128 << 8);
    let args = ["--initrd", "initrd"];
    refused(
        &home,
        run(&args),
        FAILED,
        &[
            "Cannot load the initrd initrd: Its 134217728 bytes do not fit",
            "--memory",
        ],
    );
    let args = ["--initrd", "no-such"];
    refused(&home, run(&args), FAILED, &["no-such", "initrd"]);
}
