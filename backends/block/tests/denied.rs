//! What the system denies: `io_uring`, durable writes, space.
#![allow(clippy::unwrap_used, clippy::panic)] // Tests fail by panicking, their helpers too.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{
    DISK, LIMIT, disk, drive, end, folder, image, pattern, program, qemu_ok, spawn, text,
};
use nix::fcntl::{FallocateFlags, fallocate};
use outboard_device::driver::block::F_DISCARD;
use outboard_device::driver::connection::Connection;
use outboard_device::driver::{Daemon, Driver, Options, QueueOptions};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

/// Starts the daemon where `calls` fail with `errno`.
fn spawn_without(calls: &[i64], errno: i32, path: &Path, args: &[&str]) -> (Daemon, UnixStream) {
    let filter = SeccompFilter::new(
        calls.iter().map(|&call| (call, Vec::new())).collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno.cast_unsigned()),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    // A filter stays with the thread and with what the thread starts.
    std::thread::scope(|scope| {
        let start = || {
            nix::sys::prctl::set_no_new_privs().unwrap();
            apply_filter(&program).unwrap();
            spawn(path, args)
        };
        scope.spawn(start).join().unwrap()
    })
}

const URING: [i64; 1] = [libc::SYS_io_uring_setup];
const SYNC: [i64; 2] = [libc::SYS_fsync, libc::SYS_fdatasync];

#[test]
fn without_io_uring_threads_do_the_work_and_it_is_said_once() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        for args in [&["--queues", "2"][..], &["--direct"]] {
            let file = image(DISK);
            let (daemon, stream) = spawn_without(&URING, errno, file.path(), args);
            let mut driver = drive(&daemon, stream, &Options::default());
            let data = pattern(9, 1 << 20);
            let mut disk = disk(&mut driver);
            disk.write(8, &data).unwrap();
            disk.flush().unwrap();
            disk.write_zeroes(16, 8, true).unwrap();
            disk.discard(64, 8).unwrap();
            let mut back = vec![0; 1 << 20];
            disk.read(8, &mut back).unwrap();
            let mut expected = data;
            expected[8 * 512..16 * 512].fill(0);
            expected[56 * 512..64 * 512].fill(0);
            assert!(back == expected);
            let words = daemon.words();
            assert_eq!(
                words.matches("io_uring cannot be used").count(),
                1,
                "{words}"
            );
            end(driver, daemon);

            let asked = [&["--engine", "uring"][..], args].concat();
            let (mut daemon, _stream) = spawn_without(&URING, errno, file.path(), &asked);
            assert_eq!(daemon.wait(LIMIT).and_then(|s| s.code()), Some(1));
            assert!(daemon.words().contains("kernel.io_uring_disabled=0"));
        }
    }
    // The filter it was: without one nothing is said.
    let file = image(DISK);
    let (daemon, stream) = spawn(file.path(), &[]);
    end(drive(&daemon, stream, &Options::default()), daemon);
    let (daemon, _stream) = spawn(file.path(), &[]);
    assert!(!daemon.words().contains("io_uring"), "{}", daemon.words());
}

/// A host that cannot make data durable is not asked in vain: a flush ends in an error, and so does
/// a write of a driver that knows no flush.
#[test]
fn a_flush_reaches_the_host_and_its_error_the_guest() {
    let (_folder, dir) = folder();
    let (raw, qcow2) = (dir.join("a.img"), dir.join("a.qcow2"));
    for (path, format) in [(&raw, "raw"), (&qcow2, "qcow2")] {
        qemu_ok(
            "qemu-img",
            &["create", "-q", "-f", format, text(path), "4M"],
        );
    }
    let plain = Options {
        features: 1 << 32 | 1 << 30 | F_DISCARD,
        ..Options::default()
    };
    for path in [&raw, &qcow2] {
        for broken in [true, false] {
            let args = ["--engine", "threads"];
            let start = || {
                if broken {
                    spawn_without(&SYNC, libc::EIO, path, &args)
                } else {
                    spawn(path, &args)
                }
            };
            let (daemon, stream) = start();
            let mut driver = drive(&daemon, stream, &Options::default());
            disk(&mut driver).write(0, &[1; 4096]).unwrap();
            assert_eq!(disk(&mut driver).flush().is_err(), broken, "{}", text(path));
            end(driver, daemon);

            let (daemon, stream) = start();
            let mut driver = drive(&daemon, stream, &plain);
            let discarded = disk(&mut driver).discard(0, 128);
            assert_eq!(discarded.is_err(), broken, "{}", text(path));
            end(driver, daemon);
        }
    }
}

/// A daemon over an image on a file system of its own, of 8 MiB, half of which is a file that can be
/// removed. Both go with the daemon.
struct Full {
    driver: Driver,
    daemon: Daemon,
    image: PathBuf,
    ballast: PathBuf,
    _folder: tempfile::TempDir,
}

