//! The daemon itself, driven by the SDK's driver: every kind of request, in every way that the daemon
//! does I/O on a raw image.
#![allow(clippy::unwrap_used, clippy::panic)] // Tests fail by panicking, their helpers too.

mod common;

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use common::{
    Bench, DISK, IN_MEMORY, LIMIT, MEMORY, SECTORS, SIZE, WAYS, drive, end, image, pattern,
    refusal, skipped, spawn,
};
use outboard_device::driver::block::{
    BlockQueue, Disk, F_DISCARD, F_FLUSH, F_MQ, F_RO, F_WRITE_ZEROES, Kind, Status,
};
use outboard_device::driver::{Driver, Options, QueueOptions, Segment};

#[test]
fn what_is_written_is_read_by_guest_and_host() {
    for way in WAYS {
        let mut bench = Bench::new(way, &[]);
        let mut disk = bench.disk();
        assert_eq!(disk.sectors().unwrap(), SECTORS);
        let data = pattern(7, 65536);
        disk.write(8, &data).unwrap();
        disk.write(SECTORS - 1, &data[..512]).unwrap();
        disk.flush().unwrap();
        let mut back = vec![0; 65536];
        disk.read(8, &mut back).unwrap();
        assert!(back == data, "{way:?}");
        assert!(bench.on_host(8 * 512, 65536) == data);
        assert!(bench.on_host(SIZE - 512, 512) == data[..512]);
        assert_eq!(bench.file.as_file().metadata().unwrap().len(), SIZE);
    }
}

#[test]
fn requests_beyond_the_disk_or_of_unknown_kind_are_refused_and_harmless() {
    let mut bench = Bench::new(IN_MEMORY, &[]);
    let mut disk = bench.disk();
    let page = pattern(1, 4096);
    assert!(disk.write(SECTORS, &page).is_err());
    assert!(disk.write(SECTORS - 7, &page).is_err());
    assert!(disk.write(u64::MAX / 512, &page).is_err());
    assert!(disk.write(u64::MAX, &page).is_err());
    assert!(disk.write(0, &page[..511]).is_err());
    assert!(disk.read(SECTORS - 1, &mut [0; 1024]).is_err());
    for kind in [2, 3, 5, 9, 0x8000_0000, u32::MAX] {
        assert_eq!(disk.request(kind, 0, None).unwrap(), Status::Unsupported);
    }
    assert_eq!(
        disk.range(Kind::Discard, SECTORS, 1, 0).unwrap(),
        Status::IoError
    );
    assert_eq!(
        disk.range(Kind::Discard, 0, 1, 1).unwrap(),
        Status::Unsupported
    );
    assert_eq!(
        disk.range(Kind::WriteZeroes, 0, u32::MAX, 0).unwrap(),
        Status::IoError
    );
    disk.write(0, &page).unwrap();
    assert_eq!(bench.file.as_file().metadata().unwrap().len(), SIZE);
    assert!(
        bench
            .on_host(4096, SIZE as usize - 4096)
            .iter()
            .all(|b| *b == 0)
    );
}

#[test]
fn chains_that_are_no_requests_come_back() {
    let mut bench = Bench::new(IN_MEMORY, &[]);
    let memory = bench.driver.allocate(4096, 4096).unwrap();
    let at = memory.addr();
    let queue = bench.driver.queue(0).unwrap();
    let chains: [&[Segment]; 7] = [
        &[Segment::readable(at, 1)], // short header
        &[Segment::readable(at, 15), Segment::writable(at + 1024, 1)],
        &[Segment::readable(at, 16)],       // no status byte
        &[Segment::writable(at + 1024, 1)], // no header
        &[Segment::writable(at + 1024, 512)],
        &[Segment::readable(at, 16), Segment::writable(at + 1024, 513)], // a whole read
        &[
            // The same with a header in three parts and the status byte behind the data.
            Segment::readable(at, 3),
            Segment::readable(at + 3, 12),
            Segment::readable(at + 15, 1),
            Segment::writable(at + 1024, 100),
            Segment::writable(at + 1124, 413),
        ],
    ];
    let expected = [
        None,
        Some((1024, 1)),
        None,
        Some((1024, 1)),
        Some((1535, 1)),
        Some((1536, 0)),
        Some((1536, 0)),
    ];
    for (chain, status) in chains.iter().zip(expected) {
        memory.part(0, 16).fill(0);
        memory.part(1024, 1024).fill(0xee);
        queue.submit(chain, 1).unwrap();
        assert_eq!(queue.wait(LIMIT).unwrap().token, 1);
        if let Some((place, byte)) = status {
            assert_eq!(memory.to_vec(place, 1), [byte], "{chain:?}");
        }
    }
    assert!(bench.daemon.is_alive());
    bench.disk().flush().unwrap();
}

