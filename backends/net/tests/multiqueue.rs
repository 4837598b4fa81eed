//! A card of several queue pairs on a tap: which of them get frames, and who decides.
#![allow(clippy::unwrap_used, clippy::panic)] // Tests fail by panicking, their helpers too.

mod host;

use std::path::Path;
use std::time::Instant;

use host::{ETHERTYPE, LIMIT, PacketSocket, Tap, frame};
use outboard_device::driver::net::{Header, Receive, Transmit};
use outboard_device::driver::{Daemon, Driver, Options, QueueOptions, Segment};

const PAIRS: u16 = 3;
const CONTROL: u16 = 2 * PAIRS;
const F_CTRL_VQ: u64 = 1 << 17;
const F_MQ: u64 = 1 << 22;
/// `VIRTIO_NET_OK` and `VIRTIO_NET_ERR` (virtio 1.2, section 5.1.6.5).
const OK: u8 = 0;
const ERR: u8 = 1;

const GUEST: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
const HOST: [u8; 6] = [0x52, 0x54, 0, 9, 9, 9];

struct Bench {
    driver: Driver,
    daemon: Daemon,
    tap: Tap,
    receive: Vec<Receive>,
}

impl Bench {
    /// A card all of whose queues run. `None`, with a word on stdout, where taps cannot be made.
    fn new(name: &str, features: u64) -> Option<Self> {
        let tap = Tap::up(format!("ob{}{name}", std::process::id()), &["multi_queue"])?;
        let program = Path::new(env!("CARGO_BIN_EXE_outboard-net"));
        let args = ["--tap", &tap.0, "--queues", "3", "--log-level", "debug"];
        let (daemon, stream) = Daemon::spawn(program, args).unwrap();
        let options = Options {
            features,
            ..Options::default()
        };
        let driver = match Driver::new(stream, &options) {
            Ok(driver) => driver,
            Err(error) => panic!("{error:?}; the daemon says: {}", daemon.words()),
        };
        Some(Self {
            driver,
            daemon,
            tap,
            receive: Vec::new(),
        })
    }

    /// Starts `pairs` queue pairs and the queue after them, which is the control queue.
    fn start(&mut self, pairs: u16) {
        for queue in 0..=2 * pairs {
            let options = QueueOptions::default();
            self.driver.start_queue(queue, &options).unwrap();
        }
        for pair in 0..pairs {
            let receive = Receive::new(&mut self.driver, 2 * pair, 128, 2048).unwrap();
            self.receive.push(receive);
        }
    }

    /// Sends a command and returns the answer.
    fn command(&mut self, queue: u16, bytes: &[u8]) -> u8 {
        let memory = self.driver.allocate(64, 8).unwrap();
        memory.fill(0xaa);
        memory.write(0, bytes);
        let at = memory.addr();
        let len = bytes.len() as u32;
        let chain = [Segment::readable(at, len), Segment::writable(at + 32, 1)];
        let queue = self.driver.queue(queue).unwrap();
        queue.submit(&chain, 1).unwrap();
        assert_eq!(queue.wait(LIMIT).unwrap().written, 1);
        memory.to_vec(32, 1)[0]
    }

    fn set_pairs(&mut self, pairs: u16) -> u8 {
        let [low, high] = pairs.to_le_bytes();
        self.command(CONTROL, &[4, 0, low, high])
    }

    /// Sends UDP packets of many flows from the host; returns how many came on each pair.
    fn spread(&mut self) -> Vec<usize> {
        const FLOWS: u8 = 100;
        let socket = PacketSocket::on(&self.tap.0, 0x0800).unwrap();
        for flow in 0..FLOWS {
            let ip = [
                0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
            ];
            let udp = [flow, 1, 0, 80, 0, 12, 0, 0, 1, 2, 3, flow];
            socket.send(&[&GUEST[..], &HOST, &[8, 0], &ip, &udp].concat());
        }
        let mut counts = vec![0; self.receive.len()];
        let end = Instant::now() + LIMIT;
        while counts.iter().sum::<usize>() < usize::from(FLOWS) {
            assert!(Instant::now() < end, "frames are lost: {counts:?}");
            for (pair, receive) in self.receive.iter_mut().enumerate() {
                let queue = self.driver.queue(2 * pair as u16).unwrap();
                while let Some(got) = receive.poll(queue).unwrap() {
                    counts[pair] += usize::from(got.data.get(12..14) == Some(&[8, 0]));
                }
            }
        }
        counts
    }
}

