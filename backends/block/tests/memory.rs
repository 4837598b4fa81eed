//! The daemon with guest memory in as many regions as there may be, which come and go while it works.
#![allow(clippy::unwrap_used, clippy::panic)] // Tests fail by panicking, their helpers too.

use std::path::Path;
use std::time::Duration;

use outboard_device::driver::block::{BlockQueue, Kind, SECTOR, Status};
use outboard_device::driver::{Daemon, Driver, DriverError, Options, QueueOptions, Segment};

const LIMIT: Duration = Duration::from_secs(20);
/// Regions the daemon takes, and how many of them are there from the start, with rings and headers.
const MOST: u64 = 509;
const FIRST: u64 = 1;
/// Regions of one page, each two behind the other but for pairs that touch.
const BASE: u64 = 16 << 30;
const PAGE: u64 = 4096;

/// Where region `n` is: with a hole behind every odd one.
fn at(n: u64) -> u64 {
    BASE + (n / 2 * 3 + n % 2) * PAGE
}

fn pattern(seed: u64) -> Vec<u8> {
    (0..PAGE)
        .map(|i| (i * 7 + seed * 13 + seed / 256) as u8)
        .collect()
}

struct Bench {
    driver: Driver,
    block: BlockQueue,
    _daemon: Daemon,
    _image: tempfile::NamedTempFile,
}

impl Bench {
    fn new() -> Self {
        let image = tempfile::NamedTempFile::with_suffix(".img").unwrap();
        image.as_file().set_len(MOST * PAGE).unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_outboard-block"));
        let path = image.path().to_str().unwrap();
        let (daemon, stream) = Daemon::spawn(program, ["--path", path]).unwrap();
        let options = Options {
            memory: vec![(0, 1 << 20)],
            ..Options::default()
        };
        let mut driver = Driver::new(stream, &options).unwrap();
        driver.start_queue(0, &QueueOptions::default()).unwrap();
        let block = BlockQueue::new(&mut driver, 16).unwrap();
        Self {
            driver,
            block,
            _daemon: daemon,
            _image: image,
        }
    }

    fn plug(&mut self, n: u64) -> Result<(), DriverError> {
        self.driver.plug_memory(at(n), PAGE)
    }

    /// Fills the region.
    fn fill(&mut self, n: u64, data: &[u8]) {
        let window = self.driver.memory().window(at(n), PAGE).unwrap();
        window.write(0, data);
    }

    fn holds(&self, n: u64) -> Vec<u8> {
        let window = self.driver.memory().window(at(n), PAGE).unwrap();
        window.to_vec(0, PAGE as usize)
    }

    /// Begins a request for page `page` of the disk with `len` bytes of memory at `addr`.
    fn begin(&mut self, kind: Kind, page: u64, addr: u64, len: u32) {
        let data = match kind {
            Kind::In => Segment::writable(addr, len),
            _ => Segment::readable(addr, len),
        };
        let queue = self.driver.queue(0).unwrap();
        let sector = page * PAGE / SECTOR;
        self.block.add(queue, kind, sector, &[data], page).unwrap();
        queue.flush().unwrap();
    }

    fn end(&mut self) -> Status {
        let queue = self.driver.queue(0).unwrap();
        self.block.wait(queue, LIMIT).unwrap().status
    }

    fn copy(&mut self, kind: Kind, page: u64, addr: u64, len: u32) {
        self.begin(kind, page, addr, len);
        assert_eq!(
            self.end(),
            Status::Ok,
            "{kind:?} of page {page} at {addr:#x}"
        );
    }
}

#[test]
fn memory_comes_and_goes_in_509_regions() {
    let mut bench = Bench::new();
    assert_eq!(bench.driver.connection().max_regions().unwrap(), MOST);

    // Each new region is written from at once, while a request in the one before is under way.
    for n in 0..MOST - FIRST {
        bench.plug(n).unwrap();
        bench.fill(n, &pattern(n));
        bench.begin(Kind::Out, n, at(n), PAGE as u32);
        if n > 0 {
            assert_eq!(bench.end(), Status::Ok);
        }
    }
    assert_eq!(bench.end(), Status::Ok);
    let refused = bench.plug(MOST);
    assert!(
        matches!(refused, Err(DriverError::Refused { .. })),
        "{refused:?}"
    );

    // Read back elsewhere: every region is where it should be, and what it had is on the disk.
    let last = MOST - FIRST - 1;
    for n in 0..=last {
        bench.copy(Kind::In, n, at(last - n), PAGE as u32);
    }
    for n in 0..=last {
        assert!(bench.holds(last - n) == pattern(n), "page {n}");
    }
    // Two that touch, in one buffer.
    for n in (0..last).step_by(2) {
        bench.copy(Kind::In, n, at(n) + 512, PAGE as u32);
        let both = [bench.holds(n), bench.holds(n + 1)].concat();
        assert!(both[512..512 + PAGE as usize] == pattern(n), "page {n}");
    }

    // Some go and come back, with other memory behind them, while the others are at work.
    for n in (1..last).step_by(37) {
        bench.begin(Kind::In, n, at(n - 1), PAGE as u32);
        bench.driver.unplug_memory(at(n)).unwrap();
        bench.begin(Kind::Out, n, at(n + 1), PAGE as u32);
        bench.plug(n).unwrap();
        assert_eq!([bench.end(), bench.end()], [Status::Ok; 2]);
        bench.fill(n, &pattern(n + 7));
        bench.copy(Kind::Out, n, at(n), PAGE as u32);
        bench.copy(Kind::In, n, at(0), PAGE as u32);
        assert!(bench.holds(0) == pattern(n + 7), "region {n}");
    }
    let refused = bench.plug(MOST);
    assert!(
        matches!(refused, Err(DriverError::Refused { .. })),
        "{refused:?}"
    );
}

/// That a region is gone is no word only: what was at work in it before is not any more.
#[test]
fn a_region_that_is_gone_cannot_be_used() {
    let mut bench = Bench::new();
    for n in 0..4 {
        bench.plug(n).unwrap();
    }
    bench.copy(Kind::Out, 0, at(2), PAGE as u32);
    let twice = bench.driver.memory().region(at(2)).unwrap();
    bench.driver.unplug_memory(at(2)).unwrap();
    let gone = bench.driver.connection().remove_region(&twice);
    assert!(matches!(gone, Err(DriverError::Refused { .. })), "{gone:?}");
    bench.copy(Kind::Out, 0, at(1), PAGE as u32);
    bench.begin(Kind::Out, 0, at(2), PAGE as u32);
    let queue = bench.driver.queue(0).unwrap();
    assert!(
        queue.wait(Duration::from_millis(200)).is_err(),
        "it is used"
    );
    assert_ne!(queue.take_errors().unwrap(), 0, "nobody is told");
}
