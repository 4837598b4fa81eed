//! The daemon itself on a tap of its own: frames between the SDK's driver, as the guest, and a
//! packet socket, as the host's network. Where no tap can be made the tests say so and pass.
#![allow(clippy::unwrap_used, clippy::panic)] // Tests fail by panicking, their helpers too.

mod host;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use host::{ETHERTYPE, LIMIT, PacketSocket, Tap, frame, ip};
use outboard_device::driver::net::{
    F_MAC, F_MRG_RXBUF, F_STATUS, HEADER_LEN, Header, RX, Receive, TX, Transmit,
};
use outboard_device::driver::{Daemon, Driver, Options, QueueOptions, Segment};

const GUEST: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
const HOST: [u8; 6] = [0x52, 0x54, 0, 9, 9, 9];

/// A card on a tap that is up, a driver, and the host's side.
struct Bench {
    driver: Driver,
    daemon: Daemon,
    host: PacketSocket,
    tap: Tap,
}

impl Bench {
    /// `None`, with a word on stdout, where taps cannot be made.
    fn new(features: u64) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let tap = Tap::up(format!("ob{}n{count}", std::process::id()), &[])?;
        let program = Path::new(env!("CARGO_BIN_EXE_outboard-net"));
        let args = [
            "--tap",
            &tap.0,
            "--mac",
            "52:54:00:01:02:03",
            "--log-level",
            "debug",
        ];
        let (daemon, stream) = Daemon::spawn(program, args).unwrap();
        let options = Options {
            features,
            ..Options::default()
        };
        let driver = match Driver::new(stream, &options) {
            Ok(driver) => driver,
            Err(error) => panic!("{error:?}; the daemon says: {}", daemon.words()),
        };
        let host = PacketSocket::on(&tap.0, ETHERTYPE).unwrap();
        Some(Self {
            driver,
            daemon,
            host,
            tap,
        })
    }

    fn start(&mut self) {
        for queue in [RX, TX] {
            self.driver
                .start_queue(queue, &QueueOptions::default())
                .unwrap();
        }
    }

    fn receive(&mut self, depth: u16, each: usize) -> Receive {
        Receive::new(&mut self.driver, RX, depth, each).unwrap()
    }

    fn next(&mut self, receive: &mut Receive) -> outboard_device::driver::net::Frame {
        receive.wait(self.driver.queue(RX).unwrap(), LIMIT).unwrap()
    }

    fn send(&mut self, transmit: &mut Transmit, header: Header, data: &[u8]) {
        let queue = self.driver.queue(TX).unwrap();
        transmit.add(queue, header, data).unwrap();
        queue.flush().unwrap();
    }
}

#[test]
fn a_card_tells_its_address_and_that_it_has_a_link() {
    let Some(mut bench) = Bench::new(u64::MAX) else {
        return;
    };
    assert!(bench.driver.has(F_MAC | F_STATUS | F_MRG_RXBUF));
    let mut config = [0; 10];
    bench.driver.read_config(0, &mut config).unwrap();
    assert_eq!(config[..6], GUEST);
    assert_eq!(config[6..], [1, 0, 1, 0]);
}

#[test]
fn frames_pass_both_ways() {
    let Some(mut bench) = Bench::new(u64::MAX) else {
        return;
    };
    bench.start();
    let mut transmit = Transmit::new(&mut bench.driver, 8, 9014).unwrap();
    let mut receive = bench.receive(64, 2048);
    for (round, len) in [60, 1514, 200, 9014, 61, 1500].into_iter().enumerate() {
        let out = frame(HOST, GUEST, len, round as u8);
        bench.send(&mut transmit, Header::default(), &out);
        assert!(bench.host.receive() == out, "{len}");

        let back = frame(GUEST, HOST, len, !(round as u8));
        bench.host.send(&back);
        let got = bench.next(&mut receive);
        assert!(got.data == back, "{len}");
        assert_eq!(
            usize::from(got.header.num_buffers),
            (len + HEADER_LEN).div_ceil(2048)
        );
    }
    let reaped = transmit.reap(bench.driver.queue(TX).unwrap()).unwrap();
    assert_eq!(reaped, 6);
}

