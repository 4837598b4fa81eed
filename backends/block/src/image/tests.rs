//! Tests of opening images: what can be a disk, and who may have it.

use super::*;

const READONLY: Options = Options {
    format: None,
    readonly: true,
    direct: false,
    backing: false,
    block_size: None,
    keep_space: false,
};

fn file_of(size: u64) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".img").tempfile().unwrap();
    file.as_file().set_len(size).unwrap();
    file
}

fn refusal(path: &Path, readonly: bool) -> String {
    Image::open(
        path,
        &Options {
            readonly,
            ..Options::default()
        },
    )
    .unwrap_err()
    .to_string()
}

#[test]
fn a_file_is_measured() {
    let file = file_of(1 << 20);
    let image = Image::open(file.path(), &Options::default()).unwrap();
    assert_eq!(image.size(), 1 << 20);
    assert_eq!(image.blocks().logical, 512);
    assert!(!image.readonly());
    assert!(image.blocks().physical.is_power_of_two());
}

#[test]
fn two_writers_are_refused_by_name_and_readers_share() {
    let file = file_of(4096);
    let first = Image::open(file.path(), &Options::default()).unwrap();
    let message = refusal(file.path(), false);
    assert!(message.contains(file.path().to_str().unwrap()), "{message}");
    assert!(message.contains("in use"), "{message}");
    assert!(refusal(file.path(), true).contains("writes to it"));
    drop(first);
    let _a = Image::open(file.path(), &READONLY).unwrap();
    let _b = Image::open(file.path(), &READONLY).unwrap();
    let message = refusal(file.path(), false);
    assert!(
        message.contains("readonly=on of --disk, --readonly of"),
        "{message}"
    );
}

#[test]
fn what_cannot_be_a_disk_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(refusal(dir.path(), false).contains("is a directory"));
    for (name, readonly, remedies) in [
        ("none", false, ["correct the path", "`truncate -s 10G '"]),
        (
            "none.qcow2",
            false,
            ["correct the path", "`qemu-img create -f qcow2 '"],
        ),
    ] {
        let path = dir.path().join(name);
        let why = refusal(&path, readonly);
        assert!(remedies.iter().all(|part| why.contains(part)), "{why}");
        assert!(why.contains(&format!("{}'", path.display())), "{why}");
        let why = refusal(&path, true);
        assert!(why.ends_with("correct the path"), "{why}");
    }
    assert!(refusal(Path::new("/dev/null"), false).contains("character device"));
    assert!(refusal(file_of(1000).path(), false).contains("1000 bytes"));
    assert!(refusal(file_of(0).path(), false).contains("is empty"));
    let qcow2 = dir.path().join("a.qcow2");
    std::fs::write(&qcow2, [0; 512]).unwrap();
    assert!(refusal(&qcow2, false).contains("not in qcow2 format"));
    let raw = Options {
        format: Some(Format::Raw),
        ..Options::default()
    };
    assert!(Image::open(&qcow2, &raw).is_ok());
}

#[test]
fn the_content_never_decides_the_format() {
    let file = file_of(512);
    std::fs::write(file.path(), [b"QFI\xfb".as_slice(), &[0; 508]].concat()).unwrap();
    assert!(Image::open(file.path(), &Options::default()).is_ok());
    file.as_file().set_len(777).unwrap();
    let message = refusal(file.path(), false);
    assert!(
        message.contains("format=qcow2") && !message.contains("truncate"),
        "{message}"
    );
}

/// Its node lies on a file system in memory (devtmpfs); what it stores must be flushed all the same.
#[test]
fn a_block_device_is_not_in_memory() {
    let file = file_of(1 << 20);
    let losetup = |args: &[&std::ffi::OsStr]| {
        let done = std::process::Command::new("losetup").args(args).output();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
        done.map(|done| (done.status.success(), text(done.stdout)))
    };
    let path = file.path().as_os_str();
    let Ok((true, node)) = losetup(&["--find".as_ref(), "--show".as_ref(), path]) else {
        let _ = io::Write::write_all(&mut io::stderr(), b"SKIPPED: no loop device here\n");
        return;
    };
    let image = Image::open(Path::new(&node), &Options::default());
    let in_memory = image.map(|image| image.raw().unwrap().in_memory());
    let _ = losetup(&["--detach".as_ref(), node.as_ref()]);
    assert!(!in_memory.unwrap());
}
