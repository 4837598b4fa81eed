//! An image in memory is mapped: data moves without system calls, holes stay holes, and what happens to the
//! file behind the daemon's back ends as it does where nothing is mapped.
#![allow(clippy::unwrap_used, clippy::panic)] // Tests fail by panicking, their helpers too.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::{Bench, IN_MEMORY, LIMIT, MEMORY, SECTORS, SIZE, pattern, wait_until};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use outboard_device::driver::{Daemon, Options};

const PAGE: u64 = 4096;
/// Bytes of a request at most.
const LARGEST: usize = 1 << 20;

/// Bytes that system calls have read and written, in all threads of a process (proc(5)).
fn moved(daemon: &Daemon) -> u64 {
    let io = fs::read_to_string(format!("/proc/{}/io", daemon.id())).unwrap();
    let count = |name| -> u64 {
        let line = io.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse().unwrap()
    };
    count("rchar:") + count("wchar:")
}

fn signal(daemon: &Daemon, signal: Signal) {
    kill(Pid::from_raw(daemon.id().cast_signed()), signal).unwrap();
}

/// Bytes of memory or disk that a file takes.
fn space(file: &File) -> u64 {
    file.metadata().unwrap().blocks() * 512
}

/// Writes and reads a page so many times; the pages that system calls have moved for it.
fn moved_for(bench: &mut Bench, times: u64, sector: u64) -> u64 {
    let before = moved(&bench.daemon);
    let mut disk = bench.disk();
    let mut back = vec![0; PAGE as usize];
    for n in 0..times {
        let data = pattern(n as u8, PAGE as usize);
        disk.write(sector, &data).unwrap();
        disk.read(sector, &mut back).unwrap();
        assert!(back == data);
    }
    (moved(&bench.daemon) - before) / PAGE
}

/// Reads the disk from a sector on.
fn read(bench: &mut Bench, sector: u64, back: &mut [u8]) {
    let mut disk = bench.disk();
    for (piece, sector) in back
        .chunks_mut(LARGEST)
        .zip((sector..).step_by(LARGEST / 512))
    {
        disk.read(sector, piece).unwrap();
    }
}

fn write(bench: &mut Bench, sector: u64, data: &[u8]) {
    let mut disk = bench.disk();
    for (piece, sector) in data.chunks(LARGEST).zip((sector..).step_by(LARGEST / 512)) {
        disk.write(sector, piece).unwrap();
    }
}

#[test]
fn data_that_is_there_moves_without_a_system_call() {
    let mut bench = Bench::new(IN_MEMORY, &[]);
    // The signals of both sides are some bytes each; a page of a hole is made by a call.
    let pages = moved_for(&mut bench, 500, 80);
    assert!(pages < 20, "{pages}");
    // Also across two pages, and up to the end.
    let pages = moved_for(&mut bench, 500, 84) + moved_for(&mut bench, 500, SECTORS - 8);
    assert!(pages < 40, "{pages}");
    assert!(bench.on_host(SIZE - PAGE, PAGE as usize) == pattern(499_u64 as u8, PAGE as usize));
    // That it is counted so is seen where there is nothing to copy from: in a hole.
    let before = moved(&bench.daemon);
    let mut disk = bench.disk();
    for _ in 0..500 {
        disk.read(SECTORS / 2, &mut [1; PAGE as usize]).unwrap();
    }
    let pages = (moved(&bench.daemon) - before) / PAGE;
    assert!((500..520).contains(&pages), "{pages}");
}

#[test]
fn a_file_that_has_grown_is_mapped_to_its_end() {
    let mut bench = Bench::new(IN_MEMORY, &[]);
    moved_for(&mut bench, 1, 0);
    bench.file.as_file().set_len(2 * SIZE).unwrap();
    signal(&bench.daemon, Signal::SIGUSR1);
    wait_until("the announcement", || {
        bench.driver.connection().config_changes() == 1
    });
    let pages = moved_for(&mut bench, 500, 2 * SECTORS - 8);
    assert!(pages < 20, "{pages}");
}