#[test]
fn bursts_arrive_whole_and_in_order() {
    const COUNT: u8 = 200;
    let Some(mut bench) = Bench::new(u64::MAX) else {
        return;
    };
    bench.start();
    // Small buffers: most frames need several, and the ring holds few frames at once.
    let mut receive = bench.receive(32, 256);
    for seed in 0..COUNT {
        bench
            .host
            .send(&frame(GUEST, HOST, 60 + usize::from(seed) * 23, seed));
    }
    for seed in 0..COUNT {
        let got = bench.next(&mut receive);
        assert!(
            got.data == frame(GUEST, HOST, 60 + usize::from(seed) * 23, seed),
            "{seed}"
        );
    }
}

#[test]
fn frames_wait_for_buffers() {
    let Some(mut bench) = Bench::new(u64::MAX) else {
        return;
    };
    bench.start();
    for seed in 0..20 {
        bench.host.send(&frame(GUEST, HOST, 3000, seed));
    }
    std::thread::sleep(Duration::from_millis(50));
    let mut receive = bench.receive(8, 1600);
    for seed in 0..20 {
        assert!(
            bench.next(&mut receive).data == frame(GUEST, HOST, 3000, seed),
            "{seed}"
        );
    }
}

#[test]
fn a_frame_longer_than_the_ring_is_dropped_and_the_next_one_comes() {
    for features in [u64::MAX, !F_MRG_RXBUF] {
        let Some(mut bench) = Bench::new(features) else {
            return;
        };
        bench.start_small(4);
        let each = if bench.driver.has(F_MRG_RXBUF) {
            400
        } else {
            1600
        };
        let mut receive = bench.receive(4, each);
        bench.host.send(&frame(GUEST, HOST, 8000, 1));
        bench.host.send(&frame(GUEST, HOST, 1500, 2));
        assert!(bench.next(&mut receive).data == frame(GUEST, HOST, 1500, 2));
        assert!(bench.daemon.is_alive());
    }
}

impl Bench {
    /// Starts the queues with a receive ring of `size` entries.
    fn start_small(&mut self, size: u16) {
        let options = QueueOptions {
            size,
            ..QueueOptions::default()
        };
        self.driver.start_queue(RX, &options).unwrap();
        self.driver
            .start_queue(TX, &QueueOptions::default())
            .unwrap();
    }
}

#[test]
fn malformed_frames_are_completed_and_dropped() {
    let Some(mut bench) = Bench::new(u64::MAX) else {
        return;
    };
    bench.start();
    let memory = bench.driver.allocate(8192, 4096).unwrap();
    memory.fill(0xff); // among others: an unknown kind of segmentation
    let at = memory.addr();
    let queue = bench.driver.queue(TX).unwrap();
    let chains: [&[Segment]; 5] = [
        &[Segment::readable(at, 1)],
        &[Segment::readable(at, 12)],
        &[Segment::readable(at, 13)],
        &[Segment::readable(at, 12), Segment::readable(at + 12, 1500)],
        &[Segment::writable(at, 100)],
    ];
    for chain in chains {
        queue.submit(chain, 5).unwrap();
        let used = queue.wait(LIMIT).unwrap();
        assert_eq!((used.token, used.written), (5, 0), "{chain:?}");
    }
    let mut transmit = Transmit::new(&mut bench.driver, 1, 1514).unwrap();
    let good = frame(HOST, GUEST, 100, 1);
    bench.send(&mut transmit, Header::default(), &good);
    assert!(bench.host.receive() == good);
    assert!(bench.daemon.is_alive());
}

