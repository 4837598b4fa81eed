//! `outboard-block` against the conformance kit, and its data across everything the kit does.
#![allow(clippy::unwrap_used, clippy::panic)] // Tests fail by panicking, their helpers too.

use std::fs;
use std::process::Command;

use outboard_device::driver::block::{BlockQueue, F_FLUSH, F_MQ, Kind, SECTOR, Status};
use outboard_device::driver::connection::DEFAULT_LIMIT;
use outboard_device::driver::connection::F_RING_PACKED;
use outboard_device::driver::{Driver, Options, QueueOptions, Segment};
use outboard_device::testing::{Endpoint, Expected, Probe};
use outboard_tests::listening::Listening;

const SECTORS: u64 = 8192;
const QUEUES: u16 = 4;
/// The config space up to and with the fields of discard and write-zeroes
/// (virtio 1.2, section 5.2.4).
const CONFIG_LEN: u32 = 60;

/// What sector `sector` holds before anything is written.
fn pattern(sector: u64) -> Vec<u8> {
    (0..SECTOR)
        .map(|at| (at as u8).wrapping_mul(7) ^ sector as u8)
        .collect()
}

/// A way the daemon does I/O: where the image lies, and what the daemon is told.
#[derive(Clone, Copy, Debug)]
struct Way(&'static str, &'static [&'static str]);

const DISK: &str = env!("CARGO_TARGET_TMPDIR");
const IN_MEMORY: Way = Way("/dev/shm", &[]);
const URING: Way = Way(DISK, &["--engine", "uring"]);
const THREADS: Way = Way(DISK, &["--engine", "threads"]);
const DIRECT: Way = Way(DISK, &["--direct"]);
const QCOW2: Way = Way(DISK, &["--format", "qcow2"]);

fn start(Way(dir, args): Way, probe: Probe) -> Listening {
    let dir = tempfile::tempdir_in(dir).unwrap();
    let mut path = dir.path().join("disk.img");
    fs::write(&path, (0..SECTORS).flat_map(pattern).collect::<Vec<u8>>()).unwrap();
    if args.contains(&"qcow2") {
        let raw = std::mem::replace(&mut path, dir.path().join("disk.qcow2"));
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-q", "-f", "raw", "-O", "qcow2"]);
        let made = convert.arg(raw).arg(&path).status();
        assert!(made.unwrap().success(), "qemu-img makes no image");
    }
    let queues = QUEUES.to_string();
    let path = path.to_str().unwrap().to_owned();
    let usual = [
        "--path",
        &path,
        "--serial",
        "conformance",
        "--queues",
        &queues,
    ];
    let args = usual.iter().chain(args);
    let expected = Expected {
        features: F_RING_PACKED | F_FLUSH | F_MQ,
        config_len: CONFIG_LEN,
        queues: QUEUES,
        max_queue_size: 1024,
        running: vec![probe.queue],
        probe,
    };
    Listening::start("outboard-block", args, dir, expected)
}

fn header(kind: Kind, sector: u64) -> Vec<u8> {
    let mut header = (kind as u64).to_le_bytes().to_vec();
    header.extend(sector.to_le_bytes());
    header
}

/// A request that is answered without the disk.
mod get_id {
    use super::*;

    fn endpoint() -> Listening {
        let check = |written: u32, data: &[u8]| {
            // Padded to 20 bytes, and the status.
            let expected = b"conformance\0\0\0\0\0\0\0\0\0\0";
            if written == 21 && data == expected {
                Ok(())
            } else {
                Err(format!("{written} bytes written: {data:x?}"))
            }
        };
        start(
            IN_MEMORY,
            Probe {
                queue: 0,
                readable: header(Kind::GetId, 0),
                writable: 21,
                check,
            },
        )
    }

    outboard_device::conformance!(endpoint());
}

fn sector_77() -> Probe {
    let check = |written: u32, data: &[u8]| {
        let (status, sector) = data.split_last().unwrap();
        if written == 513 && *status == 0 && sector == pattern(77) {
            Ok(())
        } else {
            Err(format!("{written} bytes written, status {status}"))
        }
    };
    Probe {
        queue: 1,
        readable: header(Kind::In, 77),
        writable: 513,
        check,
    }
}

/// A read of a sector of a file on a disk.
mod read {
    use super::*;

    fn endpoint() -> Listening {
        start(URING, sector_77())
    }

    outboard_device::conformance!(endpoint());
}

/// The same, by threads.
mod read_by_threads {
    use super::*;

    fn endpoint() -> Listening {
        start(QCOW2, sector_77())
    }

    outboard_device::conformance!(endpoint());
}

/// Sectors are rewritten at random on every queue, while queues stop and resume, the device resets
/// and the frontend reconnects. At each pause the disk holds what was
/// written last.
#[test]
fn no_write_is_lost_or_torn_by_stops_resets_and_reconnects() {
    for way in [IN_MEMORY, URING, THREADS, DIRECT, QCOW2] {
        let probe = Probe {
            queue: 0,
            readable: Vec::new(),
            writable: 0,
            check: |_, _| Ok(()),
        };
        let mut endpoint = start(way, probe);
        let mut written: Vec<u8> = (0..SECTORS as usize).map(|_| 0).collect();
        let mut random = 1u64;
        for connection in 0..3 {
            let mut driver = Driver::new(endpoint.connect().unwrap(), &Options::default()).unwrap();
            for round in 0..6 {
                let mut disk = Writer::new(&mut driver);
                for step in 0..8 {
                    disk.rewrite(&mut driver, &mut written, &mut random, step % 4 == 3);
                }
                disk.verify(&mut driver, &written);
                if round % 2 == 1 {
                    driver.reset().unwrap();
                } else {
                    for queue in 0..QUEUES {
                        driver.stop_queue(queue).unwrap();
                    }
                }
            }
            drop(driver);
            endpoint
                .check_alive()
                .unwrap_or_else(|f| panic!("{way:?}, connection {connection}: {f}"));
        }
    }
}

/// Sectors in the upper half, in units of `RUN`, rewritten through all queues at once.
struct Writer {
    requests: Vec<BlockQueue>,
    buffer: outboard_device::driver::Window,
}

const RUN: u64 = 8;
const BASE: u64 = SECTORS / 2;
const PER_QUEUE: u64 = 24;

impl Writer {
    fn new(driver: &mut Driver) -> Self {
        let options = QueueOptions {
            indirect: 4,
            ..QueueOptions::default()
        };
        let requests = (0..QUEUES).map(|queue| {
            driver.start_queue(queue, &options).unwrap();
            BlockQueue::new(driver, PER_QUEUE as u16).unwrap()
        });
        let requests = requests.collect();
        let len = u64::from(QUEUES) * PER_QUEUE * RUN * SECTOR;
        let buffer = driver.allocate(len, 4096).unwrap();
        Self { requests, buffer }
    }

    /// Rewrites one run of sectors per request with a new value; no two requests in flight touch the
    /// same run. `stop` stops and resumes every queue with all of it in flight.
    fn rewrite(&mut self, driver: &mut Driver, written: &mut [u8], random: &mut u64, stop: bool) {
        for queue in 0..QUEUES {
            for i in 0..PER_QUEUE {
                *random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let value = (*random >> 56) as u8;
                let index = u64::from(queue) * PER_QUEUE + i;
                let (at, sector) = (index * RUN * SECTOR, BASE + index * RUN);
                self.buffer
                    .part(at as usize, (RUN * SECTOR) as usize)
                    .fill(value);
                written[sector as usize..(sector + RUN) as usize].fill(value);
                let addr = self.buffer.addr() + at;
                // Two segments: what is written must not be torn between them either.
                let data = [
                    Segment::readable(addr, 1000),
                    Segment::readable(addr + 1000, 3096),
                ];
                let requests = &mut self.requests[usize::from(queue)];
                let running = driver.queue(queue).unwrap();
                requests
                    .add(running, Kind::Out, sector, &data, index)
                    .unwrap();
            }
            driver.queue(queue).unwrap().flush().unwrap();
        }
        if stop {
            for queue in 0..QUEUES {
                let base = driver.stop_queue(queue).unwrap();
                driver.resume_queue(queue, base).unwrap();
            }
        }
        for queue in 0..QUEUES {
            for _ in 0..PER_QUEUE {
                let requests = &mut self.requests[usize::from(queue)];
                let running = driver.queue(queue).unwrap();
                let done = requests.wait(running, DEFAULT_LIMIT).unwrap();
                assert_eq!(done.status, Status::Ok);
            }
        }
    }

    /// Reads everything back through queue 0.
    fn verify(&mut self, driver: &mut Driver, written: &[u8]) {
        self.buffer.fill(0);
        let len = self.buffer.len();
        let data = [Segment::writable(self.buffer.addr(), len as u32)];
        let queue = driver.queue(0).unwrap();
        self.requests[0]
            .add(queue, Kind::In, BASE, &data, 0)
            .unwrap();
        queue.flush().unwrap();
        let done = self.requests[0].wait(queue, DEFAULT_LIMIT).unwrap();
        assert_eq!(done.status, Status::Ok);
        let bytes = self.buffer.to_vec(0, len);
        for (sector, data) in (BASE..).zip(bytes.chunks(SECTOR as usize)) {
            let value = written[sector as usize];
            assert!(data.iter().all(|byte| *byte == value), "sector {sector}");
        }
    }
}
