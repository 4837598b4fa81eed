//! Who else may have an image, QEMU's tools among them, which keep the same locks.
#![allow(clippy::unwrap_used, clippy::panic)] // Tests fail by panicking, their helpers too.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{Bench, disk, drive, folder, qemu, qemu_ok, refusal, said, spawn, text};
use outboard_device::driver::{Daemon, Driver, Options};

/// An image in each format.
fn images(dir: &Path) -> [(PathBuf, &'static str); 2] {
    ["raw", "qcow2"].map(|format| {
        let path = dir.join(format!("a.{format}"));
        qemu_ok(
            "qemu-img",
            &["create", "-q", "-f", format, text(&path), "4M"],
        );
        (path, format)
    })
}

fn serve(path: &Path, args: &[&str]) -> (Driver, Daemon) {
    let (daemon, stream) = spawn(path, args);
    (drive(&daemon, stream, &Options::default()), daemon)
}

/// A `qemu-io` that has the image open, until dropped.
struct QemuIo(Child);

impl QemuIo {
    fn open(args: &[&str]) -> Self {
        let mut child = Command::new("qemu-io")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It has opened the image when it answers.
        let stdin = child.stdin.as_mut().unwrap();
        stdin.write_all(b"read 0 512\n").unwrap();
        stdin.flush().unwrap();
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("read 512/512")));
        Self(child)
    }
}

impl Drop for QemuIo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The image without QEMU's locks, as its tools take it.
fn unlocked(path: &Path, format: &str) -> String {
    let path = text(path);
    format!("driver={format},file.driver=file,file.filename={path},file.locking=off")
}

#[test]
fn while_we_write_nobody_else_does() {
    let (_folder, dir) = folder();
    for (path, format) in images(&dir) {
        let (mut driver, _daemon) = serve(&path, &[]);
        disk(&mut driver).write(0, &[7; 512]).unwrap();
        let output = qemu(
            "qemu-io",
            &["-f", format, "-c", "write -P 1 0 512", text(&path)],
        );
        assert!(!output.status.success(), "{}", said(&output));
        assert!(said(&output).contains("lock"), "{}", said(&output));
        assert!(refusal(&path, &[]).contains("writes to it"));
        assert!(refusal(&path, &["--readonly"]).contains("writes to it"));
        let mut back = [0; 512];
        disk(&mut driver).read(0, &mut back).unwrap();
        assert_eq!(back, [7; 512]);
        // It was the lock: one that asks for none is let in.
        let image = unlocked(&path, format);
        qemu_ok(
            "qemu-io",
            &["-r", "--image-opts", "-c", "read 0 512", &image],
        );
    }
}

#[test]
fn while_qemu_writes_we_do_not() {
    let (_folder, dir) = folder();
    for (path, format) in images(&dir) {
        let qemu = QemuIo::open(&["-f", format, text(&path)]);
        assert!(refusal(&path, &[]).contains("in use"));
        assert!(refusal(&path, &["--readonly"]).contains("in use"));
        drop(qemu);
        let (mut driver, _daemon) = serve(&path, &[]);
        disk(&mut driver).write(0, &[1; 512]).unwrap();
    }
    // It was the lock: without one we are let in.
    let (path, format) = (&images(&dir)[0].0, "raw");
    let _qemu = QemuIo::open(&["--image-opts", &unlocked(path, format)]);
    let _ours = serve(path, &[]);
}

#[test]
fn readers_share() {
    let (_folder, dir) = folder();
    for (path, format) in images(&dir) {
        let _qemu = QemuIo::open(&["-r", "-f", format, text(&path)]);
        let (mut first, _a) = serve(&path, &["--readonly"]);
        let (mut second, _b) = serve(&path, &["--readonly"]);
        for driver in [&mut first, &mut second] {
            disk(driver).read(0, &mut [0; 512]).unwrap();
        }
        qemu_ok(
            "qemu-io",
            &["-r", "-f", format, "-c", "read 0 512", text(&path)],
        );
        assert!(refusal(&path, &[]).contains("in use"));
    }
}

#[test]
fn what_lies_below_is_not_written_by_others() {
    let (_folder, dir) = folder();
    let [(raw, _), _] = images(&dir);
    let top = dir.join("top.qcow2");
    qemu_ok(
        "qemu-img",
        &[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-b",
            "a.raw",
            "-F",
            "raw",
            text(&top),
        ],
    );
    let _first = serve(&top, &["--backing"]);
    assert!(refusal(&raw, &[]).contains("in use"));
    let output = qemu("qemu-io", &["-f", "raw", "-c", "write 0 512", text(&raw)]);
    assert!(!output.status.success(), "{}", said(&output));
    // Read it may be, by another overlay too.
    let _reader = serve(&raw, &["--readonly"]);
}

#[test]
fn direct_io_is_refused_in_words_where_there_is_none() {
    // Files of sysfs, of 4096 bytes, which no file system has pages of.
    let words = refusal(
        "/sys/kernel/uevent_seqnum".as_ref(),
        &["--readonly", "--direct"],
    );
    assert!(
        words.contains("without direct I/O") && words.contains("direct=on"),
        "{words}"
    );
    let (_driver, _daemon) = serve("/sys/kernel/uevent_seqnum".as_ref(), &["--readonly"]);
}

#[test]
fn the_guest_is_told_the_block_size_that_was_asked_for() {
    for size in [512u32, 4096] {
        let args = ["--block-size", &size.to_string()];
        let mut bench = Bench::new(common::IN_MEMORY, &args);
        let mut config = [0; 12];
        bench.driver.read_config(20, &mut config).unwrap();
        assert_eq!(config[..4], size.to_le_bytes());
        // A physical block of 4096 bytes: 2^3 blocks of 512, or one; no less at once.
        let exponent = if size == 512 { 3 } else { 0 };
        assert_eq!(config[4..8], [exponent, 0, 1 << exponent, 0]);
        // What is smaller is served all the same (virtio 1.2, section 5.2.5).
        bench.disk().write(1, &[1; 512]).unwrap();
    }
    let (_folder, dir) = folder();
    let path = dir.join("odd.img");
    std::fs::write(&path, [0; 4096 + 512]).unwrap();
    let words = refusal(&path, &["--block-size", "4096"]);
    assert!(
        words.contains("4608 bytes") && words.contains("multiple of 4096"),
        "{words}"
    );
    let _driver = serve(&path, &["--block-size", "512"]);
}
