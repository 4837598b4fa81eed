//! A daemon over an image of its own, driven by the SDK's driver, in each way it does I/O.
#![allow(dead_code)] // Each test file uses some of it.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use outboard_device::driver::block::Disk;
use outboard_device::driver::{Daemon, Driver, Options, QueueOptions};

/// Size of the images, in bytes.
pub(crate) const SIZE: u64 = 4 << 20;
pub(crate) const SECTORS: u64 = SIZE / 512;
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// A tmpfs, and a directory that is none wherever the build machine has one.
pub(crate) const MEMORY: &str = "/dev/shm";
pub(crate) const DISK: &str = env!("CARGO_TARGET_TMPDIR");

/// A way the daemon does I/O on a raw image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) dir: &'static str,
    pub(crate) args: &'static [&'static str],
}

pub(crate) const IN_MEMORY: Way = way(MEMORY, &[]);

/// At once; through `io_uring`; on threads; and past the page cache by either.
pub(crate) const WAYS: [Way; 5] = [
    IN_MEMORY,
    way(DISK, &["--engine", "uring"]),
    way(DISK, &["--engine", "threads"]),
    way(DISK, &["--engine", "uring", "--direct"]),
    way(DISK, &["--engine", "threads", "--direct"]),
];

const fn way(dir: &'static str, args: &'static [&'static str]) -> Way {
    Way { dir, args }
}

/// A daemon over an image of its own, and a driver connected to it.
pub(crate) struct Bench {
    pub(crate) driver: Driver,
    pub(crate) daemon: Daemon,
    pub(crate) file: tempfile::NamedTempFile,
}

pub(crate) fn image(dir: &str) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new()
        .suffix(".img")
        .tempfile_in(dir)
        .unwrap();
    file.as_file().set_len(SIZE).unwrap();
    file
}

pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_outboard-block"))
}

pub(crate) fn spawn(path: &Path, args: &[&str]) -> (Daemon, UnixStream) {
    let args = ["--path", path.to_str().unwrap()]
        .into_iter()
        .chain(args.iter().copied());
    Daemon::spawn(program(), args).unwrap()
}

/// A driver with its first queue started.
pub(crate) fn drive(daemon: &Daemon, stream: UnixStream, options: &Options) -> Driver {
    let mut driver = match Driver::new(stream, options) {
        Ok(driver) => driver,
        Err(error) => panic!("{error:?}; the daemon says: {}", daemon.words()),
    };
    driver.start_queue(0, &QueueOptions::default()).unwrap();
    driver
}

/// What a daemon says that must not start, in one line.
pub(crate) fn refusal(path: &Path, args: &[&str]) -> String {
    let (mut daemon, _stream) = spawn(path, args);
    let status = daemon.wait(LIMIT).and_then(|status| status.code());
    let words = daemon.words();
    assert_eq!(status, Some(1), "{words}");
    let errors = words
        .trim_end()
        .lines()
        .filter(|l| l.starts_with("error: "));
    assert_eq!(errors.count(), 1, "{words}");
    words
}

impl Bench {
    pub(crate) fn new(way: Way, args: &[&str]) -> Self {
        Self::with(way, args, &Options::default())
    }

    pub(crate) fn with(way: Way, args: &[&str], options: &Options) -> Self {
        let file = image(way.dir);
        let args: Vec<_> = way.args.iter().chain(args).copied().collect();
        let (daemon, stream) = spawn(file.path(), &args);
        Self {
            driver: drive(&daemon, stream, options),
            daemon,
            file,
        }
    }

    pub(crate) fn disk(&mut self) -> Disk<'_> {
        disk(&mut self.driver)
    }

    pub(crate) fn on_host(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.file
            .as_file()
            .read_exact_at(&mut data, offset)
            .unwrap();
        data
    }
}

/// The disk behind queue 0, in transfers of up to a mebibyte.
pub(crate) fn disk(driver: &mut Driver) -> Disk<'_> {
    Disk::new(driver, 0, 1 << 20).unwrap()
}

/// Ends a daemon as its frontend does, and waits for it.
pub(crate) fn end(driver: Driver, mut daemon: Daemon) {
    drop(driver);
    let code = daemon.wait(LIMIT).and_then(|status| status.code());
    assert_eq!(code, Some(0), "{}", daemon.words());
}

pub(crate) fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8 ^ seed).collect()
}

pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < end, "{what}: not within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Says that a test cannot be made here. Not through the harness, which keeps the words of tests
/// that pass to itself.
pub(crate) fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// Runs one of QEMU's tools.
pub(crate) fn qemu(program: &str, args: &[&str]) -> Output {
    match Command::new(program).args(args).output() {
        Ok(output) => output,
        Err(error) => panic!("cannot run {program} ({error}): install qemu-utils"),
    }
}

/// Runs one of QEMU's tools, which must succeed.
pub(crate) fn qemu_ok(program: &str, args: &[&str]) -> String {
    let output = qemu(program, args);
    let said = said(&output);
    assert!(output.status.success(), "{program} {args:?}: {said}");
    said
}

pub(crate) fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A path as text.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A folder for the images of one test, on a disk.
pub(crate) fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir_in(DISK).unwrap();
    let path = folder.path().to_owned();
    (folder, path)
}