#[test]
fn discard_and_write_zeroes_free_and_clear() {
    for way in WAYS {
        let mut bench = Bench::new(way, &[]);
        assert!(bench.driver.has(F_DISCARD | F_WRITE_ZEROES | F_FLUSH));
        let mut disk = bench.disk();
        let data = pattern(3, 1 << 20);
        disk.write(0, &data).unwrap();
        disk.flush().unwrap();
        disk.discard(0, 256).unwrap();
        disk.write_zeroes(512, 64, false).unwrap();
        disk.write_zeroes(1024, 256, true).unwrap();
        disk.flush().unwrap();
        let (mut back, mut expected) = (vec![1; 1 << 20], data);
        disk.read(0, &mut back).unwrap();
        for (from, sectors) in [(0, 256), (512, 64), (1024, 256)] {
            expected[from * 512..(from + sectors) * 512].fill(0);
        }
        assert!(back == expected, "{way:?}");
        // 128 KiB each were given back by the discard and the unmapping write-zeroes.
        let blocks = bench.file.as_file().metadata().unwrap().blocks();
        assert!(
            blocks * 512 <= (1 << 20) - (256 << 10) + 65536,
            "{way:?}: {blocks}"
        );
    }
}

#[test]
fn the_serial_number_is_told() {
    let mut bench = Bench::new(IN_MEMORY, &["--serial", "twenty-characters-ok"]);
    assert_eq!(bench.disk().id().unwrap(), b"twenty-characters-ok");
    assert_eq!(Bench::new(IN_MEMORY, &[]).disk().id().unwrap(), b"");
}

#[test]
fn a_readonly_disk_stays_as_it_is() {
    let mut bench = Bench::new(IN_MEMORY, &["--readonly"]);
    assert!(bench.driver.has(F_RO));
    assert!(!bench.driver.has(F_DISCARD) && !bench.driver.has(F_WRITE_ZEROES));
    let mut disk = bench.disk();
    assert!(disk.write(0, &[1; 512]).is_err());
    assert_eq!(
        disk.range(Kind::Discard, 0, 1, 0).unwrap(),
        Status::Unsupported
    );
    disk.read(0, &mut [1; 512]).unwrap();
    disk.flush().unwrap();
    assert_eq!(bench.on_host(0, 512), [0; 512]);
}

#[test]
fn a_host_error_is_an_io_error_and_the_daemon_lives() {
    for way in WAYS {
        let mut bench = Bench::new(way, &[]);
        let file = bench.file.as_file().try_clone().unwrap();
        let mut disk = bench.disk();
        disk.write(0, &[1; 4096]).unwrap();
        file.set_len(2048).unwrap();
        assert!(disk.read(0, &mut [0; 4096]).is_err());
        disk.read(0, &mut [0; 2048]).unwrap();
        let words = bench.daemon.words();
        assert!(words.contains("has become shorter"), "{way:?}: {words:?}");
    }
}

#[test]
fn without_flush_or_ring_features_it_works_all_the_same() {
    for way in WAYS {
        let options = Options {
            features: 1 << 32 | 1 << 30 | F_DISCARD,
            ..Options::default()
        };
        let mut bench = Bench::with(way, &[], &options);
        assert!(!bench.driver.has(F_FLUSH));
        let mut disk = bench.disk();
        disk.write(4, &pattern(9, 4096)).unwrap();
        disk.discard(100, 8).unwrap();
        assert!(bench.on_host(2048, 4096) == pattern(9, 4096));
    }
}