#[test]
fn what_was_in_the_file_before_is_found_there_and_only_to_be_read_where_so_asked() {
    let file = common::image(MEMORY);
    let data = pattern(3, SIZE as usize);
    fs::write(file.path(), &data).unwrap();
    let (daemon, stream) = common::spawn(file.path(), &["--readonly"]);
    let mut driver = common::drive(&daemon, stream, &Options::default());
    let before = moved(&daemon);
    let mut disk = common::disk(&mut driver);
    let mut back = vec![0; PAGE as usize];
    for page in 0..SIZE / PAGE {
        disk.read(page * 8, &mut back).unwrap();
        assert!(back == data[(page * PAGE) as usize..][..PAGE as usize]);
    }
    let pages = (moved(&daemon) - before) / PAGE;
    assert!(pages < 40, "{pages}");
    assert!(disk.write(0, &back).is_err());
    assert!(fs::read(file.path()).unwrap() == data);
    common::end(driver, daemon);
}

#[test]
fn to_read_a_hole_does_not_fill_it() {
    let mut bench = Bench::new(IN_MEMORY, &[]);
    let mut back = vec![1; SIZE as usize];
    bench.disk().write(SECTORS / 2, &[7; 4096]).unwrap();
    for _ in 0..3 {
        read(&mut bench, 0, &mut back);
        let (middle, len) = (SIZE as usize / 2, PAGE as usize);
        assert!(back[middle..middle + len].iter().all(|b| *b == 7));
        back[middle..middle + len].fill(0);
        assert!(back.iter().all(|b| *b == 0));
        // And the last page, by which it is seen whether the file was cut.
        assert!(space(bench.file.as_file()) <= 2 * PAGE);
    }
    // Neither one that the guest has made.
    bench.disk().write(0, &pattern(1, 1 << 20)).unwrap();
    read(&mut bench, 0, &mut back);
    bench.disk().discard(0, 1024).unwrap();
    for _ in 0..3 {
        read(&mut bench, 0, &mut back);
        assert!(back[..1 << 19].iter().all(|b| *b == 0));
        assert!(back[1 << 19..1 << 20] == pattern(1, 1 << 20)[1 << 19..]);
        assert!(space(bench.file.as_file()) <= 2 * PAGE + (1 << 19));
    }
    // The other way of looking at them would have.
    let mapping = unsafe_mapping::read_all(bench.file.as_file(), SIZE);
    assert_eq!(
        mapping,
        7 * PAGE
            + pattern(1, 1 << 20)[1 << 19..]
                .iter()
                .map(|b| u64::from(*b))
                .sum::<u64>()
    );
    assert_eq!(space(bench.file.as_file()), SIZE);
}

/// What a mapping does that knows nothing of holes.
mod unsafe_mapping {
    #![allow(unsafe_code)]

    use std::fs::File;
    use std::os::fd::AsRawFd;

    /// The sum of all bytes.
    pub(crate) fn read_all(file: &File, size: u64) -> u64 {
        let len = size as usize;
        // SAFETY: a new mapping, unmapped below; nobody shortens the file meanwhile.
        unsafe {
            let (read, shared) = (libc::PROT_READ, libc::MAP_SHARED);
            let map = libc::mmap(std::ptr::null_mut(), len, read, shared, file.as_raw_fd(), 0);
            assert_ne!(map, libc::MAP_FAILED);
            let bytes = map.cast::<u8>();
            let sum = (0..len)
                .map(|at| u64::from(bytes.add(at).read_volatile()))
                .sum();
            libc::munmap(map, len);
            sum
        }
    }
}