#[test]
fn what_was_sent_before_the_ring_broke_is_answered() {
    let Some(mut bench) = Bench::new(u64::MAX) else {
        return;
    };
    bench.start();
    let memory = bench.driver.allocate(4096, 4096).unwrap();
    let queue = bench.driver.queue(TX).unwrap();
    queue
        .add(&[Segment::readable(memory.addr(), 100)], 1)
        .unwrap();
    queue.add(&[Segment::readable(1 << 50, 100)], 2).unwrap();
    queue.flush().unwrap();
    assert_eq!(queue.wait(LIMIT).unwrap().token, 1);
}

#[test]
fn receive_buffers_of_no_use_come_back() {
    let Some(mut bench) = Bench::new(u64::MAX) else {
        return;
    };
    bench.start();
    let memory = bench.driver.allocate(4096, 4096).unwrap();
    let queue = bench.driver.queue(RX).unwrap();
    queue
        .add(&[Segment::writable(memory.addr(), 11)], 1)
        .unwrap();
    queue
        .add(&[Segment::readable(memory.addr(), 2000)], 2)
        .unwrap();
    queue
        .add(&[Segment::writable(memory.addr() + 64, 2000)], 3)
        .unwrap();
    queue.flush().unwrap();
    bench.host.send(&frame(GUEST, HOST, 100, 3));
    let queue = bench.driver.queue(RX).unwrap();
    for (token, written) in [(1, 0), (2, 0), (3, 112)] {
        let used = queue.wait(LIMIT).unwrap();
        assert_eq!((used.token, used.written), (token, written));
    }
    assert!(memory.to_vec(64 + HEADER_LEN, 100) == frame(GUEST, HOST, 100, 3));
}

#[test]
fn a_stopped_queue_gives_its_buffers_back_for_the_next_start() {
    let Some(mut bench) = Bench::new(u64::MAX) else {
        return;
    };
    bench.start();
    let mut receive = bench.receive(16, 2048);
    bench.host.send(&frame(GUEST, HOST, 100, 1));
    assert!(bench.next(&mut receive).data == frame(GUEST, HOST, 100, 1));
    // One of sixteen was used: the others were only lent.
    let base = bench.driver.stop_queue(RX).unwrap();
    assert_eq!(base, 1);
    bench.driver.resume_queue(RX, base).unwrap();
    for seed in 2..40 {
        bench.host.send(&frame(GUEST, HOST, 1000, seed));
        assert!(bench.next(&mut receive).data == frame(GUEST, HOST, 1000, seed));
    }
}

#[test]
fn a_tap_that_is_removed_is_a_pulled_cable() {
    let Some(mut bench) = Bench::new(u64::MAX) else {
        return;
    };
    bench.start();
    let mut receive = bench.receive(16, 2048);
    bench.host.send(&frame(GUEST, HOST, 100, 1));
    bench.next(&mut receive);
    ip(&["link", "delete", &bench.tap.0]);
    let end = Instant::now() + LIMIT;
    loop {
        let mut transmit = Transmit::new(&mut bench.driver, 1, 1514).unwrap();
        bench.send(
            &mut transmit,
            Header::default(),
            &frame(HOST, GUEST, 100, 1),
        );
        let mut status = [1, 0];
        bench.driver.read_config(6, &mut status).unwrap();
        if status == [0, 0] {
            break;
        }
        assert!(Instant::now() < end, "the link stays up");
    }
    assert!(bench.daemon.is_alive());
    assert!(
        bench.daemon.words().contains("has been removed"),
        "{}",
        bench.daemon.words()
    );
}

#[test]
fn a_tap_in_use_is_refused_in_one_line() {
    let Some(bench) = Bench::new(u64::MAX) else {
        return;
    };
    let program = Path::new(env!("CARGO_BIN_EXE_outboard-net"));
    let (mut second, _stream) = Daemon::spawn(program, ["--tap", &bench.tap.0]).unwrap();
    assert_eq!(second.wait(LIMIT).and_then(|status| status.code()), Some(1));
    let words = second.words();
    assert!(
        words.contains("in use") && words.trim_end().lines().count() == 1,
        "{words}"
    );
}