#[test]
fn many_requests_at_once_on_several_queues() {
    const QUEUES: u16 = 4;
    const ROUNDS: u64 = 2000;
    const EACH: u64 = 4096;
    for way in WAYS {
        let mut bench = Bench::new(way, &["--queues", "5"]);
        assert!(bench.driver.has(F_MQ));
        let depth = 40u16;
        // Four descriptors a request.
        let options = QueueOptions {
            size: 256,
            ..QueueOptions::default()
        };
        for index in 1..=QUEUES {
            bench.driver.start_queue(index, &options).unwrap();
        }
        let buffers = bench
            .driver
            .allocate(EACH * u64::from(depth * QUEUES), 4096)
            .unwrap();
        let mut queues: Vec<_> = (1..=QUEUES)
            .map(|index| {
                let requests = BlockQueue::new(&mut bench.driver, depth).unwrap();
                (bench.driver.take_queue(index).unwrap(), requests)
            })
            .collect();
        // Each queue has its own quarter of the disk, in pages: written with their number, read back.
        for kind in [Kind::Out, Kind::In] {
            for (index, (queue, requests)) in queues.iter_mut().enumerate() {
                let (mut sent, mut ended) = (0, 0);
                let mut free: Vec<u64> = (0..u64::from(depth)).collect();
                while ended < ROUNDS {
                    while let (true, Some(slot)) = (sent < ROUNDS, free.pop()) {
                        let page = index as u64 * 256 + sent % 256;
                        let at = (index as u64 * u64::from(depth) + slot) * EACH;
                        let buffer = buffers.part(at as usize, EACH as usize);
                        let half = EACH as u32 / 2;
                        let (a, b) = (buffer.addr(), buffer.addr() + u64::from(half));
                        let data = if kind == Kind::Out {
                            buffer.write(0, &page.to_le_bytes().repeat(EACH as usize / 8));
                            [Segment::readable(a, half), Segment::readable(b, half)]
                        } else {
                            buffer.fill(0xee);
                            [Segment::writable(a, half), Segment::writable(b, half)]
                        };
                        let token = slot << 32 | page;
                        requests.add(queue, kind, page * 8, &data, token).unwrap();
                        sent += 1;
                    }
                    queue.flush().unwrap();
                    let done = requests.wait(queue, LIMIT).unwrap();
                    assert_eq!(done.status, Status::Ok);
                    let (slot, page) = (done.token >> 32, done.token & 0xffff_ffff);
                    if kind == Kind::In {
                        let at = (index as u64 * u64::from(depth) + slot) * EACH;
                        let data = buffers.to_vec(at as usize, EACH as usize);
                        assert!(
                            data == page.to_le_bytes().repeat(EACH as usize / 8),
                            "{page}"
                        );
                    }
                    free.push(slot);
                    ended += 1;
                }
            }
        }
    }
}

#[test]
fn an_image_in_use_is_refused_in_words_and_free_again_after_the_end() {
    let bench = Bench::new(IN_MEMORY, &[]);
    let path = bench.file.path().to_owned();
    let words = refusal(&path, &[]);
    assert!(
        words.contains("in use") && words.contains(path.to_str().unwrap()),
        "{words}"
    );
    let Bench {
        driver,
        daemon,
        file,
    } = bench;
    // The end of the stream is the end of the daemon.
    end(driver, daemon);
    let (_third, stream) = spawn(&path, &[]);
    assert!(Driver::new(stream, &Options::default()).is_ok());
    drop(file);
}

/// A loop device over a file; gone when dropped.
struct LoopDevice(String);

