//! Disk images that would have whoever reads them take all the memory there is, or read for hours: one message
//! that names the image, and nothing left behind.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use outboard_tests::daemons::daemon;
use outboard_tests::refusal::{FAILED, refused};
use outboard_tests::traces::Home;

const BLOCK: usize = 4096;
/// Reached only by a failing test.
const LONG: Duration = Duration::from_secs(30);

/// Asserts that no kernel is taken out of it, by a process with 2 s of a processor's time, and that the message
/// says how the one ends that looks for it.
fn costs_one_process(home: &Home, image: &str, how: &str) {
    let mut command = Command::new("prlimit");
    command.arg("--cpu=2:").arg(daemon("outboard"));
    command.args(["image", "kernel", image, "--out", "some/boot"]);
    refused(home, command, FAILED, &[image, "made to do harm", how]);
    assert!(!home.path().join("some").exists());
}

/// A superblock (the kernel's Documentation/filesystems/ext4/super.rst) of blocks of `1024 << log` bytes, one in
/// each group.
fn superblock(log: u32) -> Vec<u8> {
    let mut image = vec![0; BLOCK];
    let mut put =
        |at: usize, bytes: &[u8]| image[1024 + at..][..bytes.len()].copy_from_slice(bytes);
    put(4, &u32::MAX.to_le_bytes());
    put(0x18, &log.to_le_bytes());
    put(0x20, &1_u32.to_le_bytes());
    put(0x28, &1_u32.to_le_bytes());
    put(0x38, &0xef53_u16.to_le_bytes());
    put(0x58, &256_u16.to_le_bytes());
    put(0x60, &2_u32.to_le_bytes());
    image
}

#[test]
fn a_superblock_that_asks_for_memory() {
    let home = Home::new();
    for (image, log) in [("groups.img", 0), ("blocks.img", 21)] {
        fs::write(home.path().join(image), superblock(log)).unwrap();
        costs_one_process(&home, image, "memory allocation");
    }
}

/// A tool of e2fsprogs; `None`, said aloud, where it is not.
fn tool(name: &str, args: &[&str]) -> Option<()> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(name);
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    match command.args(args).output() {
        Ok(output) => {
            // debugfs ends with 0 whatever becomes of a request.
            let refused = String::from_utf8_lossy(&output.stderr).contains("invalid");
            assert!(output.status.success() && !refused, "{name}: {output:?}");
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!("SKIPPED: no {name} here; install e2fsprogs");
            return None;
        }
        Err(error) => panic!("{name}: {error}"),
    }
    Some(())
}

/// A filesystem of 1 MiB with what is in `tree`.
fn filesystem(tree: &Path, image: &Path) -> Option<()> {
    fs::File::create(image).unwrap().set_len(1 << 20).unwrap();
    let (tree, image) = (tree.to_str().unwrap(), image.to_str().unwrap());
    tool(
        "mke2fs",
        &["-q", "-t", "ext2", "-b", "4096", "-d", tree, image],
    )
}

/// Sets a field of the inode of a file.
fn set(image: &Path, file: &str, field: &str, value: u64) -> Option<()> {
    let request = format!("set_inode_field {file} {field} {value}");
    tool("debugfs", &["-w", "-R", &request, image.to_str().unwrap()])
}

#[test]
fn a_link_of_8_tib() {
    let home = Home::new();
    let (tree, image) = (home.path().join("tree"), home.path().join("link.img"));
    fs::create_dir_all(tree.join("boot")).unwrap();
    std::os::unix::fs::symlink("x".repeat(100), tree.join("boot/vmlinuz-1")).unwrap();
    let made =
        filesystem(&tree, &image).and_then(|()| set(&image, "/boot/vmlinuz-1", "size", 8 << 40));
    if made.is_some() {
        costs_one_process(&home, "link.img", "memory allocation");
    }
}

/// What the process of its own has found lies in the folder, and nothing else.
#[test]
fn a_sound_one_beside_them() {
    let home = Home::new();
    let (tree, image) = (home.path().join("tree"), home.path().join("sound.img"));
    fs::create_dir_all(tree.join("boot")).unwrap();
    fs::write(tree.join("boot/vmlinuz-1"), "kernel").unwrap();
    fs::write(tree.join("boot/initrd.img-1"), "initrd").unwrap();
    if filesystem(&tree, &image).is_none() {
        return;
    }
    // No text, as a path may be.
    let out = OsStr::from_bytes(b"some/b\xffot");
    let mut command = Command::new(daemon("outboard"));
    command
        .args(["image", "kernel", "sound.img", "--out"])
        .arg(out);
    home.adopt(&mut command);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let out = home.path().join(out);
    assert_eq!(fs::read(out.join("vmlinuz-1")).unwrap(), b"kernel");
    assert_eq!(fs::read(out.join("initrd.img-1")).unwrap(), b"initrd");
    assert_eq!(fs::read_dir(out).unwrap().count(), 2);
}

/// All that its blocks of pointers point to is one block without names.
#[test]
fn a_folder_of_4_tib() {
    let home = Home::new();
    let (tree, image) = (home.path().join("tree"), home.path().join("folder.img"));
    fs::create_dir_all(tree.join("boot")).unwrap();
    for content in 1..=4_u8 {
        fs::write(tree.join(content.to_string()), [content; BLOCK]).unwrap();
    }
    if filesystem(&tree, &image).is_none() {
        return;
    }
    let mut bytes = fs::read(&image).unwrap();
    let block = |content| {
        bytes
            .chunks(BLOCK)
            .position(|block| *block == [content; BLOCK])
    };
    let numbers = [1, 2, 3, 4].map(|content| block(content).unwrap());
    let mut put =
        |number: usize, content: &[u8]| bytes[number * BLOCK..][..BLOCK].copy_from_slice(content);
    // An entry of no inode, as long as the block.
    put(
        numbers[0],
        &[&[0, 0, 0, 0, 0, 16][..], &[0; BLOCK - 6]].concat(),
    );
    for two in numbers.windows(2) {
        let pointer = u32::try_from(two[0]).unwrap().to_le_bytes();
        put(two[1], &pointer.repeat(BLOCK / 4));
    }
    fs::write(&image, bytes).unwrap();
    let direct = (0..12).map(|n| (format!("block[{n}]"), numbers[0]));
    let deep = ["block[IND]", "block[DIND]", "block[TIND]"].map(str::to_owned);
    for (field, number) in direct.chain(deep.into_iter().zip(numbers[1..].iter().copied())) {
        set(&image, "/boot", &field, number as u64);
    }
    set(&image, "/boot", "size", 4 << 40);
    costs_one_process(&home, "folder.img", "SIGXCPU");
    leaves_nothing_half(&home, "folder.img");
}

/// Ctrl-C while it is read.
fn leaves_nothing_half(home: &Home, image: &str) {
    let mut command = Command::new(daemon("outboard"));
    command.args(["image", "kernel", image, "--out", "some/boot"]);
    home.adopt(&mut command);
    let mut asked = command.spawn().unwrap();
    let begun =
        || fs::read_dir(home.path().join("some/boot")).is_ok_and(|mut all| all.next().is_some());
    let end = Instant::now() + LONG;
    while !begun() {
        assert!(Instant::now() < end, "it has not begun");
        std::thread::sleep(Duration::from_millis(5));
    }
    kill(Pid::from_raw(asked.id().cast_signed()), Signal::SIGINT).unwrap();
    let status = asked.wait().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGINT), "{status}");
    assert!(!home.path().join("some").exists());
}