#[test]
fn a_file_that_is_cut_costs_what_was_cut_and_grown_again_it_serves_again() {
    let mut bench = Bench::new(IN_MEMORY, &[]);
    let data = pattern(1, SIZE as usize);
    let mut back = vec![0; SIZE as usize];
    write(&mut bench, 0, &data);
    read(&mut bench, 0, &mut back);
    let file = bench.file.reopen().unwrap();
    let half = SIZE / 2;
    file.set_len(half).unwrap();
    for _ in 0..2 {
        let mut disk = bench.disk();
        // Behind the cut, across it, before it.
        assert!(disk.read(SECTORS - 8, &mut back[..4096]).is_err());
        assert!(disk.read(SECTORS / 2 - 8, &mut back[..8192]).is_err());
        read(&mut bench, 0, &mut back[..half as usize]);
        assert!(back[..half as usize] == data[..half as usize]);
    }
    assert!(bench.daemon.is_alive());
    wait_until("a word", || {
        bench.daemon.words().contains("has become shorter")
    });

    file.set_len(SIZE).unwrap();
    read(&mut bench, 0, &mut back);
    assert!(back[..half as usize] == data[..half as usize]);
    assert!(back[half as usize..].iter().all(|b| *b == 0));
    write(&mut bench, SECTORS / 2, &data[half as usize..]);
    read(&mut bench, 0, &mut back);
    assert!(back == data);
}

/// As often as can be, so that pages are lost in the midst of copies.
#[test]
fn a_file_that_is_cut_over_and_over_does_not_end_the_daemon() {
    let mut bench = Bench::new(IN_MEMORY, &[]);
    let data = pattern(1, 1 << 20);
    write(&mut bench, 0, &data);
    let file = bench.file.reopen().unwrap();
    let stop = AtomicBool::new(false);
    let (mut good, mut bad) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                file.set_len(1 << 16).unwrap();
                thread::sleep(Duration::from_micros(100));
                file.set_len(SIZE).unwrap();
                thread::sleep(Duration::from_micros(100));
            }
        });
        let mut disk = bench.disk();
        let mut back = vec![0; 1 << 20];
        for _ in 0..500 {
            let ends = [disk.write(0, &data), disk.read(0, &mut back)];
            for end in ends {
                *(if end.is_ok() { &mut good } else { &mut bad }) += 1;
            }
            assert!(back[..1 << 16] == data[..1 << 16]);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(good > 0 && bad > 0, "{good} {bad}");
    assert!(bench.daemon.is_alive());
    write(&mut bench, 0, &data);
    let mut back = vec![0; 1 << 20];
    read(&mut bench, 0, &mut back);
    assert!(back == data);
}

#[test]
fn holes_that_others_make_read_as_zeroes() {
    let mut bench = Bench::new(IN_MEMORY, &[]);
    let mut back = vec![1; 1 << 20];
    bench.disk().write(0, &pattern(1, 1 << 20)).unwrap();
    read(&mut bench, 0, &mut back);
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(bench.file.as_file(), flags, 0, 1 << 20).unwrap();
    read(&mut bench, 0, &mut back);
    assert!(back.iter().all(|b| *b == 0));
}

#[test]
fn a_file_looks_as_old_as_the_last_flush_or_the_end() {
    let mut bench = Bench::new(IN_MEMORY, &[]);
    let data = pattern(1, 4096);
    write(&mut bench, 0, &data);
    let file = bench.file.reopen().unwrap();
    let time = |file: &File| file.metadata().unwrap().modified().unwrap();
    let mut last = time(&file);
    // Times tick some milliseconds apart.
    let tick = || thread::sleep(Duration::from_millis(50));
    tick();
    bench.disk().flush().unwrap();
    bench.disk().read(0, &mut [0; 4096]).unwrap();
    bench.disk().flush().unwrap();
    assert_eq!(time(&file), last, "nothing was written");
    write(&mut bench, 0, &data);
    bench.disk().flush().unwrap();
    assert!(time(&file) > last);
    last = time(&file);
    tick();
    write(&mut bench, 0, &data);
    let Bench {
        driver,
        daemon,
        file: kept,
    } = bench;
    common::end(driver, daemon);
    assert!(time(kept.as_file()) > last);
}

#[test]
fn a_sigbus_that_is_sent_ends_the_daemon_as_it_would_any_process() {
    let mut bench = Bench::new(IN_MEMORY, &[]);
    bench.disk().write(0, &pattern(1, 4096)).unwrap();
    signal(&bench.daemon, Signal::SIGBUS);
    let status = bench.daemon.wait(LIMIT).unwrap();
    assert_eq!(status.signal(), Some(Signal::SIGBUS as i32));
}