impl LoopDevice {
    /// `None`, with a word on stderr, where there can be none.
    fn over(file: &Path, args: &[&str]) -> Option<Self> {
        let output = Command::new("losetup")
            .args(["--find", "--show"])
            .args(args)
            .arg(file)
            .output();
        match output {
            Ok(output) if output.status.success() => Some(Self(
                String::from_utf8(output.stdout).unwrap().trim().to_owned(),
            )),
            other => {
                skipped(&format!("no loop device here: {other:?}"));
                None
            }
        }
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[test]
fn a_block_device_is_a_disk() {
    let file = image(DISK);
    let Some(device) = LoopDevice::over(file.path(), &[]) else {
        return;
    };
    let (daemon, stream) = spawn(Path::new(&device.0), &[]);
    let mut driver = drive(&daemon, stream, &Options::default());
    assert!(driver.has(F_DISCARD));
    let mut disk = Disk::new(&mut driver, 0, 1 << 20).unwrap();
    assert_eq!(disk.sectors().unwrap(), SECTORS);
    let mut data = pattern(5, 1 << 20);
    disk.write(0, &data).unwrap();
    disk.flush().unwrap();
    disk.discard(0, 256).unwrap();
    disk.write_zeroes(512, 64, false).unwrap();
    disk.write_zeroes(1024, 256, true).unwrap();
    disk.write_zeroes(2000, 1, true).unwrap();
    assert_eq!(
        disk.range(Kind::Discard, SECTORS - 1, 2, 0).unwrap(),
        Status::IoError
    );
    let mut back = vec![1; 1 << 20];
    disk.read(0, &mut back).unwrap();
    for (from, sectors) in [(512, 64), (1024, 256), (2000, 1)] {
        data[from * 512..(from + sectors) * 512].fill(0);
    }
    // What a discard leaves is up to the device.
    assert!(back[256 * 512..] == data[256 * 512..]);
    let blocks = file.as_file().metadata().unwrap().blocks();
    assert!(blocks * 512 <= (1 << 20) - (256 << 10) + 65536, "{blocks}");
    assert!(
        daemon.words().is_empty() || !daemon.words().contains("WARN"),
        "{}",
        daemon.words()
    );
}

/// More pieces than one system call takes, the first of which are whole blocks and all are not: what
/// goes past the page cache ends where the blocks do.
#[test]
fn a_tail_of_less_than_a_block_does_not_go_past_the_page_cache() {
    // With header and status as many descriptors as a chain may have, each of two pieces: it lies
    // across the border of two regions of memory.
    const COUNT: usize = 1022;
    const BORDER: u64 = 16 << 20;
    let file = image(DISK);
    let Some(device) = LoopDevice::over(file.path(), &["--sector-size", "4096"]) else {
        return;
    };
    let memory = Options {
        memory: vec![(0, BORDER), (BORDER, BORDER)],
        ..Options::default()
    };
    let ring = QueueOptions {
        size: 16,
        indirect: 1024,
        ..QueueOptions::default()
    };
    for engine in ["uring", "threads"] {
        let args = ["--direct", "--engine", engine];
        let (daemon, stream) = spawn(Path::new(&device.0), &args);
        let mut driver = Driver::new(stream, &memory).unwrap();
        driver.start_queue(0, &ring).unwrap();
        let control = driver.allocate(64, 64).unwrap();
        let below = driver.memory().window(BORDER - 512, 512).unwrap();
        let above = driver.memory().window(BORDER, 512).unwrap();
        let bytes = pattern(engine.len() as u8, 1024);
        // Where each sector begins, within the bytes around the border.
        let starts: Vec<usize> = (0..COUNT).map(|k| 1 + k % 511).collect();
        for (kind, writable) in [(Kind::Out, false), (Kind::In, true)] {
            let (old_below, old_above) = bytes.split_at(512);
            below.write(0, if writable { &[0; 512] } else { old_below });
            above.write(0, if writable { &[0; 512] } else { old_above });
            control.write(0, &(kind as u64).to_le_bytes());
            control.write(8, &[0; 8]);
            control.write(16, &[0xff]);
            let mut chain = vec![Segment::readable(control.addr(), 16)];
            chain.extend(starts.iter().map(|&start| Segment {
                addr: below.addr() + start as u64,
                len: 512,
                writable,
            }));
            chain.push(Segment::writable(control.addr() + 16, 1));
            let queue = driver.queue(0).unwrap();
            queue.submit(&chain, 0).unwrap();
            queue.wait(LIMIT).unwrap();
            let words = daemon.words();
            assert_eq!(control.to_vec(16, 1), [0], "{engine}, {kind:?}: {words}");
        }
        // The last sector read lies on top.
        let last = starts[starts.len() - 1];
        let around = [below.to_vec(0, 512), above.to_vec(0, 512)].concat();
        assert!(around[last..last + 512] == bytes[last..last + 512]);
        let expected: Vec<u8> = starts
            .iter()
            .flat_map(|&start| bytes[start..start + 512].iter().copied())
            .collect();
        let mut back = vec![0; expected.len()];
        Disk::new(&mut driver, 0, 1 << 20)
            .unwrap()
            .read(0, &mut back)
            .unwrap();
        assert!(back == expected, "{engine}");
        end(driver, daemon);
    }
}

#[test]
fn an_image_is_free_again_after_a_daemon_was_killed_at_work() {
    for dir in [MEMORY, DISK] {
        let file = image(dir);
        for _ in 0..5 {
            let (mut daemon, stream) = spawn(file.path(), &[]);
            let mut driver = drive(&daemon, stream, &Options::default());
            let data = driver.allocate(1 << 20, 4096).unwrap();
            let mut requests = BlockQueue::new(&mut driver, 32).unwrap();
            let queue = driver.queue(0).unwrap();
            for token in 0..32 {
                let segment = Segment::readable(data.addr(), 1 << 20);
                requests
                    .add(queue, Kind::Out, 0, &[segment], token)
                    .unwrap();
            }
            queue.flush().unwrap();
            requests.wait(queue, LIMIT).unwrap();
            daemon.kill();
        }
    }
}

#[test]
fn a_bad_image_is_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let odd = dir.path().join("odd.img");
    File::create(&odd).unwrap().set_len(777).unwrap();
    for (path, expected) in [
        (dir.path(), "is a directory"),
        (&dir.path().join("none.img"), "correct the path"),
        (&odd, "777 bytes"),
        (&dir.path().join("a.qcow2"), "No such file"),
    ] {
        let words = refusal(path, &[]);
        assert!(words.contains(expected), "{words}");
        assert_eq!(words.trim_end().lines().count(), 1, "{words}");
    }
}
