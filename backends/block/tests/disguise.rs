//! A qcow2 image by the name of a raw one: served as its name says, and its owner is warned.
#![allow(clippy::unwrap_used, clippy::panic)] // Tests fail by panicking, their helpers too.

mod common;

use std::fs::File;
use std::io::Write;
use std::path::Path;

use common::{LIMIT, drive, spawn};
use outboard_device::driver::Options;

/// What the daemon has said when it has served the image; it must.
fn said(path: &Path, args: &[&str]) -> String {
    let (mut daemon, stream) = spawn(path, args);
    drop(drive(&daemon, stream, &Options::default()));
    let status = daemon.wait(LIMIT).and_then(|status| status.code());
    let words = daemon.words();
    assert_eq!(status, Some(0), "{words}");
    words
}

#[test]
fn it_is_warned_of_once_and_only_where_nobody_has_said_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let begun = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        let mut file = File::create(&path).unwrap();
        file.write_all(bytes).unwrap();
        file.set_len(1 << 20).unwrap();
        path
    };
    // As `qemu-img create -f qcow2` begins it.
    let disguised = begun("disk.img", b"QFI\xfb\0\0\0\x03");
    let words = said(&disguised, &[]);
    let warning = "begins as a qcow2 image does, and is served as raw";
    assert_eq!(words.matches(warning).count(), 1, "{words}");
    for part in ["WARN", "disk.img", "format=qcow2", "format=raw"] {
        assert!(words.contains(part), "no {part} in {words}");
    }
    let quiet = |path: &Path, args: &[&str]| {
        let words = said(path, args);
        assert!(!words.contains("WARN"), "{args:?}: {words}");
    };
    quiet(&disguised, &["--format", "raw"]);
    // A raw image, and one that begins almost so.
    quiet(&begun("raw.img", &[0xeb, 0x63, 0x90]), &[]);
    quiet(&begun("near.img", b"QFI\xfa\0\0\0\x03"), &[]);
}