impl Full {
    /// `None`, with a word, where nobody may mount anything.
    fn new(format: &str, args: &[&str]) -> Option<Self> {
        let probe = Command::new("unshare")
            .args(["--map-root-user", "--mount", "true"])
            .status();
        if !probe.is_ok_and(|status| status.success()) {
            common::skipped("user namespaces are not allowed here");
            return None;
        }
        // The socket lies outside of what is mounted over.
        let folder = tempfile::tempdir().unwrap();
        let mount = folder.path().join("full");
        let (socket, image) = (folder.path().join("s"), mount.join(format!("a.{format}")));
        fs::create_dir(&mount).unwrap();
        let script = format!(
            "mount -t tmpfs -o size=8M none {mount} && qemu-img create -q -f {format} {image} 16M && \
             head -c 4M /dev/zero >{mount}/ballast && exec \"$@\"",
            mount = text(&mount),
            image = text(&image),
        );
        let mut line = vec!["--map-root-user", "--mount", "sh", "-c", &script, "sh"];
        line.extend([
            text(program()),
            "--path",
            text(&image),
            "--socket",
            text(&socket),
        ]);
        line.extend(args);
        let daemon = Daemon::listen("unshare".as_ref(), line).unwrap();
        let root = PathBuf::from(format!("/proc/{}/root", daemon.id()));
        let inside = |path: &Path| root.join(path.strip_prefix("/").unwrap());
        let mut driver = match Connection::connect(&socket, LIMIT)
            .and_then(|connection| Driver::over(connection, &Options::default()))
        {
            Ok(driver) => driver,
            // A tmpfs has direct I/O since Linux 6.6.
            Err(_) if daemon.words().contains("without direct I/O") => {
                common::skipped("a tmpfs has no direct I/O here");
                return None;
            }
            Err(error) => panic!("{error:?}; the daemon says: {}", daemon.words()),
        };
        driver.start_queue(0, &QueueOptions::default()).unwrap();
        Some(Self {
            driver,
            daemon,
            image: inside(&image),
            ballast: inside(&mount.join("ballast")),
            _folder: folder,
        })
    }

    /// Writes piece after piece until one is refused; how many were not.
    fn fill(&mut self, from: u64) -> u64 {
        let mut disk = disk(&mut self.driver);
        (from..16 * 4)
            .find(|&piece| disk.write(piece * PIECE / 512, &bytes(piece)).is_err())
            .unwrap_or(16 * 4)
    }

    fn holds(&mut self, pieces: u64) {
        let mut disk = disk(&mut self.driver);
        let mut back = vec![0; PIECE as usize];
        for piece in 0..pieces {
            disk.read(piece * PIECE / 512, &mut back).unwrap();
            assert!(back == bytes(piece), "{piece}");
        }
    }
}

const PIECE: u64 = 256 << 10;

fn bytes(piece: u64) -> Vec<u8> {
    pattern(piece as u8, PIECE as usize)
}

/// Pages that a mapping had, taken away by others and used up: neither a write nor a read ends the daemon.
#[test]
fn a_page_that_cannot_be_had_again_is_an_io_error() {
    let Some(mut full) = Full::new("raw", &[]) else {
        return;
    };
    let first = full.fill(0);
    full.holds(first);
    // Once more: the pages are there, and are looked at.
    assert_eq!(full.fill(0), first);
    full.holds(first);
    let image = File::options().write(true).open(&full.image).unwrap();
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(&image, flags, 0, PIECE.cast_signed()).unwrap();
    let mut ballast = File::options().append(true).open(&full.ballast).unwrap();
    while ballast.write_all(&[1; 4096]).is_ok() {}

    for _ in 0..2 {
        assert!(disk(&mut full.driver).write(0, &bytes(0)).is_err());
        let mut back = vec![1; PIECE as usize];
        disk(&mut full.driver).read(0, &mut back).unwrap();
        assert!(back.iter().all(|b| *b == 0));
    }
    let words = full.daemon.words();
    assert!(words.contains("No space left"), "{words}");
    assert!(full.daemon.is_alive());
    let mut back = vec![0; PIECE as usize];
    for piece in 1..first {
        disk(&mut full.driver)
            .read(piece * PIECE / 512, &mut back)
            .unwrap();
        assert!(back == bytes(piece), "{piece}");
    }
    drop(ballast);
    fs::remove_file(&full.ballast).unwrap();
    disk(&mut full.driver).write(0, &bytes(0)).unwrap();
    full.holds(first);
}

#[test]
fn a_full_file_system_is_an_io_error_and_costs_nothing_that_was_acknowledged() {
    for (format, args) in [
        ("raw", &[][..]),
        ("raw", &["--engine", "uring", "--direct"]),
        ("raw", &["--engine", "threads", "--direct"]),
        ("qcow2", &[]),
    ] {
        let Some(mut full) = Full::new(format, args) else {
            continue;
        };
        let first = full.fill(0);
        assert!((10..=16).contains(&first), "{format} {args:?}: {first}");
        full.holds(first);
        let words = full.daemon.words();
        assert!(words.contains("No space left"), "{words}");
        // Still full, still alive.
        assert_eq!(full.fill(first), first);
        full.holds(first);

        fs::remove_file(&full.ballast).unwrap();
        let second = full.fill(first);
        assert!(second > first + 10, "{format} {args:?}: {first}, {second}");
        full.holds(second);
        // As much as fits without its tables may be one too much to flush them.
        disk(&mut full.driver)
            .discard(0, (4 * PIECE / 512) as u32)
            .unwrap();
        disk(&mut full.driver).flush().unwrap();

        let (_folder, dir) = folder();
        let copy = dir.join("copy");
        fs::copy(&full.image, &copy).unwrap();
        if format == "qcow2" {
            qemu_ok("qemu-img", &["check", "-f", "qcow2", text(&copy)]);
        }
        let model: Vec<u8> = (0..second)
            .flat_map(|piece| {
                if piece < 4 {
                    vec![0; PIECE as usize]
                } else {
                    bytes(piece)
                }
            })
            .collect();
        let raw = dir.join("raw");
        let args = [
            "convert",
            "-f",
            format,
            "-O",
            "raw",
            text(&copy),
            text(&raw),
        ];
        qemu_ok("qemu-img", &args);
        assert!(fs::read(&raw).unwrap()[..model.len()] == model);
    }
}