#[test]
fn the_driver_chooses_how_many_pairs_it_uses() {
    let Some(mut bench) = Bench::new("a", u64::MAX) else {
        return;
    };
    assert!(bench.driver.has(F_CTRL_VQ | F_MQ));
    let mut pairs = [0; 2];
    bench.driver.read_config(8, &mut pairs).unwrap();
    assert_eq!(u16::from_le_bytes(pairs), PAIRS);
    bench.start(PAIRS);

    assert_eq!(bench.spread(), [100, 0, 0], "one pair until asked");
    assert_eq!(bench.set_pairs(PAIRS), OK);
    let counts = bench.spread();
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");

    let host = PacketSocket::on(&bench.tap.0, ETHERTYPE).unwrap();
    for pair in 0..PAIRS {
        let mut transmit = Transmit::new(&mut bench.driver, 1, 1514).unwrap();
        let out = frame(HOST, GUEST, 200, pair as u8);
        let queue = bench.driver.queue(2 * pair + 1).unwrap();
        transmit.add(queue, Header::default(), &out).unwrap();
        queue.flush().unwrap();
        assert!(host.receive() == out, "pair {pair}");
    }

    assert_eq!(bench.set_pairs(2), OK);
    let counts = bench.spread();
    assert!(
        counts[0] > 0 && counts[1] > 0 && counts[2] == 0,
        "{counts:?}"
    );
    assert_eq!(bench.set_pairs(1), OK);
    assert_eq!(bench.spread(), [100, 0, 0]);
    assert!(bench.daemon.is_alive());
    let mut status = [0; 2];
    bench.driver.read_config(6, &mut status).unwrap();
    assert_eq!(status, [1, 0], "a detached queue is no lost tap");
}

#[test]
fn commands_that_make_no_sense_change_nothing() {
    let Some(mut bench) = Bench::new("b", u64::MAX) else {
        return;
    };
    bench.start(PAIRS);
    assert_eq!(bench.set_pairs(2), OK);
    for command in [
        &[4, 0, 0, 0][..],
        &[4, 0, 4, 0],
        &[4, 0, 0, 0x80],
        &[4, 0, 1],
        &[4, 0, 1, 0, 0],
        &[4, 1, 1, 0],
        &[3, 0, 1],
        &[0xff, 0xff],
        &[4],
    ] {
        assert_eq!(bench.command(CONTROL, command), ERR, "{command:?}");
    }
    let memory = bench.driver.allocate(64, 8).unwrap();
    let queue = bench.driver.queue(CONTROL).unwrap();
    let silent = [Segment::readable(memory.addr(), 4)];
    queue.submit(&silent, 9).unwrap();
    assert_eq!(queue.wait(LIMIT).unwrap().written, 0);
    let counts = bench.spread();
    assert!(counts[1] > 0 && counts[2] == 0, "{counts:?}");
}

#[test]
fn for_a_driver_of_one_pair_the_control_queue_is_the_third() {
    let Some(mut bench) = Bench::new("c", !F_MQ) else {
        return;
    };
    bench.start(1);
    assert_eq!(bench.command(2, &[4, 0, 2, 0]), ERR, "without MQ");
    assert_eq!(bench.spread(), [100]);
}

#[test]
fn a_tap_of_one_queue_is_refused_with_the_remedy() {
    let Some(tap) = Tap::up(format!("ob{}d", std::process::id()), &[]) else {
        return;
    };
    let program = Path::new(env!("CARGO_BIN_EXE_outboard-net"));
    let (mut daemon, _stream) = Daemon::spawn(program, ["--tap", &tap.0, "--queues", "2"]).unwrap();
    let code = daemon.wait(LIMIT).and_then(|status| status.code());
    assert_eq!(code, Some(1));
    assert!(daemon.words().contains("multi_queue"), "{}", daemon.words());
}
